package plan

import (
	"cmp"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// State is what the planner remembers between decisions; plain JSON.
type State struct {
	At    time.Time   `json:"at"`
	Pools []PoolState `json:"pools"` // sorted by key
	Nodes NodeState   `json:"nodes"`
}

// NodeState is the memory of the node layer.
type NodeState struct {
	// LogPrice is the logarithm of what one late start is worth, in
	// node-seconds; Begun and Late are the counters it was settled at.
	Priced   bool    `json:"priced,omitempty"`
	LogPrice float64 `json:"logPrice,omitempty"`
	Begun    int64   `json:"begun,omitempty"`
	Late     int64   `json:"late,omitempty"`
	Breaker  Breaker `json:"breaker,omitzero"`
}

// PoolState is the memory of one pool.
type PoolState struct {
	Key      fleet.PoolKey     `json:"key"`
	Arrivals forecast.Arrivals `json:"arrivals"`
	Breaker  Breaker           `json:"breaker"`
	// Warm is the target held, WarmUntil until when it may not fall.
	Warm      int       `json:"warm"`
	WarmUntil time.Time `json:"warmUntil,omitzero"`
	// SurplusSince is since when there has been more than wanted.
	SurplusSince time.Time `json:"surplusSince,omitzero"`
	// Last is the last good reading of demand, Finished the count of finished
	// tasks then.
	Last     Demand `json:"last"`
	LastGood bool   `json:"lastGood"`
	Finished int64  `json:"finished"`
}

// Breaker holds starts of one pool back while they fail.
type Breaker struct {
	Failures int       `json:"failures"` // in a row
	Opened   int       `json:"opened"`   // times it opened without a success since
	RetryAt  time.Time `json:"retryAt,omitzero"`
	// Started and Failed are the counters at the last decision.
	Started int64 `json:"started"`
	Failed  int64 `json:"failed"`
	// Revision is what the failures belong to: a changed template starts anew.
	Revision string `json:"revision,omitempty"`
}

func (b *Breaker) open() bool { return b.Opened > 0 }

// update takes the counters of a pool in. The first look only sets a
// baseline; counters that fell belong to a new process.
func (b *Breaker) update(now time.Time, revision string, starts, failures int64, p *BreakerPolicy) {
	if b.Revision != revision {
		*b = Breaker{Revision: revision, Started: starts, Failed: failures}
		return
	}
	started, failed := starts-b.Started, failures-b.Failed
	if started < 0 || failed < 0 {
		started, failed = starts, failures
	}
	b.Started, b.Failed = starts, failures
	switch {
	case started > 0:
		b.Failures, b.Opened, b.RetryAt = 0, 0, time.Time{}
	case failed > 0:
		b.Failures += int(failed)
		if b.Failures >= p.Threshold || b.open() {
			b.Opened = min(b.Opened+1, 30)
			wait := p.Max
			if shift := b.Opened - 1; shift < 20 {
				wait = min(p.Max, p.Backoff<<shift)
			}
			b.RetryAt = now.Add(wait)
		}
	case b.open() && b.RetryAt.Sub(now) > p.Max:
		b.RetryAt = now.Add(p.Max) // the clock went back
	}
}

// permits is how many starts may be under way at once; -1 is any number.
func (b *Breaker) permits(now time.Time, p *BreakerPolicy) int {
	switch {
	case b.open() && now.Before(b.RetryAt):
		return 0
	case b.open():
		return 1 // the probe
	case b.Failures > 0:
		return max(1, p.Threshold-b.Failures)
	}
	return -1
}

// view is the breaker as people see it.
func (b *Breaker) view(o *Pool) fleet.Breaker {
	v := fleet.Breaker{Open: b.open(), Failures: b.Failures, RetryAt: b.RetryAt}
	if b.Failures > 0 {
		v.Reason = o.Failure
	}
	return v
}

// carry makes the state of the pools observed, in the memory of next, from the earlier state; the
// earlier one is not touched. Pools that are no longer observed are forgotten.
func carry(next, old []PoolState, pools []Pool) []PoolState {
	if cap(next) < len(pools) {
		next = make([]PoolState, len(pools))
	}
	next = next[:len(pools)]
	i := 0
	for k := range pools {
		for i < len(old) && old[i].Key < pools[k].Key {
			i++
		}
		if i < len(old) && old[i].Key == pools[k].Key {
			next[k] = old[i]
		} else {
			next[k] = PoolState{Key: pools[k].Key}
		}
	}
	return next
}

// demandOf adds up what the queues say of a pool; cursors keeps a place in
// each queue's sorted list, so that all pools together cost one pass.
func demandOf(key fleet.PoolKey, queues []Queue, cursors []int) (d Demand, found bool) {
	d.Pool = key
	for q := range queues {
		list := queues[q].Pools
		for cursors[q] < len(list) && list[cursors[q]].Pool < key {
			cursors[q]++
		}
		if cursors[q] == len(list) || list[cursors[q]].Pool != key {
			continue
		}
		e := &list[cursors[q]]
		if !found || e.Priority > d.Priority {
			d.Priority = e.Priority
		}
		found = true
		d.Backlog += e.Backlog
		d.Held += e.Held
		d.Delayed += e.Delayed
		d.InFlight += e.InFlight
		d.Arrived += e.Arrived
		if d.Oldest.IsZero() || !e.Oldest.IsZero() && e.Oldest.Before(d.Oldest) {
			d.Oldest = e.Oldest
		}
	}
	return d, found
}

// staleSignal says why the queues cannot be trusted; empty when they can.
func staleSignal(now time.Time, queues []Queue, after time.Duration) string {
	if len(queues) == 0 {
		return "no queue was read"
	}
	for i := range queues {
		if q := &queues[i]; q.Error != "" {
			return q.Name + ": " + q.Error
		} else if age := now.Sub(q.AsOf); age > after {
			return q.Name + ": the last reading is " + short(age) + " old"
		}
	}
	return ""
}

// Sort brings an observation into the order Decide needs; for callers.
func (o *Observation) Sort() {
	slices.SortFunc(o.Pools, func(a, b Pool) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(o.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	for i := range o.Queues {
		slices.SortFunc(o.Queues[i].Pools, func(a, b Demand) int { return cmp.Compare(a.Pool, b.Pool) })
	}
}
