package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

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
	mine := make(map[fleet.PoolKey]PoolState, len(own.Pools))
	for _, p := range own.Pools {
		mine[p.Key] = p
	}
	pools := make([]PoolState, 0, len(s.Pools)+len(own.Pools))
	for _, p := range s.Pools {
		o := mine[p.Key] // zero: nothing remembered
		p.Warm, p.WarmUntil, p.SurplusSince = o.Warm, o.WarmUntil, o.SurplusSince
		pools = append(pools, p)
		delete(mine, p.Key)
	}
	for _, p := range mine {
		pools = append(pools, p) // the policy in force knows no such pool
	}
	slices.SortFunc(pools, func(a, b PoolState) int { return cmp.Compare(a.Key, b.Key) })
	s.Pools, s.Nodes = pools, own.Nodes
	return s
}
