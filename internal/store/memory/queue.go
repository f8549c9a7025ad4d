package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Queue is the queue of the store's tasks.
func (s *Store) Queue() fleet.Queue { return queue{s} }

type queue struct{ s *Store }

// longest bounds a sleep, so that a wall clock set forward is noticed.
const longest = time.Minute

// notify wakes the consumer when something is there for it, and arms the
// timer for the next moment at which something will be.
func (s *Store) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.arm()
}

// arm sets the timer to the next due task or end of a lease.
func (s *Store) arm() {
	now := s.now()
	var next time.Time
	for _, e := range s.tasks {
		at := e.task.DueAt
		if e.leased {
			at = e.until
		}
		if e.task.State != fleet.TaskQueued || !e.leased && !at.After(now) {
			continue
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if next.IsZero() || s.closed {
		return
	}
	s.timer = time.AfterFunc(min(max(0, next.Sub(now)), longest), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		s.reap()
		s.notify()
	})
}

// reap returns tasks to the queue whose lease ended before they had claimed a
// sandbox.
func (s *Store) reap() {
	now := s.now()
	for _, e := range s.tasks {
		if e.task.State == fleet.TaskQueued && e.leased && !e.until.After(now) {
			e.task = lifecycle.Nacked(e.task, e.task.DueAt, "lease ended before a sandbox was claimed")
			e.leased = false
		}
	}
}

// waiting counts tasks in the queue that nobody has leased.
func (s *Store) waiting() int {
	n := 0
	for _, e := range s.tasks {
		if e.task.State == fleet.TaskQueued && !e.leased {
			n++
		}
	}
	return n
}

func (q queue) Wake() <-chan struct{} { return q.s.wake }

// Stats implements fleet.Queue.
func (q queue) Stats(ctx context.Context) (fleet.QueueStats, error) {
	s := q.s
	if err := s.begin(ctx, "Stats"); err != nil {
		return fleet.QueueStats{}, err
	}
	defer s.mu.Unlock()
	s.reap()
	st := fleet.QueueStats{AsOf: s.now()}
	pools := map[fleet.PoolKey]*fleet.PoolDemand{}
	for p, n := range s.arrived {
		pools[p] = &fleet.PoolDemand{Pool: p, Arrived: n}
		st.Arrived += n
	}
	for _, e := range s.tasks {
		p := pools[e.task.Spec.Pool]
		switch {
		case e.task.State.Final():
			if lifecycle.Dead(e.task) {
				st.Dead++
			}
		case e.leased:
			p.InFlight++
			st.InFlight++
		case e.task.DueAt.After(st.AsOf):
			p.Delayed++
			st.Delayed++
		default:
			p.Backlog++
			st.Backlog++
			p.Oldest = earliest(p.Oldest, e.task.DueAt)
			st.Oldest = earliest(st.Oldest, e.task.DueAt)
		}
	}
	s.rank(pools, st.AsOf)
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		st.Pools = append(st.Pools, *pools[name])
	}
	return st, nil
}

// rank counts what the tenants' caps hold back, and the highest priority of the
// rest, the highest first.
func (s *Store) rank(pools map[fleet.PoolKey]*fleet.PoolDemand, now time.Time) {
	running := map[fleet.TenantID]int{}
	var due []fleet.TaskSpec
	for _, e := range s.tasks {
		switch t := e.task; {
		case t.State.Final():
		case e.leased:
			running[t.Spec.Tenant]++
		case !t.DueAt.After(now):
			due = append(due, t.Spec)
		}
	}
	slices.SortFunc(due, func(a, b fleet.TaskSpec) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(b.Priority, a.Priority))
	})
	seen := map[fleet.PoolKey]bool{}
	for _, t := range due {
		p := pools[t.Pool]
		if left, bounded := s.opt.Tenants[t.Tenant].Left(running[t.Tenant]); bounded && left == 0 {
			p.Held++
			continue
		}
		running[t.Tenant]++
		if !seen[t.Pool] {
			p.Priority, seen[t.Pool] = t.Priority, true
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Lease implements fleet.Queue.
func (q queue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	s := q.s
	if err := s.begin(ctx, "Lease"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if r.Visibility <= 0 {
		return nil, fmt.Errorf("lease: visibility %s: want more than 0: %w", r.Visibility, fleet.ErrInvalid)
	}
	s.reap()
	now, slots, out := s.now(), maps.Clone(r.Slots), []fleet.Delivery{}
	for {
		e := s.first(now, slots)
		if e == nil {
			break
		}
		slots[e.task.Spec.Pool]--
		e.task = lifecycle.Leased(e.task, now)
		e.leased, e.until = true, now.Add(r.Visibility)
		if r.Claim != nil {
			if c, ok := r.Claim(lifecycle.CloneTask(e.task)); ok {
				_, _ = s.claim(e, c) // else it is leased only
			}
		}
		out = append(out, fleet.Delivery{
			Lease: fleet.Lease{Task: e.task.ID, Attempt: e.task.Attempt, Fence: e.task.Fence, Until: e.until},
			Task:  lifecycle.CloneTask(e.task),
		})
	}
	if len(out) > 0 {
		s.arm()
	}
	return out, nil
}

// first is the task to lease next: the highest priority, then the tenant with
// the least in flight for its weight, then the earliest due, then the earliest
// submitted.
func (s *Store) first(now time.Time, slots map[fleet.PoolKey]int) *entry {
	running := map[fleet.TenantID]int{}
	for _, e := range s.tasks {
		if e.leased {
			running[e.task.Spec.Tenant]++
		}
	}
	load := func(t fleet.TenantID) float64 {
		w := s.opt.Tenants[t].Weight
		if w <= 0 {
			w = 1
		}
		return float64(running[t]) / w
	}
	var best *entry
	for _, e := range s.tasks {
		t := e.task
		left, bounded := s.opt.Tenants[t.Spec.Tenant].Left(running[t.Spec.Tenant])
		if t.State != fleet.TaskQueued || e.leased || t.DueAt.After(now) || slots[t.Spec.Pool] <= 0 ||
			bounded && left == 0 {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(best.task.Spec.Priority, t.Spec.Priority),
			cmp.Compare(load(t.Spec.Tenant), load(best.task.Spec.Tenant)),
			t.DueAt.Compare(best.task.DueAt),
			cmp.Compare(e.order, best.order)) < 0 {
			best = e
		}
	}
	return best
}

// Extend implements fleet.Queue.
func (q queue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	s := q.s
	if err := s.begin(ctx, "Extend"); err != nil {
		return l, err
	}
	defer s.mu.Unlock()
	if d <= 0 {
		return l, fmt.Errorf("extend by %s: want more than 0: %w", d, fleet.ErrInvalid)
	}
	e, err := s.held(l.Task, l.Fence)
	if err != nil {
		return l, fmt.Errorf("extend: %w", err)
	}
	e.until = s.now().Add(d)
	l.Until = e.until
	s.arm()
	return l, nil
}

// Ack implements fleet.Queue.
func (q queue) Ack(ctx context.Context, l fleet.Lease) error {
	s := q.s
	if err := s.begin(ctx, "Ack"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if e := s.tasks[l.Task]; e != nil && e.task.State.Final() && e.task.Fence == l.Fence {
		return nil
	}
	if _, err := s.held(l.Task, l.Fence); err != nil {
		return fmt.Errorf("ack: %w", err)
	}
	return fmt.Errorf("ack: task %s is %w: %w", l.Task, errSettleFirst, fleet.ErrInvalid)
}

// Nack implements fleet.Queue.
func (q queue) Nack(ctx context.Context, l fleet.Lease, delay time.Duration, why string) error {
	s := q.s
	if err := s.begin(ctx, "Nack"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	e, err := s.held(l.Task, l.Fence)
	if err != nil {
		return fmt.Errorf("nack: %w", err)
	}
	due := s.now().Add(max(0, delay))
	if e.task.State.Active() {
		e.deadline = lifecycle.ExpiresAt(s.write(e, lifecycle.Retried(e.task, due, why, s.now())))
		return nil
	}
	s.write(e, lifecycle.Nacked(e.task, due, why))
	return nil
}

// DeadLetter implements fleet.Queue.
func (q queue) DeadLetter(ctx context.Context, l fleet.Lease, why string) error {
	s := q.s
	if err := s.begin(ctx, "DeadLetter"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	e, err := s.held(l.Task, l.Fence)
	if err != nil {
		return fmt.Errorf("dead-letter: %w", err)
	}
	s.write(e, lifecycle.Poisoned(e.task, why, s.now()))
	return nil
}
