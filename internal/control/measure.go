package control

import (
	"cmp"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// measureDecision tells the meter of a decision that was applied.
func (e *Engine) measureDecision(s *snapshot, spec *Spec) {
	d := fleet.Decided{Took: max(0, e.c.Clock().Sub(s.at)), Changed: s.p.Changed()}
	why := func(layer string, r *plan.Reason) {
		d.Why = append(d.Why, fleet.DecidedWhy{Layer: layer, Cause: string(r.Cause), Bound: string(r.Bound)})
	}
	for i := range s.p.Pools {
		why("sandboxes", &s.p.Pools[i].Reason)
	}
	if spec.elastic() {
		why("nodes", &s.p.Nodes.Reason)
	}
	e.c.Meter.Decided(d)
}

// measureFailure tells the meter of a start that failed.
func (e *Engine) measureFailure(box *fleet.Sandbox, err error) {
	outcome := cmp.Or(string(dispatch.FailureOf(err)), fleet.StartOther)
	e.c.Meter.Created(templateName(box.Spec.Pool), outcome, max(0, e.c.Clock().Sub(box.CreatedAt)))
}
