package plan

import (
	"math"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// burstFrom is how many arrivals in one lead time make a burst, of which half
// as many again are expected.
const burstFrom = 4

// payFor is for how long after its boot the budget must be able to pay for a
// node: otherwise the money would go into boots that no task gains from.
const payFor = 10 * time.Minute

// mostNodes bounds how many nodes one decision asks for.
const mostNodes = 1000

// layer is the node layer on its way through a decision. Everything that is
// not said to be nodes is counted in slots of a node.
type layer struct {
	slots   int // of a new node
	ready   int // nodes in service
	closed  int // nodes cordoned
	leaving int // nodes that are on their way out for good
	booting int // nodes
	coming  int // slots of nodes that boot
	supply  int // slots of nodes in service, and of those that boot
	busy    int // running, waited for, or on the way out
	warm    int // room to keep whatever it costs: for floors, and in a burst
	lead    time.Duration
	price   float64 // of a late start, in node-seconds
	outlook forecast.Outlook
	denied  int     // sandboxes that tasks wait for and no bound grants
	wanted  int     // nodes that are missing
	add     int     // of them, those to bring
	gain    float64 // late starts an hour that one more node saves
	empty   int     // nodes that carry no task
	// fillable are the free slots of nodes that are paid for anyway, young those
	// of them that are on nodes which carry next to nothing.
	fillable, young int
	needed          bool // tasks wait
}

// free is how many slots neither carry a task nor are waited for.
func (l *layer) free() int { return l.supply - l.busy }

// nodes sizes the node layer. A node is brought when the tasks that wait or
// the warm stock do not fit, or when the late starts that it is expected to
// save within a boot time are worth more than it costs; an empty one is kept
// while that holds, and goes by name when it does not. Booting nodes count as
// supply.
func (d *decision) nodes() {
	t := &d.plan.Nodes
	l := d.measureNodes()
	d.kept.layer = l
	t.Ready, t.Booting = l.ready+l.closed, l.booting
	t.Desired = t.Ready + t.Booting
	t.Reason = Reason{Cause: CauseSteady, Numbers: Numbers{Desired: t.Desired, Count: l.busy + l.warm}}
	if !d.p.Nodes.Scalable {
		t.Reason.Detail = "the host is fixed"
		return
	}
	d.glance(l.outlook.Next)
	d.want(&l)
	d.bound(&l, t)
	t.Desired = l.ready + l.booting + l.add
	if !d.terse || t.Reason.Cause == CauseBudget { // which tells when it begins anew
		t.Reason.Numbers = d.nodeNumbers(&l, t.Desired)
	}
	if l.wanted > 0 && !d.terse { // a bound that withholds nodes does not withhold the warning
		t.Reason.Breach = d.projectNodes(&l)
	}
	if l.add > 0 {
		d.bring(&l, t)
		return
	}
	d.giveBack(&l, t)
}

// countNodes adds up the nodes there are, in the one pass over all of them that
// each decision makes.
func (d *decision) countNodes() layer {
	l := layer{slots: max(1, d.p.Nodes.Slots), lead: d.bootLead()}
	for i := range d.o.Nodes {
		n := &d.o.Nodes[i]
		slots := d.slotsOf(n)
		switch n.State {
		case fleet.NodeBooting:
			l.booting++
			l.coming += slots
			l.supply += slots
		case fleet.NodeReady:
			l.ready++
			l.supply += slots
			if n.Running == 0 {
				l.empty++
			}
			if n.Slots > 0 && d.stays(n) {
				free := max(0, n.Slots-n.Used)
				l.fillable += free
				if n.Running <= 1 {
					l.young += free
				}
			}
		case fleet.NodeCordoned:
			l.closed++
			// What still runs there is part of busy.
			l.supply += n.Running
		case fleet.NodeDraining:
			l.leaving++
			l.supply += n.Running
		}
	}
	return l
}

// measureNodes adds the layer up.
func (d *decision) measureNodes() layer {
	l := d.counted
	for i := range d.works {
		d.measureWork(&l, &d.works[i])
	}
	if o := d.o.Outlook; o != nil {
		l.outlook = *o
	}
	return l
}

// measureWork adds what a pool asks of the layer: only sandboxes that can be
// started are worth a node.
func (d *decision) measureWork(l *layer, w *work) {
	able := w.idle() + w.undrain + w.starts
	if !d.fitsNew(w.o.Size) {
		able = w.idle() + w.undrain + w.placed
	}
	able = min(able, w.grant)
	k := d.weight(w.o.Size)
	l.busy += k * (w.o.Running + min(w.need, able))
	l.needed = l.needed || w.need > 0
	// Warm stock beyond the floors goes where there is room; it brings none.
	l.warm += k * min(w.floor, max(0, able-w.need))
	if !w.o.Unknown {
		l.denied += max(0, w.need-w.grant)
	}
}

// bootLead is from the request of a node to ready; zero where none is brought.
func (d *decision) bootLead() time.Duration {
	switch {
	case !d.p.Nodes.Scalable:
		return 0
	case d.o.NodeLead.P95 > 0:
		return d.o.NodeLead.P95
	}
	return d.p.Nodes.BootLead
}

// slotsOf is how many slots a node has.
func (d *decision) slotsOf(n *Node) int {
	if n.Slots > 0 {
		return n.Slots
	}
	return max(1, d.p.Nodes.Slots)
}

// fitsNew tells whether a sandbox of a size fits on a new node.
func (d *decision) fitsNew(z Size) bool {
	c := d.p.Nodes.Size
	return d.p.Nodes.Scalable && (c.MilliCPU <= 0 || z.MilliCPU <= c.MilliCPU) &&
		(c.MemoryBytes <= 0 || z.MemoryBytes <= c.MemoryBytes) && (c.DiskBytes <= 0 || z.DiskBytes <= c.DiskBytes)
}

// weight is how many slots of a new node a sandbox of a size takes.
func (d *decision) weight(z Size) int {
	c, slots := d.p.Nodes.Size, float64(max(1, d.p.Nodes.Slots))
	if c == (Size{}) {
		return 1
	}
	k := 1.0
	for _, r := range [3][2]int64{{z.MilliCPU, c.MilliCPU}, {z.MemoryBytes, c.MemoryBytes}, {z.DiskBytes, c.DiskBytes}} {
		if r[1] > 0 {
			k = max(k, math.Ceil(slots*float64(r[0])/float64(r[1])))
		}
	}
	return int(min(k, slots))
}

// want counts the nodes that are missing.
func (d *decision) want(l *layer) {
	s := &d.next.Nodes
	d.settlePrice(s)
	l.price = d.price(s.LogPrice)
	least := d.p.Nodes.Min - l.ready - l.booting
	// A burst brings more than is seen of it.
	if l.outlook.Recent >= burstFrom {
		l.warm = max(l.warm, (l.outlook.Recent+1)/2)
	}
	free := l.free()
	for ; l.add < mostNodes; l.add++ {
		gain := l.outlook.Rate(free, l.slots)
		if l.add == 0 {
			l.gain = gain * time.Hour.Seconds()
		}
		if l.add >= least && free >= l.warm && l.price*gain <= 1 {
			break
		}
		free += l.slots
	}
	// Room that is split over nodes may hold nothing of what waits.
	if d.scarce > 0 && l.add == 0 && l.coming == 0 {
		l.add = 1
	}
	l.wanted = l.add
}

// settlePrice moves the price of a late start towards the share of late starts
// that the objective allows: fewer, and it falls; more, and it rises, up to a
// bound, since there are loads that no money makes punctual.
func (d *decision) settlePrice(s *NodeState) {
	p := &d.p.Nodes
	if k := &d.prices; k.min != p.PriceMin || k.max != p.PriceMax {
		k.min, k.max, k.low, k.high = p.PriceMin, p.PriceMax, math.Log(p.PriceMin), math.Log(p.PriceMax)
	}
	low, high := d.prices.low, d.prices.high
	begun, late := d.o.Begun-s.Begun, d.o.Late-s.Late
	if !s.Priced {
		s.Priced, s.LogPrice = true, high
	} else if begun >= 0 && late >= 0 {
		s.LogPrice += p.Gain * (float64(late) - p.LateShare*float64(begun))
	}
	s.LogPrice = min(max(s.LogPrice, low), high)
	s.Begun, s.Late = d.o.Begun, d.o.Late
}

// prices remembers logarithms and the exponential taken last: they seldom
// change.
type prices struct{ min, max, low, high, log, is float64 }

// price is the price of its logarithm.
func (d *decision) price(log float64) float64 {
	if k := &d.prices; k.log != log || k.is == 0 {
		k.log, k.is = log, math.Exp(log)
	}
	return d.prices.is
}

// bound holds back what the maximum, the money or failing boots do not allow,
// and says so. Taking a cordoned node back launches nothing, so that neither a
// maximum nor failing boots stand against it.
func (d *decision) bound(l *layer, t *NodeTarget) {
	s := &d.next.Nodes
	s.Breaker.update(d.now, "", d.o.NodesStarted, d.o.NodesFailed, &d.p.Breaker)
	t.Reason.Cause = CauseNodes
	if l.add == 0 && l.denied == 0 { // nothing to hold back
		return
	}
	hold := func(n int, c Cause, b Bound, limit int) {
		if n < l.add {
			l.add = max(0, n)
			t.Reason.Cause, t.Reason.Bound, t.Reason.Numbers.Limit = c, b, limit
		}
	}
	there := l.ready + l.booting + l.leaving
	if most := d.p.Nodes.Max; most > 0 {
		hold(max(l.closed, most-there), CauseCapacity, BoundNodesMax, most)
	}
	if most := d.p.Max; most > 0 { // more nodes than sandboxes may fill
		hold(max(l.closed, (most+l.slots-1)/l.slots-there), CauseCapacity, BoundMax, most)
	}
	if permitted := s.Breaker.permits(d.now, &d.p.Breaker); permitted >= 0 {
		hold(l.closed+max(0, permitted-l.booting), CauseBreaker, BoundBreaker, 0)
		if t.Reason.Cause == CauseBreaker {
			t.Reason.Detail = d.o.NodeFailure
			d.wake(s.Breaker.RetryAt)
		}
	}
	if n, bounded := d.payable(l); bounded {
		hold(max(0, n-there), CauseBudget, d.tightest().bound, 0)
	}
	switch {
	case d.room.broke.has() && l.add+l.denied > 0:
		l.add = 0
		t.Reason = Reason{Cause: CauseBudget, Bound: d.room.broke.bound}
	case l.denied > 0 && t.Reason.Cause == CauseNodes:
		t.Reason.Cause, t.Reason.Bound, t.Reason.Numbers.Limit = CauseCapacity, d.room.bound, d.room.limit
	}
}

// nodeNumbers are the numbers of the layer's reason.
func (d *decision) nodeNumbers(l *layer, desired int) Numbers {
	n := Numbers{
		Desired: desired, Count: l.busy, Warm: l.warm, Ready: l.ready, Starting: l.booting, Draining: l.closed,
		Free: l.free(), Rate: l.outlook.Mean / max(1, l.outlook.Lead.Seconds()), Lead: l.lead,
		Price: l.price, Saves: l.gain, Limit: d.plan.Nodes.Reason.Numbers.Limit, Failures: d.next.Nodes.Breaker.Failures,
	}
	switch d.plan.Nodes.Reason.Cause {
	case CauseBreaker:
		n.Wait = max(0, d.next.Nodes.Breaker.RetryAt.Sub(d.now))
	case CauseBudget:
		d.tightest().tell(d, &n)
	}
	for i := range d.works {
		n.Backlog += d.works[i].d.Backlog
	}
	return n
}

// bring takes cordoned nodes back into service before new ones are asked for.
func (d *decision) bring(l *layer, t *NodeTarget) {
	left := l.add
	for i := range d.o.Nodes {
		if o := &d.o.Nodes[i]; left > 0 && o.State == fleet.NodeCordoned {
			d.act(Action{Kind: UncordonNode, Node: o.ID, Reason: &t.Reason})
			left--
		}
	}
	if left > 0 {
		d.act(Action{Kind: ScaleNodes, N: t.Ready + t.Booting + l.leaving + left, Reason: &t.Reason})
	}
}

// projectNodes says when a task will have waited for longer than the
// objective, and until when more nodes would have prevented it: from the oldest
// task that waits, or else from when the free slots are used up.
func (d *decision) projectNodes(l *layer) *Breach {
	start := d.p.PriorLead.P95
	var oldest time.Time
	for i := range d.works {
		w := &d.works[i]
		if w.need > 0 && w.d.Backlog > w.d.Held && !w.d.Oldest.IsZero() && (oldest.IsZero() || w.d.Oldest.Before(oldest)) {
			oldest, start = w.d.Oldest, d.lead(w.o)
		}
	}
	at := oldest.Add(d.p.Objective)
	if free := l.free(); oldest.IsZero() || free > 0 {
		rate := max(l.outlook.Mean, float64(l.outlook.Recent)) / max(1, l.outlook.Lead.Seconds())
		if rate <= 0 {
			return nil
		}
		at = d.now.Add(time.Duration(float64(max(0, free))/rate*float64(time.Second)) + d.p.Objective)
	}
	by := at.Add(-l.lead - start)
	return &Breach{At: at, By: by, Nodes: l.wanted, Late: by.Before(d.now), Over: at.Before(d.now)}
}
