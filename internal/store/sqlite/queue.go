package sqlite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Queue is the queue of the tasks in this database.
func (db *DB) Queue() fleet.Queue { return queue{db} }

type queue struct{ *DB }

// longest bounds a sleep, so that a clock set forward is noticed.
const longest = time.Minute

// notify wakes the consumer and arms the timer for the next moment at which
// the line changes by itself.
func (db *DB) notify() {
	poke(db.wake)
	db.arm()
}

func (db *DB) arm() {
	db.mu.Lock()
	defer db.mu.Unlock()
	now := db.now()
	db.line.advance(now)
	if db.timer != nil {
		db.timer.Stop()
		db.timer = nil
	}
	next := db.line.change()
	select {
	case <-db.stopped:
		return
	default:
	}
	if next.IsZero() {
		return
	}
	// What cannot be written now (a full disk) is tried again, but not at once.
	wait := max(next.Sub(now), time.Millisecond)
	if !next.After(now) {
		wait = time.Second / 4
	}
	db.timer = time.AfterFunc(min(wait, longest), func() {
		// A failure is retried by the timer that notify arms.
		_ = db.reap(context.Background())
		db.notify()
	})
}

// reap returns tasks to the line whose lease ended before they had claimed a
// sandbox.
func (db *DB) reap(ctx context.Context) error {
	db.mu.Lock()
	n := len(db.line.expired(db.now()))
	db.mu.Unlock()
	if n == 0 {
		return nil
	}
	return db.write(ctx, "end leases", prompt, db.reapIn)
}

func (db *DB) reapIn(t *tx) error {
	db.mu.Lock()
	late := db.line.expired(db.now())
	db.mu.Unlock()
	for _, h := range late {
		_, err := db.letGo(t, h, func(r *record) error {
			r.Task = lifecycle.Nacked(r.Task, r.DueAt, "lease ended before a sandbox was claimed")
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Wake implements fleet.Queue.
func (q queue) Wake() <-chan struct{} { return q.wake }

// Stats implements fleet.Queue.
func (q queue) Stats(ctx context.Context) (fleet.QueueStats, error) {
	err := ctx.Err()
	if err == nil {
		err = q.reap(ctx)
	}
	if err != nil {
		return fleet.QueueStats{}, fmt.Errorf("queue stats: %w", err)
	}
	q.mu.Lock()
	stale := q.stale
	q.mu.Unlock()
	if stale { // an empty write mends the line, or says why it cannot be
		if err := q.write(ctx, "queue stats", prompt, func(*tx) error { return nil }); err != nil {
			return fleet.QueueStats{}, err
		}
	}
	if err := q.open(); err != nil {
		return fleet.QueueStats{}, fmt.Errorf("queue stats: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.line.advance(now)
	return q.line.stats(now), nil
}

// open is an error once the database was closed.
func (db *DB) open() error {
	select {
	case <-db.stopped:
		return fmt.Errorf("database %s is closed: %w", db.path, fleet.ErrUnavailable)
	default:
		return nil
	}
}

// Lease implements fleet.Queue.
func (q queue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	if r.Visibility <= 0 {
		return nil, fmt.Errorf("lease: visibility %s: want more than 0: %w", r.Visibility, fleet.ErrInvalid)
	}
	err := ctx.Err()
	if err == nil {
		err = q.reap(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	q.mu.Lock()
	now := q.now()
	q.line.advance(now)
	idle := !q.stale && q.line.next(r.Slots) == nil
	q.mu.Unlock()
	if idle { // the common answer needs no transaction
		if err := q.open(); err != nil {
			return nil, fmt.Errorf("lease: %w", err)
		}
		return []fleet.Delivery{}, nil
	}
	var out []fleet.Delivery
	err = q.write(ctx, "lease", prompt, func(t *tx) error {
		var err error
		out, err = q.lease(t, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (q queue) lease(t *tx, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	slots, out, now := maps.Clone(r.Slots), []fleet.Delivery{}, q.now()
	for {
		q.mu.Lock()
		q.line.advance(now)
		row := q.line.next(slots)
		if row == nil {
			q.mu.Unlock()
			return out, nil
		}
		pool, s := row.pool, q.line.take(row)
		t.moved = true // from here on an error leaves the line wrong
		q.mu.Unlock()
		rec, err := t.task(s.seq)
		if err != nil {
			return nil, err
		}
		rec.Task = lifecycle.Leased(rec.Task, now)
		if err := rec.lease(t); err != nil {
			return nil, err
		}
		h := &hold{
			seq: rec.seq, id: rec.ID, tenant: rec.Spec.Tenant, pool: pool,
			attempt: rec.Attempt, fence: rec.Fence, state: rec.State, until: now.Add(r.Visibility), rec: &rec,
		}
		q.mu.Lock()
		q.line.keep(h)
		q.mu.Unlock()
		slots[pool.key]--
		task, err := q.claimLeased(t, h, r.Claim)
		if err != nil {
			return nil, err
		}
		t.armed = t.armed || task.State == fleet.TaskQueued
		out = append(out, fleet.Delivery{
			Lease: fleet.Lease{Task: h.id, Attempt: h.attempt, Fence: h.fence, Until: h.until},
			Task:  task,
		})
	}
}

// claimLeased claims the sandbox that the consumer names for a task just
// leased, if it names one that can be claimed.
func (db *DB) claimLeased(t *tx, h *hold, name func(fleet.Task) (fleet.Claim, bool)) (fleet.Task, error) {
	task := lifecycle.CloneTask(h.rec.Task)
	if name == nil {
		return task, nil
	}
	c, ok := name(task)
	if !ok {
		return task, nil
	}
	claimed, err := db.claim(t, h, c)
	if errors.Is(err, fleet.ErrConflict) || errors.Is(err, fleet.ErrNotFound) {
		return task, nil // it was looked at before anything was written
	}
	return claimed, err
}

// Extend implements fleet.Queue. It writes nothing: the end of a lease is kept
// in memory, since a lease does not outlive the process.
func (q queue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	err := ctx.Err()
	if err == nil {
		err = q.open()
	}
	if err == nil && d <= 0 {
		err = fmt.Errorf("by %s: want more than 0: %w", d, fleet.ErrInvalid)
	}
	if err != nil {
		return l, fmt.Errorf("extend: %w", err)
	}
	q.mu.Lock()
	h, now := q.line.holds[l.Task], q.now()
	if h != nil && h.fence == l.Fence && (h.state != fleet.TaskQueued || h.until.After(now)) {
		h.until = now.Add(d)
		l.Until = h.until
		q.mu.Unlock()
		return l, nil
	}
	q.mu.Unlock()
	t, err := q.Task(ctx, l.Task)
	if err != nil {
		return l, fmt.Errorf("extend: %w", err)
	}
	return l, fmt.Errorf("extend: task %s (%s, fence %d) with fence %d: %w", l.Task, t.State, t.Fence, l.Fence, fleet.ErrFenced)
}

// Ack implements fleet.Queue. Settle acknowledges too, so this only checks.
func (q queue) Ack(ctx context.Context, l fleet.Lease) error {
	t, err := q.Task(ctx, l.Task)
	switch {
	case err != nil:
		return fmt.Errorf("ack: %w", err)
	case t.Fence != l.Fence || t.State == fleet.TaskQueued && !q.holds(l):
		return fmt.Errorf("ack: task %s (%s, fence %d) with fence %d: %w", l.Task, t.State, t.Fence, l.Fence, fleet.ErrFenced)
	case !t.State.Final():
		return fmt.Errorf("ack: task %s is not settled: call Settle, which acknowledges too: %w", l.Task, fleet.ErrInvalid)
	}
	return nil
}

func (q queue) holds(l fleet.Lease) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.line.holds[l.Task]
	return h != nil && h.fence == l.Fence && h.until.After(q.now())
}

// Nack implements fleet.Queue.
func (q queue) Nack(ctx context.Context, l fleet.Lease, delay time.Duration, why string) error {
	_, err := q.finish(ctx, "nack", l.Task, l.Fence, func(r *record) error {
		due := q.now().Add(max(0, delay))
		if !r.State.Active() {
			r.Task = lifecycle.Nacked(r.Task, due, why)
			return nil
		}
		r.Task = lifecycle.Retried(r.Task, due, why, q.now())
		r.deadline = lifecycle.ExpiresAt(r.Task)
		return nil
	})
	return err
}

// DeadLetter implements fleet.Queue.
func (q queue) DeadLetter(ctx context.Context, l fleet.Lease, why string) error {
	_, err := q.finish(ctx, "dead-letter", l.Task, l.Fence, func(r *record) error {
		r.Task = lifecycle.Poisoned(r.Task, why, q.now())
		return nil
	})
	return err
}

var _ fleet.Queue = queue{}
