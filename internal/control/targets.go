package control

import (
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// Targets is what the last decision wants, for those who carry it out
// elsewhere: what is desired, and no less than what the decision leaves in
// place. What is still kept, because demand may return or because the signals
// are not to be trusted, is thus not given up by whoever follows.
func (e *Engine) Targets() fleet.Targets {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.last
	t := fleet.Targets{At: s.at, Nodes: s.p.Nodes.Desired, Signals: s.p.Signal, Workers: -1}
	if t.Signals != "" {
		t.Nodes = max(t.Nodes, s.p.Nodes.Ready+s.p.Nodes.Booting)
	}
	left := leftInPlace(s)
	for i := range s.p.Pools {
		p := &s.p.Pools[i]
		d := demandIn(&s.stats, p.Pool)
		t.Pools = append(t.Pools, fleet.PoolTargets{Pool: p.Pool, Desired: max(p.Desired, left[p.Pool]), InFlight: d.InFlight, Backlog: d.Backlog})
	}
	if e.c.Workers != nil {
		if n, known := e.c.Workers(); known {
			t.Workers = n
		}
	}
	return t
}

// leftInPlace counts the sandboxes of each pool once a decision is applied.
func leftInPlace(s *snapshot) map[fleet.PoolKey]int {
	out := map[fleet.PoolKey]int{}
	for i := range s.o.Pools {
		p := &s.o.Pools[i]
		out[p.Key] = p.Ready + p.Starting + p.Running
	}
	for i := range s.p.Actions {
		switch a := &s.p.Actions[i]; a.Kind {
		case plan.StartSandboxes:
			out[a.Pool] += a.N
		case plan.UndrainSandbox:
			out[a.Pool]++
		case plan.DrainSandbox:
			out[a.Pool]--
		default:
		}
	}
	return out
}
