package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// otherwise makes a journaled decision again without the bounds of its policy,
// and says where that would have wanted something else. Nil where nothing
// bound, or where the policy or the planner's version is not known any more.
func (e *Engine) otherwise(ctx context.Context, d *fleet.DecisionRecord) ([]fleet.Otherwise, error) {
	if d.Policy == "" || d.Version != plan.Version {
		return nil, nil
	}
	b, err := e.c.Store.Policy(ctx, d.Policy)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy of decision %d: %w", d.Seq, err)
	}
	var p plan.Policy
	var was, is plan.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("the policy of decision %d cannot be read: %w: %w", d.Seq, fleet.ErrCorrupt, err)
	}
	again, err := plan.Redecide(d, unbounded(p))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(json.Unmarshal(d.Plan, &was), json.Unmarshal(again, &is)); err != nil {
		return nil, fmt.Errorf("decision %d: its plan cannot be read: %w: %w", d.Seq, fleet.ErrCorrupt, err)
	}
	return differences(&was, &is), nil
}

// unbounded is a policy without bounds on sandboxes, nodes and money.
func unbounded(p plan.Policy) *plan.Policy {
	p.Max = 0
	p.Budget.PerHour, p.Budget.PerDay = 0, 0
	if p.Nodes.Scalable {
		p.Nodes.Max = math.MaxInt32
	}
	return &p
}

func differences(was, is *plan.Plan) []fleet.Otherwise {
	var out []fleet.Otherwise
	for i := range was.Pools {
		w := &was.Pools[i]
		for j := range is.Pools {
			n := &is.Pools[j]
			if n.Pool == w.Pool && (n.Desired != w.Desired || started(was, w.Pool) != started(is, n.Pool)) {
				out = append(out, fleet.Otherwise{
					Pool: w.Pool, Bound: string(w.Reason.Bound), Desired: w.Desired, Without: n.Desired,
					Started: started(was, w.Pool), WithoutStarted: started(is, n.Pool), Reason: n.Reason.Sentence(),
				})
			}
		}
	}
	if w, n := &was.Nodes, &is.Nodes; w.Desired != n.Desired {
		out = append(out, fleet.Otherwise{Bound: string(w.Reason.Bound), Desired: w.Desired, Without: n.Desired, Reason: n.Reason.Sentence()})
	}
	return out
}

// started is how many sandboxes of a pool a plan starts.
func started(p *plan.Plan, pool fleet.PoolKey) int {
	n := 0
	for i := range p.Actions {
		if a := &p.Actions[i]; a.Kind == plan.StartSandboxes && a.Pool == pool {
			n += a.N
		}
	}
	return n
}
