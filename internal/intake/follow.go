package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// FollowConfig is what a Follower works with.
type FollowConfig struct {
	Name   string
	Signal fleet.Signal
	Pool   fleet.PoolKey // that all of it is for
	// Workers, when set, counts the workers that there are, as its backlog: they
	// are somebody else's. Nil: not known.
	Workers fleet.Signal
	Logger  *slog.Logger     // default: discard
	Clock   func() time.Time // default: time.Now
}

// Follower implements fleet.Compound over a queue that others work off: it is
// read, and nothing is ever taken.
type Follower struct {
	FollowConfig
	traits  fleet.SignalTraits
	wake    chan struct{}
	read    chan struct{}
	mu      sync.Mutex
	guess   estimate
	raw     fleet.SignalStats
	reading fleet.QueueReading
	workers int64
	counted time.Time // as of; zero: not known
}

// NewFollower returns a Follower; Run keeps its reading fresh.
func NewFollower(c FollowConfig) (*Follower, error) {
	if c.Name == "" || c.Signal == nil || c.Pool == "" {
		return nil, errors.New("intake: name, signal and pool are needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	f := &Follower{FollowConfig: c, traits: c.Signal.Traits(), wake: make(chan struct{}, 1), read: make(chan struct{}, 1)}
	f.reading = fleet.QueueReading{Name: c.Name, Err: fmt.Errorf("not read yet: %w", fleet.ErrUnavailable)}
	return f, nil
}

// Run keeps the reading fresh until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-f.Signal.Wake(): // nil blocks for ever
				poke(f.read)
			}
		}
	})
	if f.Workers != nil {
		wg.Go(func() { f.count(ctx) })
	}
	readLoop(ctx, clocked{paceOf(f.traits), f.Clock}, f.read, f.Read)
	return nil
}

// Read reads now; it tells whether something waits or changed.
func (f *Follower) Read(ctx context.Context) bool {
	st, err := f.Signal.Stats(ctx)
	if ctx.Err() != nil {
		return false
	}
	f.mu.Lock()
	was := f.reading.Err
	changed := (err == nil) != (was == nil)
	if err != nil {
		f.reading.Err = err
	} else {
		st = f.guess.read(st, f.traits, 0)
		changed = changed || differ(st, f.raw)
		f.raw = st
		f.reading.Err = nil
		d := fleet.PoolDemand{
			Pool: f.Pool, Backlog: int(st.Backlog), Delayed: int(st.Delayed), InFlight: int(st.InFlight), Oldest: st.Oldest, Arrived: st.Arrived,
		}
		f.reading.Stats = fleet.QueueStats{
			AsOf: st.AsOf, Backlog: d.Backlog, Delayed: d.Delayed, InFlight: d.InFlight, Oldest: d.Oldest, Arrived: d.Arrived,
			Dead: int(st.Dead), Pools: []fleet.PoolDemand{d},
		}
	}
	f.mu.Unlock()
	tell(f.Logger, f.Name, was, err)
	if changed {
		poke(f.wake)
	}
	return changed || err == nil && st.Backlog > 0
}

// count reads how many workers there are.
func (f *Follower) count(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var was error
	for {
		st, err := f.Workers.Stats(ctx)
		if ctx.Err() != nil {
			return
		}
		tell(f.Logger, "workers of "+f.Name, was, err)
		if was = err; err == nil {
			f.mu.Lock()
			f.workers, f.counted = st.Backlog, f.Clock()
			f.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// WorkersNow is how many workers there are; false where that is not known, or
// not any more.
func (f *Follower) WorkersNow() (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.workers), !f.counted.IsZero() && f.Clock().Sub(f.counted) < 30*time.Second
}

// Readings implements fleet.Compound.
func (f *Follower) Readings(context.Context) []fleet.QueueReading {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []fleet.QueueReading{f.reading}
}

// Stats implements fleet.Queue.
func (f *Follower) Stats(ctx context.Context) (fleet.QueueStats, error) {
	return fleet.SumReadings(f.Readings(ctx))
}

// Wake implements fleet.Queue.
func (f *Follower) Wake() <-chan struct{} { return f.wake }

// Lease implements fleet.Queue: there is nothing that could be leased.
func (f *Follower) Lease(ctx context.Context, _ fleet.LeaseRequest) ([]fleet.Delivery, error) {
	return []fleet.Delivery{}, ctx.Err()
}

// errFollowed says why nothing can be done to a message.
func (f *Follower) errFollowed() error {
	return fmt.Errorf("queue %s is only read: %w", f.Name, fleet.ErrFenced)
}

// Extend implements fleet.Queue.
func (f *Follower) Extend(context.Context, fleet.Lease, time.Duration) (fleet.Lease, error) {
	return fleet.Lease{}, f.errFollowed()
}

// Ack implements fleet.Queue.
func (f *Follower) Ack(context.Context, fleet.Lease) error { return f.errFollowed() }

// Nack implements fleet.Queue.
func (f *Follower) Nack(context.Context, fleet.Lease, time.Duration, string) error {
	return f.errFollowed()
}

// DeadLetter implements fleet.Queue.
func (f *Follower) DeadLetter(context.Context, fleet.Lease, string) error { return f.errFollowed() }
