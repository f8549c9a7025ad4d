package plan

import (
	"muster.dev/muster/internal/fleet"
)

// giveBack returns empty nodes that cost more to keep than the late starts
// they are expected to save, those already paid for the minimum first.
func (d *decision) giveBack(l *layer, t *NodeTarget) {
	if missing := or(d.signal, d.o.NodesError); missing != "" {
		if t.Reason.Cause == CauseNodes {
			t.Reason.Bound, t.Reason.Detail = BoundSignal, "scale-in is frozen: "+missing
		}
		return
	}
	if l.empty+l.closed == 0 {
		return
	}
	var why *Reason
	free, spare := l.free(), l.ready+l.booting-d.p.Nodes.Min
	for i := range d.o.Nodes {
		o := &d.o.Nodes[i]
		cordoned := o.State == fleet.NodeCordoned
		if o.Running > 0 || o.Starting > 0 && l.needed || o.State != fleet.NodeReady && !cordoned || d.placedOn(o.ID) {
			continue
		}
		if !cordoned {
			left := free - d.slotsOf(o)
			if !d.dispensable(l, o, left) || spare <= 0 {
				continue
			}
			free, spare = left, spare-1
			t.Desired--
		}
		if why == nil { // a verdict on the layer stays beside it
			why = d.why
			*why = Reason{Cause: CauseIdleNode, Numbers: t.Reason.Numbers}
		}
		d.evacuate(o, why)
	}
	if why != nil {
		t.Reason.Numbers.Desired, why.Numbers.Desired = t.Desired, t.Desired
		if t.Reason.Cause == CauseNodes {
			t.Reason = *why
		}
	}
}

// dispensable tells a node without tasks that is not worth its price when so
// many free slots stay without it.
func (d *decision) dispensable(l *layer, o *Node, left int) bool {
	if paid := o.Requested.Add(d.p.Nodes.MinBill); d.now.Before(paid) { // paid for anyway
		d.wake(paid)
		return false
	}
	if d.room.broke.has() { // nothing is started any more
		return true
	}
	return d.beyond(l, left)
}

// beyond tells that so many free slots are enough without one more node.
func (d *decision) beyond(l *layer, left int) bool {
	return left >= l.warm && !d.worthKeeping(l, left)
}

// worthKeeping tells whether a node beyond so many free slots saves more than
// it costs, the boot that it would need otherwise included.
func (d *decision) worthKeeping(l *layer, free int) bool {
	save := d.p.Nodes.Keep * l.price * l.outlook.Rate(free, l.slots)
	return save > 1 || save+l.lead.Seconds()*l.outlook.Rate(free, 1) > 1
}

// placedOn tells whether this decision starts something on a node.
func (d *decision) placedOn(id fleet.NodeID) bool {
	for i := range d.plan.Actions {
		if a := &d.plan.Actions[i]; (a.Kind == StartSandboxes || a.Kind == UndrainSandbox) && a.Node == id {
			return true
		}
	}
	return false
}

// evacuate releases a node without tasks: at once when nothing is on it, and
// else by draining the warm sandboxes there.
func (d *decision) evacuate(o *Node, why *Reason) {
	if o.Used == 0 {
		d.act(Action{Kind: ReleaseNode, Node: o.ID, Reason: why})
		return
	}
	if o.State == fleet.NodeReady {
		d.act(Action{Kind: CordonNode, Node: o.ID, Reason: why})
	}
	for i := range d.works {
		w := &d.works[i]
		idle := w.o.Idle[:min(len(w.o.Idle), MaxIdle)]
		for b := range idle {
			if x := &idle[b]; same(x.Node, o.ID) && w.named&(1<<b) == 0 {
				w.named |= 1 << b
				w.drains++
				d.act(Action{Kind: DrainSandbox, Pool: w.o.Key, Sandbox: x.ID, Node: x.Node, Reason: why})
			}
		}
	}
}

// same is ==, made quick for the many names of one length that differ at their
// end.
func same(a, b fleet.NodeID) bool {
	n := len(a) - 1
	return n == len(b)-1 && (n < 0 || a[n] == b[n] && a == b)
}

// leaving tells a node that takes no new work: what is drained there is not
// taken back.
func (d *decision) leaving(id fleet.NodeID) bool {
	if id == "" || !d.p.Nodes.Scalable {
		return false
	}
	for i := range d.o.Nodes {
		if d.o.Nodes[i].ID == id {
			return d.o.Nodes[i].State == fleet.NodeCordoned
		}
	}
	return false
}
