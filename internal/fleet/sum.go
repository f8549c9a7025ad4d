package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// SumReadings adds up readings of several queues. One that failed is left out; when
// all did, that is an error. AsOf is the oldest of the readings.
func SumReadings(readings []QueueReading) (QueueStats, error) {
	var out QueueStats
	var errs []error
	pools := map[PoolKey]*PoolDemand{}
	for i := range readings {
		r := &readings[i]
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, r.Err))
			continue
		}
		s := &r.Stats
		if out.AsOf.IsZero() || s.AsOf.Before(out.AsOf) {
			out.AsOf = s.AsOf
		}
		out.Backlog += s.Backlog
		out.Delayed += s.Delayed
		out.InFlight += s.InFlight
		out.Arrived += s.Arrived
		out.Dead += s.Dead
		out.Oldest = older(out.Oldest, s.Oldest)
		for _, d := range s.Pools {
			p := pools[d.Pool]
			if p == nil {
				pools[d.Pool] = &d
				continue
			}
			if p.Backlog-p.Held <= 0 || d.Backlog-d.Held > 0 && d.Priority > p.Priority {
				p.Priority = d.Priority
			}
			p.Backlog += d.Backlog
			p.Delayed += d.Delayed
			p.InFlight += d.InFlight
			p.Arrived += d.Arrived
			p.Held += d.Held
			p.Oldest = older(p.Oldest, d.Oldest)
		}
	}
	if len(errs) == len(readings) && len(errs) > 0 {
		return QueueStats{}, errors.Join(errs...)
	}
	for _, p := range pools {
		out.Pools = append(out.Pools, *p)
	}
	slices.SortFunc(out.Pools, func(a, b PoolDemand) int { return cmp.Compare(a.Pool, b.Pool) })
	return out, nil
}

// older is the earlier of two times; zero is none.
func older(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
