package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/pg"
)

// how a write is made.
type how int

const (
	// durable is on the server's disk when the call returns.
	durable how = iota
	// loose survives this process; a crash of the server may lose the last
	// second of it, and never only the middle of what was written.
	loose
)

// call is one write that waits for its turn. It reads (and locks) what it is
// about, decides, and writes; many calls share a transaction, and each of the
// two exchanges with the server. A transaction that the server undid for the
// sake of another is run again, so every step must be repeatable.
type call struct {
	name string
	how  how
	// keys name what it reads and writes: of two calls with one key, one waits
	// until the other is over.
	keys []string
	led  bool // refused once another leads

	read   func(*pgx.Batch)      // may be nil
	decide func(*exchange) error // may be nil; after an error it writes nothing
	write  func(*pgx.Batch)      // may be nil
	// after reports what only the answer to the write told; may be nil.
	after func() error

	ctx  context.Context
	err  error
	done chan struct{}
}

// exchange is what the calls of one transaction share.
type exchange struct {
	added int // tasks, so far
	// woken and told say that consumers and readers of events have something to
	// see; next is when the queue will change by itself because of it.
	woken, told bool
	next        time.Time
}

// expect notes that the queue changes at a time.
func (x *exchange) expect(at time.Time) {
	if x.next.IsZero() || at.Before(x.next) {
		x.next = at
	}
}

// most is how many calls share one transaction at most.
const most = 64

// lanes run calls, each lane one transaction after another.
type lanes struct {
	db    *DB
	first int // number of the first lane
	count int

	mu      sync.Mutex
	waiting []*call
	busy    map[string]struct{} // keys of the calls that run
	free    []int               // numbers of lanes that are idle
	closed  bool
	running sync.WaitGroup
}

func newLanes(db *DB, first, count int) *lanes {
	l := &lanes{db: db, first: first, count: count, busy: map[string]struct{}{}}
	for n := range count {
		l.free = append(l.free, first+n)
	}
	return l
}

// write runs a call in a transaction soon and returns once that is committed. A
// call whose context ends before its turn is not run; once begun it is run to
// its end.
func (l *lanes) write(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	c.ctx, c.done = ctx, make(chan struct{})
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fmt.Errorf("%s: %w", c.name, l.db.closedErr())
	}
	l.waiting = append(l.waiting, c)
	l.startLocked()
	l.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		if l.withdraw(c) {
			return fmt.Errorf("%s: %w", c.name, ctx.Err())
		}
		<-c.done
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", c.name, c.err)
	}
	return nil
}

// withdraw takes back a call that has not begun.
func (l *lanes) withdraw(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, c)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// startLocked starts an idle lane when there is something to do for it.
func (l *lanes) startLocked() {
	if len(l.free) == 0 {
		return
	}
	batch := l.takeLocked()
	if len(batch) == 0 {
		return
	}
	n := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.running.Go(func() { l.run(n, batch) })
}

// takeLocked returns the calls of the next transaction, the first come first,
// but for those whose keys are in use.
func (l *lanes) takeLocked() []*call {
	var batch []*call
	rest := l.waiting[:0]
	for i, c := range l.waiting {
		if len(batch) == most {
			rest = append(rest, l.waiting[i:]...)
			break
		}
		if slices.ContainsFunc(c.keys, func(k string) bool { _, in := l.busy[k]; return in }) {
			rest = append(rest, c)
			continue
		}
		for _, k := range c.keys {
			l.busy[k] = struct{}{}
		}
		batch = append(batch, c)
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
	return batch
}

// run is a lane, until there is nothing more to do.
func (l *lanes) run(lane int, batch []*call) {
	for len(batch) > 0 {
		l.db.commit(lane, batch)
		l.mu.Lock()
		for _, c := range batch {
			for _, k := range c.keys {
				delete(l.busy, k)
			}
		}
		next := l.takeLocked()
		if len(next) == 0 {
			l.free = append(l.free, lane)
		} else {
			l.startLocked() // keys were freed: there may be work for others, too
		}
		l.mu.Unlock()
		for _, c := range batch {
			close(c.done)
		}
		batch = next
	}
}

// stop lets what is waiting be written.
func (l *lanes) stop() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
}

// attempts bounds how often a transaction is run.
const attempts = 5

// commit runs a batch in one transaction and leaves each call its error. When
// the server refuses it, each call is run by itself, so that one that cannot
// be written keeps none of the others from it.
func (db *DB) commit(lane int, batch []*call) {
	live := slices.DeleteFunc(slices.Clone(batch), func(c *call) bool {
		c.err = c.ctx.Err()
		return c.err != nil
	})
	if len(live) == 0 {
		return
	}
	err := db.transact(lane, live)
	for range attempts - 1 {
		again := pg.Crossed(err) || len(live) == 1 && pg.Duplicate(err, keyConstraint)
		if !again {
			break
		}
		err = db.transact(lane, live)
	}
	switch {
	case err == nil:
	case len(live) > 1 && pg.Refused(err):
		for _, c := range live {
			db.commit(lane, []*call{c})
		}
	default:
		for _, c := range live {
			c.err = db.fault(err)
		}
	}
}

// transact is one attempt. Its error is one that undid everything.
func (db *DB) transact(lane int, batch []*call) error {
	x := exchange{}
	err := db.server.Do(context.Background(), "write", func(ctx context.Context, p *pgxpool.Pool) error {
		x = exchange{}
		return onConn(ctx, p, func(c *pgx.Conn) error { return db.exchange(ctx, c, lane, batch, &x) })
	})
	if err != nil {
		return err
	}
	for _, c := range batch {
		if c.err == nil && c.after != nil {
			c.err = c.after()
		}
	}
	db.folding.moves.Add(int64(len(batch)))
	db.changed(x)
	return nil
}

// onConn runs f with a connection, which is thrown away when f leaves a
// transaction open on it.
func onConn(ctx context.Context, p *pgxpool.Pool, f func(*pgx.Conn) error) error {
	c, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	err = f(c.Conn())
	if err != nil && !c.Conn().IsClosed() && c.Conn().PgConn().TxStatus() != 'I' {
		if _, undo := c.Exec(ctx, "ROLLBACK"); undo != nil {
			return errors.Join(err, undo)
		}
	}
	return err
}

// exchange runs a batch of calls in a transaction.
func (db *DB) exchange(ctx context.Context, c *pgx.Conn, lane int, batch []*call, x *exchange) error {
	b := &pgx.Batch{}
	reads := db.begin(b, batch)
	if reads {
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		b = &pgx.Batch{}
	}
	for _, w := range batch {
		w.err = nil
		if w.decide != nil {
			if w.err = w.decide(x); w.err != nil {
				continue
			}
		}
		if w.write != nil {
			w.write(b)
		}
	}
	if x.woken || x.told {
		db.mark(b, lane, *x)
	}
	b.Queue("COMMIT")
	return c.SendBatch(ctx, b).Close()
}

// begin queues what a transaction begins with.
func (db *DB) begin(b *pgx.Batch, batch []*call) (reads bool) {
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	if !slices.ContainsFunc(batch, func(c *call) bool { return c.how == durable }) {
		b.Queue("SET LOCAL synchronous_commit = off")
	}
	if term := db.term.Load(); term > 0 && slices.ContainsFunc(batch, func(c *call) bool { return c.led }) {
		b.Queue("SELECT in_term($1, $2)", term, db.turnstile)
	}
	for _, c := range batch {
		if c.read != nil {
			c.read(b)
			reads = true
		}
	}
	return reads
}

// mark tells the other processes, should push not reach them.
func (db *DB) mark(b *pgx.Batch, lane int, x exchange) {
	b.Queue(`INSERT INTO peers AS p (id, lane, queue, events) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id, lane) DO UPDATE SET queue = p.queue + excluded.queue, events = p.events + excluded.events, at = now()`,
		db.id, lane, one(x.woken), one(x.told))
}

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// keysOf are the keys of tasks, sorted.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
