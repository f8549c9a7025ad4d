package advise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/whatif"
)

// tree is a piece of a fleet's spec.
type tree = map[string]any

// want is what a lever is for.
type want int

const (
	money    want = iota // cheaper, or mends a missed objective
	moreRoom             // cheaper, or more sandboxes on the nodes there are
	safety               // whatever it costs
)

// lever is a setting with the values to try; at most one of them is advised.
type lever struct {
	kind       string
	wants      want
	candidates []candidate
}

// candidate is one value of a lever.
type candidate struct {
	title, why, note string
	spec             tree          // the patch, below spec
	kind             *nodeKind     // of the nodes it is for; nil: as they are
	lasts            time.Duration // until a node is lost, in the mean; 0: for ever
}

// nodeKind is another kind of node.
type nodeKind struct {
	kind  fleet.NodeKind
	shape whatif.Shape
}

const (
	// leastSaving is the share that has to be saved.
	leastSaving = 0.01
	// slack is by how much more tasks may be late than now: what two simulations
	// differ by from chance.
	slack = 0.0005
	// mend is the least share of tasks that must no longer be late to be worth
	// money.
	mend = 0.002
)

// tried is a candidate with what came of it.
type tried struct {
	candidate
	patch   []byte
	changes []string
	after   fleet.WhatIfOutcome
}

// good tells whether an outcome is worth advising beside the present one.
func (w want) good(now, then *fleet.WhatIfOutcome) bool {
	if w == safety {
		return true
	}
	saves := whatif.Saving(now, then).Share >= leastSaving
	if w == moreRoom {
		saves = saves || then.MicroUSD <= now.MicroUSD && then.Slots > now.Slots
	}
	if saves && then.Within >= now.Within-slack && (then.Meets || !now.Meets) {
		return true
	}
	return !now.Meets && then.Within >= now.Within+mend && (then.Meets || then.MicroUSD <= now.MicroUSD)
}

// better tells which of two good outcomes to advise: one that meets the
// objective, then the cheaper, then that with fewer late tasks.
func better(a, b *fleet.WhatIfOutcome) bool {
	if a.Meets != b.Meets {
		return a.Meets
	}
	if a.MicroUSD != b.MicroUSD {
		return a.MicroUSD < b.MicroUSD
	}
	return a.Within > b.Within
}

// judge tries a lever and advises at most one of its candidates.
func (a *advisor) judge(ctx context.Context, l lever) error {
	var best *tried
	for _, c := range l.candidates {
		t, err := a.try(ctx, c)
		var wrong *fleet.FieldError
		if errors.As(err, &wrong) {
			continue // such a fleet is not possible
		}
		if err != nil {
			return err
		}
		if l.wants.good(&a.present, &t.after) && (best == nil || better(&t.after, &best.after)) {
			best = t
		}
	}
	if best == nil {
		what := names[l.kind]
		if len(l.candidates) == 1 {
			what += fmt.Sprintf(", %q", l.candidates[0].title)
		}
		a.withhold(l.kind, "%s: %s", what, a.reason(len(l.candidates)))
		return nil
	}
	holds, err := a.holds(ctx, l.wants, best)
	if err != nil {
		return err
	}
	if !holds {
		a.withhold(l.kind, "%s: %q looked better over the whole time, and is not on the later half of it by itself", names[l.kind], best.title)
		return nil
	}
	a.out.Items = append(a.out.Items, a.item(l.kind, best))
	return nil
}

// names are levers in words.
var names = map[string]string{
	fleet.AdviceMemory: "memory limits", fleet.AdviceMinimum: "the standing minimum of sandboxes", fleet.AdviceNodesMin: "the standing minimum of nodes",
	fleet.AdviceFloor: "floors", fleet.AdviceHold: "hold times", fleet.AdviceNodeSize: "the size of nodes", fleet.AdviceSpot: "spot nodes",
}

// reason says why none of some candidates is advised.
func (a *advisor) reason(n int) string {
	gain := "saves 1 % without letting more tasks be late"
	if !a.present.Meets {
		gain = "saves 1 %, or brings more tasks within the objective at a price it is worth"
	}
	if n == 1 {
		return "tried, and it is none that " + gain
	}
	return fmt.Sprintf("of %d other values none %s", n, gain)
}

// try simulates a candidate.
func (a *advisor) try(ctx context.Context, c candidate) (*tried, error) {
	patch, err := json.Marshal(tree{"spec": c.spec})
	if err != nil {
		return nil, fmt.Errorf("write a patch: %w", err)
	}
	f, changes, err := a.apply(patch)
	if err != nil {
		return nil, err
	}
	t := &tried{candidate: c, patch: patch}
	for _, x := range changes {
		t.changes = append(t.changes, x.String())
	}
	t.after, err = a.lab.Run(ctx, a.caseOf(f, &c, time.Time{}))
	return t, err
}

// holds tells whether a candidate is as good on the later half of the time, of
// which it was not chosen.
func (a *advisor) holds(ctx context.Context, w want, t *tried) (bool, error) {
	if w == safety {
		return true, nil
	}
	middle := a.lab.Middle()
	if a.later == nil {
		o, err := a.lab.Run(ctx, whatif.Case{Fleet: a.fleet, From: middle})
		if err != nil {
			return false, err
		}
		a.later = &o
	}
	f, _, err := a.apply(t.patch)
	if err != nil {
		return false, err
	}
	after, err := a.lab.Run(ctx, a.caseOf(f, &t.candidate, middle))
	return err == nil && w.good(a.later, &after), err
}

// item is the advice.
func (a *advisor) item(kind string, t *tried) fleet.AdviceItem {
	s := whatif.Saving(&a.present, &t.after)
	return fleet.AdviceItem{
		Kind: kind, Title: t.title, Why: t.why, Note: t.note, Saved: s, After: t.after, Patch: t.patch, Changes: t.changes,
		Effect: a.effect(&s, &t.after),
	}
}

func (a *advisor) effect(s *fleet.WhatIfSaving, after *fleet.WhatIfOutcome) string {
	var text string
	switch d := float64(s.MonthMicroUSD) / 1e6; {
	case a.out.Basis.FixedNodes > 0:
		text = "the bill stays"
	case a.out.Basis.NodeHourMicroUSD == 0:
		text = fmt.Sprintf("%.1f node-hours in place of %.1f", after.NodeHours, a.present.NodeHours)
	case d >= 0.005:
		text = fmt.Sprintf("saves $%.2f in 30 days (%.1f %%)", d, 100*s.Share)
	case d <= -0.005:
		text = fmt.Sprintf("costs $%.2f more in 30 days (%.1f %%)", -d, -100*s.Share)
	default:
		text = "costs the same"
	}
	if after.Slots != a.present.Slots {
		text += fmt.Sprintf("; a node holds %d sandboxes in place of %d", after.Slots, a.present.Slots)
	}
	return text + fmt.Sprintf("; wait p99 %s (now %s), %.2f %% within the objective (now %.2f %%)",
		secondsText(after.WaitP99), secondsText(a.present.WaitP99), 100*after.Within, 100*a.present.Within)
}

func secondsText(v float64) string {
	return time.Duration(v * float64(time.Second)).Round(100 * time.Millisecond).String()
}
