// Package sqlite keeps everything a control plane must remember in one SQLite
// file, and is the embedded queue: a task is submitted, stored and queued in
// one transaction. [Open] returns a [DB], which is a fleet.Store; [DB.Queue]
// is its fleet.Queue. [Lock] keeps a second process out of the data directory.
//
// # Durability
//
// The file is in WAL mode. What a caller was promised (Submit, Settle, Retry,
// Cancel, ExpireQueued, DeadLetter, schedules) has reached the disk when the
// call returns and survives power loss. What is only of use while the machine
// is up (leases, claims, progress, sandbox records, the journal) survives the
// death of the process, and power loss ends the sandboxes it describes anyway.
//
// One goroutine writes. Calls that arrive while it commits are put into its
// next transaction together (group commit), each behind a savepoint of its
// own; the journal lets what tasks wait for go first. Transactions are
// committed without a sync (synchronous=NORMAL). A second goroutine syncs the
// log and then answers all who were promised durability, so others may see,
// and work on, what was committed a moment before it is durable: a task is
// leased while its submission is still being synced. A sync that fails is an
// error to those who waited for it, and nobody knows whether what they wrote
// will be there after a loss of power; nothing more is called durable until the
// log was moved into the file. A third goroutine moves the log, which would
// hold the writer up.
//
// # The queue
//
// The order of the waiting tasks is kept in memory, 16 bytes a task, and is
// rebuilt when the file is opened; so a lease costs O(log n) and Stats O(1)
// in the length of the queue. After a transaction that failed to commit it is
// rebuilt from the file: the file is the truth.
//
// A task that was leased but has not claimed a sandbox is delivered again when
// its lease ends, or when the database is opened anew (whoever held it has
// died); the earlier holder is fenced from that instant. A task that has
// claimed a sandbox is owned by that claim, which is recorded here: its lease
// ends only with Settle, Retry, Nack or DeadLetter, whatever the clock says.
// A control plane that slept, or was killed, finds the task and its sandbox as
// they were and decides; a second sandbox never runs the task beside the
// first. Leases of claimed tasks are therefore not written at all.
//
// # Bounds
//
// Events and decisions are kept up to a number each, the oldest go first; an
// unchanged decision soon after a stored one is not stored again. Idempotency
// keys live as long as their task, until Prune.
//
// # Damage
//
// A file that cannot be trusted is refused with fleet.ErrCorrupt and is not
// touched: it is looked at through a read-only connection before anything
// else. The error names the newest copy (muster.db.bak-…, two are kept, made
// every few hours and before a migration) and how to put it back. A full disk
// is fleet.ErrFull; nothing half-done is kept, and calls succeed again once
// there is space.
package sqlite
