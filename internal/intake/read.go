package intake

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// pace is how long to wait between readings.
type pace struct {
	busy time.Duration // something waits, or moved within the last moments
	idle time.Duration
}

// paceOf: a reading that costs money is made a quarter as often; where the
// backend pushes, arrivals do not wait for a reading. Idle readings stay well
// under the age at which the planner stops trusting one (10 s).
func paceOf(t fleet.SignalTraits) pace {
	switch {
	case t.Fees:
		return pace{busy: time.Second, idle: 4 * time.Second}
	case t.Push:
		return pace{busy: 250 * time.Millisecond, idle: 2 * time.Second}
	}
	return pace{busy: 250 * time.Millisecond, idle: time.Second}
}

// gap is the least time between readings, however often something wakes us.
const gap = 25 * time.Millisecond

// lively is how long a queue counts as busy after it moved.
const lively = 5 * time.Second

// readLoop reads again and again, soon after read is poked. once tells whether
// something waits or changed.
func readLoop(ctx context.Context, c clocked, read <-chan struct{}, once func(context.Context) bool) {
	var moved, last time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-read:
			moved = c.clock()
			if wait := gap - moved.Sub(last); wait > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
			}
		case <-timer.C:
		}
		if once(ctx) {
			moved = c.clock()
		}
		last = c.clock()
		next := c.pace.idle
		if last.Sub(moved) < lively {
			next = c.pace.busy
		}
		timer.Reset(next)
	}
}

type clocked struct {
	pace  pace
	clock func() time.Time
}

// tell logs when a queue becomes unreadable or readable.
func tell(log *slog.Logger, name string, was, is error) {
	switch {
	case is != nil && was == nil:
		log.Warn("cannot read the queue; nothing is scaled in until it can be", "queue", name, "error", is)
	case is == nil && was != nil:
		log.Info("the queue can be read", "queue", name)
	}
}

// differ tells whether two readings differ in what matters to a decision.
func differ(a, b fleet.SignalStats) bool {
	return a.Backlog != b.Backlog || a.Delayed != b.Delayed || a.Dead != b.Dead || a.InFlight != b.InFlight
}

// readOnce reads the signals; it tells whether something waits or changed.
func (q *Queue) readOnce(ctx context.Context) bool {
	q.io.Lock() // a reading of before messages were taken must not come after it
	defer q.io.Unlock()
	st, err := q.Source.Stats(ctx)
	if ctx.Err() != nil {
		return false
	}
	q.mu.Lock()
	was := q.reading.Err
	changed := (err == nil) != (was == nil)
	if err != nil {
		q.reading.Err = err
	} else {
		gone := q.received
		if q.traits.InFlight {
			gone = q.settled
		}
		st = q.guess.read(st, q.traits, gone)
		changed = changed || differ(st, q.raw)
		q.raw = st
		q.reading.Stats, q.reading.Err = q.stats(st), nil
	}
	waiting := err == nil && st.Backlog > 0
	// What does not push is asked for messages, too: its counts may lag behind.
	wanted := (waiting || err == nil && !q.traits.Push) && q.wanting() > 0
	q.mu.Unlock()
	tell(q.Logger, q.Name, was, err)
	if changed {
		poke(q.wake)
	}
	if wanted {
		poke(q.fetch)
	}
	return changed || waiting
}

// stats is the reading as the planner wants it: what waits outside, by pool.
// What we took is in the embedded queue, and what other consumers hold is not
// ours to provide for. The lock must be held.
func (q *Queue) stats(st fleet.SignalStats) fleet.QueueStats {
	out := fleet.QueueStats{
		AsOf: st.AsOf, Backlog: int(st.Backlog), Delayed: int(st.Delayed), Dead: int(st.Dead), Oldest: st.Oldest,
	}
	backlog, delayed := q.mix.split(st.Backlog), q.mix.split(st.Delayed)
	for k := range delayed {
		if _, ok := backlog[k]; !ok {
			backlog[k] = 0
		}
	}
	for k := range q.arrived {
		if _, ok := backlog[k]; !ok {
			backlog[k] = 0
		}
	}
	for k, n := range backlog {
		d := fleet.PoolDemand{Pool: k, Backlog: int(n), Delayed: int(delayed[k])}
		if n > 0 {
			d.Oldest = st.Oldest
		}
		// A message counts as arrived here while it waits outside; once taken it
		// counts as arrived in the embedded queue, which has its own count. Both
		// together grow by one for each arrival. What others took is not counted.
		q.arrived[k] = max(q.arrived[k], q.tookBy[k]+n) // it never falls
		d.Arrived = q.arrived[k] - q.tookBy[k]
		out.Arrived += d.Arrived
		out.Pools = append(out.Pools, d)
	}
	slices.SortFunc(out.Pools, func(a, b fleet.PoolDemand) int { return cmp.Compare(a.Pool, b.Pool) })
	return out
}
