package plan

import (
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Recorded is a journaled decision, read.
type Recorded struct {
	Observation Observation
	State       State // before the decision
	Plan        Plan
}

// Read reads a journaled decision.
func Read(r *fleet.DecisionRecord) (Recorded, error) {
	var x Recorded
	for _, part := range []struct {
		name string
		from []byte
		to   any
	}{{"observation", r.Observation, &x.Observation}, {"state", r.State, &x.State}, {"plan", r.Plan, &x.Plan}} {
		if err := json.Unmarshal(part.from, part.to); err != nil {
			return x, fmt.Errorf("decision %d: its %s cannot be read: %w", r.Seq, part.name, err)
		}
	}
	return x, nil
}

// Redecide makes a journaled decision again, under this policy, and returns
// the plan as it would be journaled.
func Redecide(r *fleet.DecisionRecord, p *Policy) ([]byte, error) {
	x, err := Read(r)
	if err != nil {
		return nil, err
	}
	got, _ := Decide(r.At, x.Observation, *p, x.State)
	b, err := json.Marshal(got)
	if err != nil {
		return nil, fmt.Errorf("decision %d: encode the plan: %w", r.Seq, err)
	}
	return b, nil
}

// Remembering returns the state with what a policy remembers of its own
// decisions (stock held up, surplus tolerated) taken from own, in place of what
// the policy in force remembered of its; what was measured of the world stays.
func (s State) Remembering(own State) State {
	pools := make([]PoolState, len(s.Pools))
	mine := make(map[fleet.PoolKey]*PoolState, len(own.Pools))
	for i := range own.Pools {
		mine[own.Pools[i].Key] = &own.Pools[i]
	}
	for i, p := range s.Pools {
		p.Warm, p.WarmUntil, p.SurplusSince = 0, time.Time{}, time.Time{}
		if o := mine[p.Key]; o != nil {
			p.Warm, p.WarmUntil, p.SurplusSince = o.Warm, o.WarmUntil, o.SurplusSince
		}
		pools[i] = p
	}
	s.Pools, s.Nodes = pools, own.Nodes
	return s
}
