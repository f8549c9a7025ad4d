package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// most is how many calls share one transaction at most.
const most = 256

// how a write is made.
type how int

const (
	// prompt returns once it is committed: it survives the process.
	prompt how = iota
	// durable returns once it has reached the disk: it survives power loss.
	durable
	// patient is prompt, and lets what tasks wait for go first.
	patient
)

// patience is how many transactions patient calls let go first.
const patience = 16

// call is one write that waits for its turn.
type call struct {
	ctx  context.Context
	name string
	how  how
	do   func(*tx) error
	err  error
	done chan struct{}
}

// writer runs calls one after another in shared transactions.
type writer struct {
	mu      sync.Mutex
	waiting []*call
	later   []*call // patient ones
	passed  int     // transactions they have let go first
	closed  bool
	kick    chan struct{} // holds one value while calls may be waiting
	ended   chan struct{}
}

// tx is the connection that writes, during a transaction.
type tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	// moved says the line in memory was changed by this transaction; woken, told
	// and boxed that consumers, readers of events and of records of sandboxes
	// have something to see.
	moved, woken, told, boxed bool
	// armed says the timer may have to go off earlier than it is set for.
	armed bool
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	st := t.stmts[query]
	if st == nil {
		var err error
		if st, err = t.conn.PrepareContext(context.Background(), query); err != nil {
			return nil, err
		}
		t.stmts[query] = st
	}
	return st, nil
}

// close releases the connection; the pool it came from can close then.
func (t *tx) close() error {
	var errs []error
	for _, st := range t.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, t.conn.Close())...)
}

// exec and row never carry a caller's context: a transaction shared by many
// must not be interrupted by one.
func (t *tx) exec(query string, args ...any) (sql.Result, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept for the next call; tx.close closes it
	if err != nil {
		return nil, err
	}
	return st.Exec(args...)
}

func (t *tx) row(query string, args ...any) scanner {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept for the next call; tx.close closes it
	if err != nil {
		return failed{err}
	}
	return st.QueryRow(args...)
}

func (t *tx) rows(query string, args ...any) (*sql.Rows, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept for the next call; tx.close closes it
	if err != nil {
		return nil, err
	}
	return st.Query(args...)
}

type scanner interface{ Scan(...any) error }

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// write runs do in a transaction soon and returns once that is committed; with
// durable, once it has reached the disk. A call whose context ends before its
// turn is not run; once begun it is run to its end.
func (db *DB) write(ctx context.Context, name string, how how, do func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c := &call{ctx: ctx, name: name, how: how, do: do, done: make(chan struct{})}
	if db.onCall != nil {
		db.onCall(c)
	}
	w := &db.writer
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return fmt.Errorf("%s: database %s is closed: %w", name, db.path, fleet.ErrUnavailable)
	}
	if how == patient {
		w.later = append(w.later, c)
	} else {
		w.waiting = append(w.waiting, c)
	}
	w.mu.Unlock()
	poke(w.kick)
	<-c.done
	if c.err != nil {
		return db.wrap(name, c.err)
	}
	return nil
}

// run is the goroutine that writes.
func (db *DB) run(t *tx) {
	w := &db.writer
	defer close(w.ended)
	for range w.kick {
		for {
			batch, closed := w.take()
			if len(batch) == 0 {
				if closed {
					return
				}
				break
			}
			if db.mover.finish.Swap(false) {
				_, _ = t.conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)") // tried again
			}
			db.commit(t, batch)
			db.mover.committed(len(batch))
			db.answer(batch)
		}
	}
}

// take returns the calls of the next transaction.
func (w *writer) take() (batch []*call, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	cut := func(calls *[]*call, room int) {
		n := min(len(*calls), room)
		batch = append(batch, (*calls)[:n]...)
		*calls = (*calls)[n:]
	}
	cut(&w.waiting, most)
	if len(batch) > 0 && len(w.later) > 0 {
		if w.passed++; w.passed <= patience {
			return batch, w.closed
		}
	}
	w.passed = 0
	cut(&w.later, max(1, most-len(batch)))
	return batch, w.closed
}

// stop lets what is waiting be written and ends the goroutine.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	poke(w.kick)
	<-w.ended
}

// commit runs a batch in one transaction and leaves each call its error.
func (db *DB) commit(t *tx, batch []*call) {
	t.moved, t.woken, t.told, t.boxed, t.armed = false, false, false, false, false
	err := db.mend(t)
	if err == nil {
		err = db.transact(t, batch)
	}
	if err != nil {
		for _, c := range batch {
			if c.err == nil {
				c.err = err
			}
		}
		_, _ = t.conn.ExecContext(context.Background(), "ROLLBACK") // may have happened already
		// The file is the truth; what this batch did to the line is not in it.
		db.last = lastDecision{}
		if t.moved {
			_ = db.rebuild(t) // tried again before the next batch and reading
		}
		return
	}
	if t.moved {
		db.mu.Lock()
		clear(db.line.ended)
		db.mu.Unlock()
	}
	switch {
	case t.woken:
		db.notify()
	case t.armed:
		db.arm()
	}
	if t.told {
		db.tell(db.watchers)
	}
	if t.boxed {
		db.tell(db.boxWatchers)
	}
}

// transact begins, runs every call and commits. Its error is one that undid
// everything; a call that failed by itself is undone by itself.
func (db *DB) transact(t *tx, batch []*call) error {
	if _, err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, c := range batch {
		if c.err = c.ctx.Err(); c.err != nil {
			continue
		}
		if err := db.nested(t, c, len(batch) > 1); err != nil {
			return err
		}
	}
	if len(batch) == 1 && batch[0].err != nil {
		return batch[0].err
	}
	_, err := t.exec("COMMIT")
	return err
}

// nested runs one call behind a savepoint. Alone it needs none.
func (db *DB) nested(t *tx, c *call, shared bool) error {
	if shared {
		if _, err := t.exec("SAVEPOINT one"); err != nil {
			return err
		}
	}
	before := t.moved
	t.moved = false
	c.err = c.do(t)
	failedMoving := c.err != nil && t.moved
	t.moved = t.moved || before
	if isFatal(c.err) {
		return c.err
	}
	if !shared {
		return nil
	}
	if c.err != nil {
		if _, err := t.exec("ROLLBACK TO one"); err != nil {
			return errors.Join(err, c.err)
		}
	}
	if _, err := t.exec("RELEASE one"); err != nil {
		return err
	}
	if failedMoving {
		return db.rebuild(t)
	}
	return nil
}

// rebuild reads the line from the file, as this transaction sees it.
func (db *DB) rebuild(t *tx) error {
	db.mu.Lock()
	db.stale = true
	db.mu.Unlock()
	return db.mend(t)
}
