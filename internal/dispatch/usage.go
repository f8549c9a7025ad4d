package dispatch

import (
	"context"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// sampleEvery is how often the usage of every running task is read, so that
// memory can be added up over time.
const sampleEvery = 10 * time.Second

// held adds up memory byte-seconds by the trapezoidal rule over whatever readings
// there are; the kernel keeps no such counter.
type held struct {
	at          time.Time
	bytes       int64
	byteSeconds float64
}

// add takes a reading and returns the sum since the claim.
func (m *held) add(since time.Time, u fleet.Usage) int64 {
	if m.at.IsZero() {
		m.at, m.bytes = since, u.MemoryBytes
	}
	if dt := u.At.Sub(m.at).Seconds(); dt > 0 {
		m.byteSeconds += dt * float64(m.bytes+u.MemoryBytes) / 2
		m.at, m.bytes = u.At, u.MemoryBytes
	}
	return int64(m.byteSeconds)
}

// usage reads the counters of the run's sandbox.
func (r *run) usage(ctx context.Context) (fleet.Usage, error) {
	u, err := r.d.Sandboxes.Usage(ctx, r.box)
	if err != nil {
		return u, err
	}
	if u.At.IsZero() {
		u.At = r.d.Clock()
	}
	r.mu.Lock()
	u.MemoryByteSeconds = r.memory.add(r.task.ClaimedAt, u)
	r.mu.Unlock()
	return u, nil
}

// endDear ends the tasks that have cost as much as they may.
func (d *Dispatcher) endDear(ctx context.Context) error {
	if d.Costs == nil {
		return nil
	}
	bounded, most := map[fleet.TaskID]*run{}, map[fleet.TaskID]int64{}
	for _, r := range d.all() {
		if t := r.current(); t.Spec.MaxMicroUSD > 0 {
			bounded[t.ID], most[t.ID] = r, t.Spec.MaxMicroUSD
		}
	}
	if len(bounded) == 0 {
		return nil
	}
	costs, err := d.Costs(ctx, slices.Collect(maps.Keys(bounded)))
	if err != nil {
		return err
	}
	for _, c := range costs {
		if r := bounded[c.Task]; r != nil && c.MicroUSD >= most[c.Task] {
			r.requestStop(fleet.ReasonBudget)
		}
	}
	return nil
}

// sample reads every running task once in a while until ctx ends.
func (d *Dispatcher) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range d.all() {
			_, _ = r.usage(ctx) // a sandbox that just ended has none
		}
		if err := d.endDear(ctx); err != nil && ctx.Err() == nil {
			d.Logger.Warn("cannot read what tasks have cost; those with a bound go on", "error", err)
		}
	}
}
