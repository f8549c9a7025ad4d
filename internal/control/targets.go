package control

import "muster.dev/muster/internal/fleet"

// Targets is what the last decision wants, for those who carry it out
// elsewhere.
func (e *Engine) Targets() fleet.Targets {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.last
	t := fleet.Targets{At: s.at, Nodes: s.p.Nodes.Desired, Signals: s.p.Signal, Workers: -1}
	for i := range s.p.Pools {
		p := &s.p.Pools[i]
		d := demandIn(&s.stats, p.Pool)
		t.Pools = append(t.Pools, fleet.PoolTargets{Pool: p.Pool, Desired: p.Desired, InFlight: d.InFlight, Backlog: d.Backlog})
	}
	if e.c.Workers != nil {
		if n, known := e.c.Workers(); known {
			t.Workers = n
		}
	}
	return t
}
