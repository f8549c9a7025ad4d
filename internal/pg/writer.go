package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
)

// Call is one write that waits for its turn. It reads (and locks) what it is
// about, decides, and writes; many calls share a transaction, and each of the
// two exchanges with the server. A transaction that the server undid for the
// sake of another is run again, so every step must be repeatable. X is what the
// calls of one transaction share.
type Call[X any] struct {
	Name string
	// Loose survives this process; a crash of the server may lose the last
	// moment of it, and never only the middle of what was written. Otherwise it
	// is on the server's disk when the call returns.
	Loose bool
	// Keys name what it reads and writes: of two calls with one key, one waits
	// until the other is over.
	Keys   []string
	Led    bool // told to Hooks.Begin
	Weight int  // bytes that it sends, roughly

	Read   func(*pgx.Batch) // may be nil
	Decide func(*X) error   // may be nil; after an error it writes nothing
	Write  func(*pgx.Batch) // may be nil
	// After reports what only the answer to the write told; may be nil.
	After func() error

	ctx  context.Context
	err  error
	done chan struct{}
}

// Hooks are what a Writer does beside the calls; each may be nil but Fault.
type Hooks[X any] struct {
	// Begin queues what a transaction begins with; led: a call in it has Led.
	Begin func(b *pgx.Batch, led bool)
	// End queues what it ends with, on a lane that runs no other meanwhile.
	End func(b *pgx.Batch, lane int, x *X)
	// Committed is told of it.
	Committed func(calls int, x X)
	// Again reports whether a call by itself is to be run again.
	Again func(error) bool
	// Fault gives an error its kind.
	Fault func(error) error
}

// most is how many calls share one transaction at most.
const most = 64

// heaviest is how many bytes the calls of one transaction send, roughly; a call
// that sends more has a transaction of its own, so that none waits for it.
const heaviest = 1 << 20

// Writer runs calls in shared transactions (group commit) on a few lanes, each
// one transaction after another.
type Writer[X any] struct {
	server *Server
	hooks  Hooks[X]

	mu      sync.Mutex
	waiting []*Call[X]
	busy    map[string]struct{} // keys of the calls that run
	free    []int               // numbers of lanes that are idle
	closed  bool
	running sync.WaitGroup
}

// NewWriter returns a Writer with a number of lanes, whose numbers begin with
// first.
func NewWriter[X any](s *Server, first, count int, h Hooks[X]) *Writer[X] {
	l := &Writer[X]{server: s, hooks: h, busy: map[string]struct{}{}}
	for n := range count {
		l.free = append(l.free, first+n)
	}
	return l
}

// Write runs a call in a transaction soon and returns once that is committed. A
// call whose context ends before its turn is not run; once begun it is run to
// its end.
func (l *Writer[X]) Write(ctx context.Context, c *Call[X]) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	c.ctx, c.done = ctx, make(chan struct{})
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return fmt.Errorf("%s: %w", c.Name, errClosed())
	}
	l.waiting = append(l.waiting, c)
	l.startLocked()
	l.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		if l.withdraw(c) {
			return fmt.Errorf("%s: %w", c.Name, ctx.Err())
		}
		<-c.done
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", c.Name, c.err)
	}
	return nil
}

// withdraw takes back a call that has not begun.
func (l *Writer[X]) withdraw(c *Call[X]) bool {
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
func (l *Writer[X]) startLocked() {
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
func (l *Writer[X]) takeLocked() []*Call[X] {
	var batch []*Call[X]
	weight := 0
	rest := l.waiting[:0]
	for i, c := range l.waiting {
		if len(batch) == most || weight > heaviest {
			rest = append(rest, l.waiting[i:]...)
			break
		}
		if len(batch) > 0 && weight+c.Weight > heaviest || slices.ContainsFunc(c.Keys, func(k string) bool { _, in := l.busy[k]; return in }) {
			rest = append(rest, c)
			continue
		}
		for _, k := range c.Keys {
			l.busy[k] = struct{}{}
		}
		weight += c.Weight
		batch = append(batch, c)
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
	return batch
}

// run is a lane, until there is nothing more to do.
func (l *Writer[X]) run(lane int, batch []*Call[X]) {
	for len(batch) > 0 {
		l.commit(lane, batch)
		l.mu.Lock()
		for _, c := range batch {
			for _, k := range c.Keys {
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

// Close lets what is waiting be written; later calls are fleet.ErrUnavailable.
func (l *Writer[X]) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
}

// Attempts bounds how often a transaction is run.
const Attempts = 5

// commit runs a batch in one transaction and leaves each call its error. When
// the server refuses it, each call is run by itself, so that one that cannot
// be written keeps none of the others from it.
func (l *Writer[X]) commit(lane int, batch []*Call[X]) {
	live := slices.DeleteFunc(slices.Clone(batch), func(c *Call[X]) bool {
		c.err = c.ctx.Err()
		return c.err != nil
	})
	if len(live) == 0 {
		return
	}
	err := l.transact(lane, live)
	for range Attempts - 1 {
		again := Crossed(err) || len(live) == 1 && l.hooks.Again != nil && l.hooks.Again(err)
		if !again {
			break
		}
		err = l.transact(lane, live)
	}
	switch {
	case err == nil:
	case len(live) > 1 && Refused(err):
		for _, c := range live {
			l.commit(lane, []*Call[X]{c})
		}
	default:
		for _, c := range live {
			c.err = l.hooks.Fault(err)
		}
	}
}

// transact is one attempt. Its error is one that undid everything.
func (l *Writer[X]) transact(lane int, batch []*Call[X]) error {
	var x X
	err := l.server.Do(context.Background(), "write", func(ctx context.Context, p *pgxpool.Pool) error {
		x = *new(X)
		return OnConn(ctx, p, func(c *pgx.Conn) error { return l.exchange(ctx, c, lane, batch, &x) })
	})
	if err != nil {
		return err
	}
	for _, c := range batch {
		if c.err == nil && c.After != nil {
			c.err = c.After()
		}
	}
	if l.hooks.Committed != nil {
		l.hooks.Committed(len(batch), x)
	}
	return nil
}

// OnConn runs f with a connection, which is thrown away when f leaves a
// transaction open on it.
func OnConn(ctx context.Context, p *pgxpool.Pool, f func(*pgx.Conn) error) error {
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
func (l *Writer[X]) exchange(ctx context.Context, c *pgx.Conn, lane int, batch []*Call[X], x *X) error {
	b := &pgx.Batch{}
	reads := l.begin(b, batch)
	if reads {
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		b = &pgx.Batch{}
	}
	for _, w := range batch {
		w.err = nil
		if w.Decide != nil {
			if w.err = w.Decide(x); w.err != nil {
				continue
			}
		}
		if w.Write != nil {
			w.Write(b)
		}
	}
	if l.hooks.End != nil {
		l.hooks.End(b, lane, x)
	}
	b.Queue("COMMIT")
	return c.SendBatch(ctx, b).Close()
}

// begin queues what a transaction begins with.
func (l *Writer[X]) begin(b *pgx.Batch, batch []*Call[X]) (reads bool) {
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	if !slices.ContainsFunc(batch, func(c *Call[X]) bool { return !c.Loose }) {
		b.Queue("SET LOCAL synchronous_commit = off")
	}
	if l.hooks.Begin != nil {
		l.hooks.Begin(b, slices.ContainsFunc(batch, func(c *Call[X]) bool { return c.Led }))
	}
	for _, c := range batch {
		if c.Read != nil {
			c.Read(b)
			reads = true
		}
	}
	return reads
}

func errClosed() error { return fmt.Errorf("it was closed: %w", fleet.ErrUnavailable) }
