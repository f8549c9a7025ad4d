package postgres

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// row is the tasks that differ in due time only, as counted.
type row struct {
	pool     fleet.PoolKey
	tenant   fleet.TenantID
	priority int

	due, delayed, held, dead, arrived int64
	oldest                            time.Time // of those due
	want                              int       // how many of the first were asked for
	front                             []spot    // the first of those due
}

// spot is one waiting task.
type spot struct {
	id       fleet.TaskID
	due, seq int64
}

// running counts what each tenant has leased or running.
func running(rows []row) map[fleet.TenantID]int {
	out := map[fleet.TenantID]int{}
	for _, r := range rows {
		out[r.tenant] += int(r.held)
	}
	return out
}

// choose picks what is leased next, at most n tasks, each time the highest
// priority, then the tenant with the least in flight for its weight, then the
// earliest due, then the earliest submitted. It stops where the front of a row
// ends before the row does: what follows is seen by the next lease only.
func choose(rows []row, shares map[fleet.TenantID]fleet.Share, slots map[fleet.PoolKey]int, n int) []fleet.TaskID {
	busy, left := running(rows), maps.Clone(slots)
	at := make([]int, len(rows))
	var out []fleet.TaskID
	for len(out) < n {
		best := -1
		for i := range rows {
			r := &rows[i]
			share := shares[r.tenant]
			if free, bounded := share.Left(busy[r.tenant]); left[r.pool] <= 0 || bounded && free == 0 {
				continue
			}
			if at[i] == len(r.front) {
				if len(r.front) > 0 && len(r.front) == r.want {
					return out // there may be more
				}
				continue
			}
			if best < 0 || before(r, &rows[best], at[i], at[best], func(t fleet.TenantID) float64 { return load(shares[t], busy[t]) }) {
				best = i
			}
		}
		if best < 0 {
			return out
		}
		r := &rows[best]
		out = append(out, r.front[at[best]].id)
		at[best]++
		busy[r.tenant]++
		left[r.pool]--
	}
	return out
}

// load is what a tenant has in flight for its weight.
func load(s fleet.Share, busy int) float64 {
	if s.Weight <= 0 {
		return float64(busy)
	}
	return float64(busy) / s.Weight
}

func before(a, b *row, i, j int, load func(fleet.TenantID) float64) bool {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority),
		cmp.Compare(load(a.tenant), load(b.tenant)),
		cmp.Compare(a.front[i].due, b.front[j].due),
		cmp.Compare(a.front[i].seq, b.front[j].seq)) < 0
}

// stats adds the rows up.
func stats(rows []row, shares map[fleet.TenantID]fleet.Share, now time.Time) fleet.QueueStats {
	st := fleet.QueueStats{AsOf: now}
	busy := running(rows)
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(b.priority, a.priority), cmp.Compare(a.tenant, b.tenant))
	})
	first := false
	for _, r := range rows {
		if n := len(st.Pools); n == 0 || st.Pools[n-1].Pool != r.pool {
			st.Pools, first = append(st.Pools, fleet.PoolDemand{Pool: r.pool}), true
		}
		p := &st.Pools[len(st.Pools)-1]
		p.Backlog, p.Delayed, p.InFlight, p.Arrived = p.Backlog+int(r.due), p.Delayed+int(r.delayed), p.InFlight+int(r.held), p.Arrived+r.arrived
		st.Backlog, st.Delayed, st.InFlight, st.Arrived = st.Backlog+int(r.due), st.Delayed+int(r.delayed), st.InFlight+int(r.held), st.Arrived+r.arrived
		st.Dead += int(r.dead)
		p.Oldest, st.Oldest = earliest(p.Oldest, r.oldest), earliest(st.Oldest, r.oldest)
		free := int(r.due)
		if left, bounded := shares[r.tenant].Left(busy[r.tenant]); bounded {
			free = min(free, left)
			busy[r.tenant] += free
		}
		p.Held += int(r.due) - free
		if free > 0 && first {
			p.Priority, first = r.priority, false
		}
	}
	return st
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
