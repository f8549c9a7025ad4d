package main

import (
	"context"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
)

// settling is how long a control plane that has just begun to lead lets the
// consumers be that are there: it has not seen yet what they have to do.
const settling = 5 * time.Minute

// canCarry refuses consumers where there is no store that they share.
func (k *cluster) canCarry(f operator.Fleet) error {
	if !f.Spec.Spec.HasConsumers() || k.c.store.shared() {
		return nil
	}
	return &fleet.FieldError{
		Field: "spec.consumers", Wrong: "need a store that several processes share, and this control plane keeps a SQLite file",
		Right: "--store postgres://… (store.type: postgres in the chart), or no spec.consumers",
	}
}

// consumers is how many there are and should be; nil: the fleet has none.
func (r *fleetInCluster) consumers(ctx context.Context, p *operator.Problem) *operator.Consumers {
	c := r.f.Spec.Spec.Consumers
	if c == nil {
		return nil
	}
	out := &operator.Consumers{}
	all, err := r.control.Consumers()
	if err != nil {
		*p = operator.Problem{Reason: "ConsumersNotRead", Message: err.Error()}
	}
	for _, m := range all {
		if !m.Leaving && m.Age < fleet.ConsumerSilence {
			out.Live++
		}
	}
	if r.control.Ready(ctx) != nil {
		return out // nothing has been decided yet
	}
	out.Wanted, out.Reason = r.control.ConsumersWanted()
	if _, most := c.Bounds(); time.Since(r.began) < settling && out.Wanted < min(out.Live, most) {
		out.Wanted, out.Reason = min(out.Live, most), "as many as there were when this control plane began to lead"
	}
	return out
}
