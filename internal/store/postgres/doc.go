// Package postgres keeps everything a control plane must remember in a schema
// of a PostgreSQL database, and is the queue of its tasks: several control
// planes, of which one leads, and consumers in processes of their own share it.
// [Open] returns a [DB], which is a fleet.Store; [DB.Queue] is its fleet.Queue.
// Several fleets share a database, each in a schema of its own ([SchemaFor]).
//
// # Writing
//
// A write is a call that reads and locks what it is about, decides by the rules
// of store/lifecycle, and writes. Calls that arrive while others are written
// share the next transaction (group commit), which takes two exchanges with the
// server however many calls are in it. What a caller was promised (Submit,
// Settle, leases, claims, decisions, …) is on the server's disk when the call
// returns; progress and events are committed without waiting for the disk, in
// order, so that a crash of the server may take the last moment of them.
//
// A connection that breaks while a transaction is committed leaves it open
// whether it was: fleet.ErrUnavailable. Every call can be repeated: submissions
// by their idempotency key, the rest by the fence.
//
// # The queue
//
// A lease picks from the front of each pool, tenant and priority by an index,
// under a lock that all leases of a store share, so that weights and caps hold
// over all processes; tasks that another transaction is busy with are passed
// over (SKIP LOCKED). Counts are kept by triggers as a sum of small rows, which
// is folded now and then: no transaction waits for a counter, and Stats costs
// the same for ten and for a million tasks. Time is that of the processes,
// whose clocks should agree within a second.
//
// A task that was leased but has not claimed a sandbox is delivered again when
// its lease ends, or when the process that leased it closes the store. A task
// that has claimed a sandbox is owned by that claim, as in store/sqlite.
//
// # Leading
//
// [DB.Lead] begins a new term. From that instant a store that led before is
// refused ([ErrDeposed], which is fleet.ErrFenced) whatever an earlier leader
// must not write any more: leases, claims, everything under a fence, records of
// sandboxes and whose they are, the journal, settings. Lead waits for
// transactions that are under way. Submissions, cancellations and schedules are
// taken from any process, and a store that never led is not checked.
// [DB.Campaign] elects a leader where there is no cluster to do it.
//
// # Owners
//
// Sandboxes are driven by consumers, processes that open the store beside the
// leader's and never lead. A claim takes a sandbox of the claimer's only, also
// when it is made along with a lease. [DB.TakeOver] raises the fence of the task
// with the owner in one transaction, so that of a former owner that still lives
// nothing counts; it locks the task before the sandbox, as claims do. How old
// the word of a consumer is goes by the server's clock.
//
// # Push
//
// What one process changes wakes the others by NOTIFY, heard on a connection of
// its own; within the process it wakes at once. Consumers of the queue, readers
// of events and of records of sandboxes are told apart. Should push fail, each
// process looks once a second whether another has changed anything.
//
// # Bounds and damage
//
// Events and decisions are kept up to a number each, as in store/sqlite. Each
// call is bounded in time, the pool in connections. Errors are told apart by
// SQLSTATE: a full disk is fleet.ErrFull, a server that is down or does not
// answer fleet.ErrUnavailable, refused credentials fleet.ErrDenied, a schema
// that was damaged or altered fleet.ErrCorrupt. A schema of a newer program is
// refused.
//
// It may import fleet, pg, packages below store that are no store themselves,
// and pgx.
package postgres
