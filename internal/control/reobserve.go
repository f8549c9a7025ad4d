package control

import (
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// Complete returns the specification as the engine works with it.
func (s Spec) Complete() Spec { return s.normal() }

// Reobserve returns an observation as an engine with this specification, a
// complete one, would have made it of the same world: with the floors of its
// calendar, a pool for each of its templates, sandboxes of their size. What had
// happened by then (sandboxes, tasks, nodes, lead times) stays as it was.
func (s *Spec) Reobserve(at time.Time, o plan.Observation) plan.Observation {
	seen := map[fleet.PoolKey]bool{}
	pools := make([]plan.Pool, 0, len(o.Pools)+len(s.Templates))
	for _, p := range o.Pools {
		name, variant := templateOf(p.Key)
		t, known := s.template(name)
		if p.Unknown = !known; known && !variant {
			p.Size = sizeOf(t.Resources)
		}
		if p.Lead.Samples == 0 {
			p.Lead = s.Policy.PriorLead
		}
		seen[p.Key] = true
		pools = append(pools, p)
	}
	for _, t := range s.Templates {
		if key := fleet.PoolKey(t.Name); !seen[key] {
			pools = append(pools, plan.Pool{
				Key: key, Template: t.Name, Revision: t.Revision, Size: sizeOf(t.Resources), Lead: s.Policy.PriorLead,
			})
		}
	}
	o.Pools, o.Floors = pools, floorsAt(at, s)
	o.Sort()
	asJournaled(&o)
	return o
}
