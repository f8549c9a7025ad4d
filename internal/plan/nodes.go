package plan

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// nodes sizes the node layer: room for every sandbox wanted, booting nodes
// counted as supply; empty nodes are kept for about one boot's cost and then
// returned by name.
func (d *decision) nodes() {
	t := &d.plan.Nodes
	for i := range d.o.Nodes {
		switch d.o.Nodes[i].State {
		case fleet.NodeReady, fleet.NodeCordoned:
			t.Ready++
		case fleet.NodeBooting:
			t.Booting++
		}
	}
	wanted := 0
	for i := range d.works {
		wanted += d.works[i].o.Running + d.works[i].grant
	}
	t.Desired = t.Ready + t.Booting
	t.Reason = Reason{Cause: CauseSteady, Numbers: Numbers{Desired: t.Desired, Count: wanted}}
	if !d.p.Nodes.Scalable {
		t.Reason.Detail = "the host is fixed"
		return
	}
	slots := max(1, d.p.Nodes.Slots)
	desired := max((wanted+slots-1)/slots, d.p.Nodes.Min)
	t.Reason = Reason{Cause: CauseNodes, Numbers: Numbers{Desired: desired, Count: wanted}}
	if most := d.p.Nodes.Max; most > 0 && desired > most {
		desired = most
		t.Reason.Bound, t.Reason.Numbers.Limit = BoundNodes, most
	}
	have := t.Ready + t.Booting
	t.Desired = desired
	switch {
	case desired > have && d.uncordon(desired-have):
	case desired > have:
		d.act(Action{Kind: ScaleNodes, N: desired, Reason: &t.Reason})
	case desired < have && d.signal == "" && d.o.NodesError == "":
		d.releaseEmpty(have - desired)
		return
	}
	d.next.Nodes.Over = time.Time{}
}

// uncordon takes nodes back into service before new ones are asked for.
func (d *decision) uncordon(n int) bool {
	done := false
	for i := range d.o.Nodes {
		if o := &d.o.Nodes[i]; n > 0 && o.State == fleet.NodeCordoned {
			d.act(Action{Kind: UncordonNode, Node: o.ID, Reason: &d.plan.Nodes.Reason})
			n--
			done = true
		}
	}
	return done && n <= 0
}

// releaseEmpty cordons empty nodes beyond the want and returns those that are
// cordoned and still empty, once the surplus has lasted for the hold.
func (d *decision) releaseEmpty(n int) {
	next := &d.next.Nodes
	if next.Over.IsZero() || next.Over.After(d.now) {
		next.Over = d.now
	}
	if d.now.Sub(next.Over) < d.p.Nodes.Hold {
		return
	}
	for i := range d.o.Nodes {
		o := &d.o.Nodes[i]
		if n == 0 || o.Used > 0 {
			continue
		}
		switch o.State {
		case fleet.NodeReady:
			d.act(Action{Kind: CordonNode, Node: o.ID, Reason: &d.plan.Nodes.Reason})
			n--
		case fleet.NodeCordoned:
			d.act(Action{Kind: ReleaseNode, Node: o.ID, Reason: &d.plan.Nodes.Reason})
			n--
		}
	}
}
