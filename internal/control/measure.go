package control

import (
	"cmp"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// reactions are the pools where tasks wait that found no sandbox. The engine's
// lock guards them.
type reactions map[fleet.PoolKey]reaction

// reaction is one such time: since when the first task was due, and when the
// decision that saw it was applied.
type reaction struct{ due, applied time.Time }

// begin notes where tasks have begun to wait, and forgets where none do any more.
func (r reactions) begin(s *snapshot, applied time.Time, m fleet.Meter) {
	for i := range s.o.Pools {
		p := &s.o.Pools[i]
		d := demandIn(&s.stats, p.Key)
		_, open := r[p.Key]
		switch {
		case d.Backlog-d.Held <= p.Ready || s.err != "":
			delete(r, p.Key)
		case !open && !d.Oldest.IsZero():
			r[p.Key] = reaction{d.Oldest, applied}
			m.Reacted(fleet.ReactDetect, max(0, s.at.Sub(d.Oldest)))
			m.Reacted(fleet.ReactDecide, max(0, applied.Sub(s.at)))
		}
	}
}

// end measures the first sandbox that became ready for tasks that waited.
func (r reactions) end(box *fleet.Sandbox, now time.Time, m fleet.Meter) {
	x, open := r[box.Spec.Pool]
	if !open {
		return
	}
	delete(r, box.Spec.Pool)
	m.Reacted(fleet.ReactSupply, max(0, now.Sub(x.applied)))
	m.Reacted(fleet.ReactTotal, max(0, now.Sub(x.due)))
}

// measureDecision tells the meter of a decision that was applied.
func (e *Engine) measureDecision(s *snapshot, spec *Spec) {
	now := e.c.Clock()
	e.mu.Lock()
	e.reactions.begin(s, now, e.c.Meter)
	e.mu.Unlock()
	d := fleet.Decided{Took: max(0, now.Sub(s.at)), Changed: s.p.Changed()}
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
