package consumer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// counts measure this consumer for its heartbeat.
type counts struct {
	mu     sync.Mutex
	begun  int64
	claims [512]claim // the newest, a ring
	next   int
}

type claim struct {
	at  time.Time
	lag time.Duration
}

func (c *counts) read() (begun int64, p99 time.Duration) {
	const recent = 5 * time.Minute
	c.mu.Lock()
	defer c.mu.Unlock()
	var lags []time.Duration
	newest := time.Time{}
	for i := range c.claims {
		if c.claims[i].at.After(newest) {
			newest = c.claims[i].at
		}
	}
	for i := range c.claims {
		if m := &c.claims[i]; !m.at.IsZero() && newest.Sub(m.at) < recent {
			lags = append(lags, m.lag)
		}
	}
	if len(lags) == 0 {
		return c.begun, 0
	}
	slices.Sort(lags)
	return c.begun, lags[(len(lags)*99-1)/100]
}

// observer counts, and tells the leader by the journal.
type observer struct{ o *Consumer }

// Started implements dispatch.Observer.
func (b observer) Started(pool fleet.PoolKey, launch fleet.Launch, wait time.Duration) {
	o := b.o
	o.counts.mu.Lock()
	o.counts.begun++
	o.counts.mu.Unlock()
	if o.c.Observe != nil {
		o.c.Observe.Started(pool, launch, wait)
	}
	_, _ = o.events.AppendEvents(context.Background(), []fleet.Event{{
		At: o.c.Clock(), Kind: "task_started", Layer: "tasks", Pool: pool,
		Reason:  fmt.Sprintf("first instruction %s after it was due, %s start, on %s", wait.Round(time.Millisecond), launch, o.c.Name),
		Numbers: map[string]float64{"waitSeconds": wait.Seconds()},
	}}) // never fails
}

// Settled implements dispatch.Observer.
func (b observer) Settled(t fleet.Task) {
	o := b.o
	if t.Phases.Claim > 0 {
		o.counts.mu.Lock()
		o.counts.claims[o.counts.next] = claim{at: o.c.Clock(), lag: t.Phases.Claim}
		o.counts.next = (o.counts.next + 1) % len(o.counts.claims)
		o.counts.mu.Unlock()
	}
	if o.c.Observe != nil {
		o.c.Observe.Settled(t)
	}
}
