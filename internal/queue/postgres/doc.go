// Package postgres takes tasks from a table of PostgreSQL: one of our own
// (Config.Table), or somebody else's by SQL of the user (Config.SQL). It may
// import fleet, internal/queue/connect and pgx.
//
// # Our own table
//
// A row is ready, delayed, leased or dead; state is a column generated from
// the others:
//
//	             lease                    ack
//	INSERT ─> ready ─────────> leased ─────────> (deleted)
//	   │        ^ ^               │ │
//	   │        │ └── lease ends ─┘ ├── dead-letter ─> dead
//	   │        │     nack          │
//	   └──> delayed <───────────────┘ nack with delay
//
// All times are the server's. What is handed out is turned into our clock by
// ages and durations, so that clocks that differ do no harm; a lease is said to
// end at most a round trip earlier than it does.
//
//   - Lease: SELECT … FOR UPDATE SKIP LOCKED ("SELECT", The Locking Clause:
//     meant for queue-like tables with many consumers), and in the same
//     statement a random lease_token and due_at, the end of the lease. The
//     transaction ends with the statement: nothing is held while a task runs.
//   - Extend, ack (DELETE), nack, dead-letter: one UPDATE or DELETE each that
//     compares token and end of lease. In READ COMMITTED a statement that waited
//     for a row's lock looks at its newest version again ("Transaction
//     Isolation"), so of two that compete one changes nothing: ErrFenced.
//   - Leases and delays that end are put back by every consumer's clock at the
//     time the nearest ends, at most a second late when another process took
//     the lease, and by Receive when it finds nothing.
//   - Attempts: a column that each lease increments.
//   - Dead letters: the row stays, with time and reason.
//   - Counts: count(*) reads every row (PostgreSQL wiki, "Slow Counting"), so
//     AFTER triggers for each statement with transition tables ("CREATE
//     TRIGGER", REFERENCING; they see COPY and many rows as one) append what a
//     statement changed to a second table, and Stats sums it. Nobody waits for
//     a row that another transaction counts in, as with counters that are
//     updated in place. Consumers fold the rows into one; a reading sees either
//     all of a fold or none. Time alone changes no row: what has become due
//     since is counted by an index over what is delayed or leased.
//   - Oldest: the first of the ready of each priority, one probe of the index
//     each. Within a priority the order is that of arrival.
//   - Push: the triggers call pg_notify, delivered at commit, equal ones of a
//     transaction as one ("NOTIFY"); one connection listens. After a reconnect
//     we wake, since notifications are not kept for who is not listening.
//
// # Traits
//
// Everything, with our own table: PostgreSQL can tell all of it. With SQL, what
// its Tells says; Push with a Channel; Binary unless Text. A receipt is a token
// in the table, so it outlives connections and processes (Durable).
//
// # Crashes
//
// Each step is one statement, which happened or did not. A process that dies
// before it reads the answer to a lease leaves messages leased that nobody
// knows of: they come again when the lease ends, with one more attempt. One
// whose ack was committed but not answered is told ErrFenced when it asks
// again. A message is lost only with the database; a fail-over to a replica
// that lags may bring one back that was settled.
//
// # Somebody else's table
//
// Statements have named parameters, replaced as pgx.NamedArgs does and sent as
// text: the server reads each as the type of its place. Results are read as
// text too, except bytea. All are prepared, not run, when the server is first
// reached. See docs/queues/postgres.md for what they must do.
package postgres
