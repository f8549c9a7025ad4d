package advise

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/whatif"
)

// Input is what advice is made of.
type Input struct {
	Lab     *whatif.Lab
	Fleet   *v1alpha1.Fleet // in force
	Written []byte          // as it was written
	// Apply is the fleet with a patch, checked, and what differs.
	Apply func(before, patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error)
	// Forecast names the peaks; nil: there is none.
	Forecast *fleet.Forecast
	Now      time.Time
}

// advisor makes one Advice.
type advisor struct {
	lab       *whatif.Lab
	fleet     *v1alpha1.Fleet
	written   []byte
	apply     func(patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error)
	forecast  *fleet.Forecast
	templates []fleet.Template
	policy    plan.Policy
	types     []string // instance types of the price list
	objective time.Duration
	present   fleet.WhatIfOutcome
	later     *fleet.WhatIfOutcome // the same on the later half, once it is asked for

	meanCPU, meanMemory float64 // of what ran
	out                 fleet.Advice
}

// Make looks at everything that can be advised. When ctx ends in between, what
// was found until then is returned, and what was not tried is named.
func Make(ctx context.Context, in Input) (fleet.Advice, error) {
	a := &advisor{lab: in.Lab, fleet: in.Fleet, written: in.Written, forecast: in.Forecast, types: instanceTypes(&in.Fleet.Spec.Cost)}
	a.apply = func(patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error) { return in.Apply(in.Written, patch) }
	a.out = fleet.Advice{At: in.Now.UTC(), Items: []fleet.AdviceItem{}, Withheld: []fleet.AdviceNote{}, Use: []fleet.TemplateUse{}}
	spec, err := in.Lab.Rules.Spec(in.Fleet)
	if err != nil {
		return a.out, err
	}
	a.templates, a.policy = spec.Templates, spec.Policy
	a.objective = spec.Policy.WithDefaults().Objective
	a.meanCPU, a.meanMemory = in.Lab.MeanSize(spec.Templates)
	if a.present, err = in.Lab.Run(ctx, whatif.Case{Fleet: in.Fleet}); err != nil {
		return a.out, err
	}
	if a.out.Basis, err = in.Lab.Basis(in.Fleet, &a.present); err != nil {
		return a.out, err
	}
	a.out.Present = a.present
	if err := a.all(ctx); err != nil {
		return a.out, err
	}
	a.finish()
	return a.out, nil
}

// all goes through the levers.
func (a *advisor) all(ctx context.Context) error {
	levers := a.sizes()
	if n := len(a.lab.History.Tasks); n < enough {
		a.withhold(fleet.AdviceMinimum, "not enough measured yet: %d tasks ran in this time, and settings are judged by %d at least", n, enough)
		return nil
	}
	levers = append(levers, a.minimum(), a.nodesMinimum())
	levers = append(levers, a.floors()...)
	levers = append(levers, a.holdTimes(), a.nodeSizes())
	for _, l := range levers {
		if len(l.candidates) == 0 {
			continue
		}
		err := a.judge(ctx, l)
		if errors.Is(err, context.DeadlineExceeded) {
			a.withhold(l.kind, "%s: there was no time left to try them; ask about a shorter time", names[l.kind])
			continue
		}
		if err != nil {
			return err
		}
	}
	return a.spot(ctx)
}

// finish orders and numbers the items.
func (a *advisor) finish() {
	slices.SortStableFunc(a.out.Items, func(x, y fleet.AdviceItem) int {
		return cmp.Or(cmp.Compare(y.Saved.MicroUSD, x.Saved.MicroUSD), cmp.Compare(y.After.Within, x.After.Within))
	})
	for i := range a.out.Items {
		a.out.Items[i].Number = i + 1
	}
	switch n := len(a.out.Items); n {
	case 0:
		a.out.Sentence = "Nothing to advise: what was tried is not better on this fleet's own history."
	case 1:
		a.out.Sentence = "One piece of advice: " + a.out.Items[0].Effect + "."
	default:
		a.out.Sentence = fmt.Sprintf("%d pieces of advice, each simulated by itself; the first %s.", n, a.out.Items[0].Effect)
	}
}

func (a *advisor) withhold(kind, format string, args ...any) {
	a.out.Withheld = append(a.out.Withheld, fleet.AdviceNote{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// caseOf is a case of a candidate, counted from a time on.
func (a *advisor) caseOf(f *v1alpha1.Fleet, c *candidate, from time.Time) whatif.Case {
	x := whatif.Case{Fleet: f, From: from}
	if c.kind != nil {
		x.Kind, x.Shape = &c.kind.kind, &c.kind.shape
	}
	if c.lasts > 0 {
		x.NodeFailures = 1 / c.lasts.Hours()
	}
	return x
}

// slotsBind tells that spec.nodes.slots, or its default, and not the size of
// sandboxes decides how many a node holds.
func (a *advisor) slotsBind() bool {
	return a.fleet.Spec.Nodes.Provider == v1alpha1.ProviderKubernetes
}

// slotsFor is how many sandboxes a node holds with another memory limit of a
// template; 0 where the size of nodes is not known.
func (a *advisor) slotsFor(template string, memory int64) int {
	templates := slices.Clone(a.templates)
	for i := range templates {
		if templates[i].Name == template {
			templates[i].Resources.MemoryBytes = memory
		}
	}
	s := a.lab.Seen.Shape
	if s.MemoryBytes == 0 {
		return 0
	}
	s.Slots = 0
	cpu, mem := a.lab.MeanSize(templates)
	return s.Holds(cpu, mem, mostPods)
}

// writtenFloors are the floors as they were written.
func (a *advisor) writtenFloors() []any {
	var f struct {
		Spec struct {
			Capacity struct {
				Floors []any `json:"floors"`
			} `json:"capacity"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(a.written, &f); err != nil {
		return nil // then none can be changed
	}
	return f.Spec.Capacity.Floors
}
