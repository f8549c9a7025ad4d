package plan

import (
	"time"

	"muster.dev/muster/internal/forecast"
)

// steady is what a Decider keeps of its last decision, to tell later whether
// it would be made again.
type steady struct {
	// firm: the plan does nothing that leads to more, so that what it was made
	// from is still so once it is applied.
	firm  bool
	loose bool      // something was started where free slots are not filled
	later time.Time // when it may differ, apart from the outlook; zero: never
	layer layer     // as measured
	warm  int       // slots that serve coming tasks
	spare int       // slots that could be filled and for which none are expected
}

// Holds tells whether to decide now would do nothing, given that since the last
// decision nothing happened but that it was applied, that what it started became
// ready, and that the outlook is now another one. It costs a fraction of the
// decision it saves; where it cannot tell it says no. It is for callers on a
// virtual clock, to whom a decision that does nothing is of no use; the state
// then stays as it was.
func (x *Decider) Holds(now time.Time, outlook *forecast.Outlook) bool {
	d := &x.d
	if !d.kept.firm || !d.kept.later.IsZero() && !now.Before(d.kept.later) {
		return false
	}
	d.kept.layer.outlook = *outlook
	if d.kept.spare > 0 && outlook.Rate(d.kept.warm, 1) >= fillRate {
		return false
	}
	if !d.p.Nodes.Scalable {
		return true
	}
	l := d.kept.layer
	if d.want(&l); l.add > 0 || l.closed > 0 {
		return false
	}
	for i := range d.o.Nodes {
		if o := &d.o.Nodes[i]; l.empty > 0 && o.Running == 0 && d.beyond(&l, l.free()-d.slotsOf(o)) {
			return false
		}
	}
	return true
}

// Next is when to ask Holds, or to decide, again if nothing happens until then;
// zero: there is no such time. Unlike [Plan.Wake] it leaves out targets that
// fall and lead to nothing.
func (x *Decider) Next() time.Time {
	d := &x.d
	if !d.kept.firm {
		return d.plan.Wake
	}
	at := d.kept.layer.outlook.Next
	if !d.p.Nodes.Scalable || at.IsZero() || !d.kept.later.IsZero() && d.kept.later.Before(at) {
		return d.kept.later
	}
	return at
}

// keep notes for Holds what the decision rests on.
func (d *decision) keep() {
	k := &d.kept
	k.firm = d.signal == "" && d.room.budget == 0 && !k.loose
	for i := range d.plan.Actions {
		k.firm = k.firm && d.plan.Actions[i].Kind == StartSandboxes
	}
	for i := range d.works {
		w := &d.works[i]
		// Where filling was cut by what else was started, more may follow.
		k.firm = k.firm && (w.placed == 0 || w.need+w.warm <= w.idle())
		// A target that falls makes no surplus of the pool that fills free slots
		// in any case, and asks for no start.
		if w.s.Warm > w.floor && w != d.filler {
			d.expect(w.s.WarmUntil)
		}
	}
}

// expect notes a time at which the decision could change by itself in another
// way than by its outlook.
func (d *decision) expect(at time.Time) {
	if k := &d.kept; at.After(d.now) && (k.later.IsZero() || at.Before(k.later)) {
		k.later = at
	}
}
