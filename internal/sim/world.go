package sim

import (
	"math"
	"math/rand/v2"
)

// Never is the time of what does not happen.
const Never = math.MaxInt64

// nodeState and boxState are states of nodes and sandboxes; see package fleet.
type nodeState uint8

const (
	nodeGone nodeState = iota
	nodeBooting
	nodeReady
	nodeCordoned
)

type boxState uint8

const (
	boxGone boxState = iota
	boxStarting
	boxReady
	boxRunning
	boxDraining
)

// task is one task that waits or runs; times in milliseconds.
type task struct {
	arrived, work int64
	again         bool // it has run before, on a node that died
}

// turnover is which tasks of a node began and ended since the planner looked at
// it, as far as that matters to when the last one ends.
type turnover uint8

const (
	noneRan  turnover = iota // at most such ended as others were to outlast
	oneBegan                 // one began, and no more than that
	manyRan                  // anything else
)

// begins and ends note that a sandbox begins a task, or ends it.
func (n *node) begins(i int32) {
	if n.ran == noneRan {
		n.ran, n.began = oneBegan, i
		return
	}
	n.ran = manyRan
}

func (n *node) ends(i int32) {
	if n.longest == i || n.ran == oneBegan && n.began == i {
		n.ran = manyRan
	}
}

// node is one machine. next and prev link those with as many free slots.
type node struct {
	state         nodeState
	touched       bool // changed since the last look; see World.changed
	ran           turnover
	began         int32 // the sandbox that did, with oneBegan
	longest       int32 // the sandbox whose task was expected to go on longest
	gen           uint32
	used, running int32
	starting      int32
	next, prev    int32
	prefer        float64 // in which order ready sandboxes are claimed; see plan.Prefer
	asked         int64   // requested
	requested     int64   // billing begins: when the provider served the request
	empty         int64   // since when it carries nothing; Never while it does
}

// box is one sandbox. next and prev link the ready ones of a pool.
type box struct {
	state          boxState
	gen            uint32
	node, pool     int32
	next, prev     int32
	place          int32 // among those its node carries
	created, since int64 // started; ready, running or draining
	task           task
}

// move is a sandbox that became ready, or was and no longer is.
type move struct {
	named
	gone bool
}

// Pool is one pool on the virtual clock: its queue and its sandboxes.
type Pool struct {
	Ready, Starting, Running, Draining int
	// Arrived, Finished, Started and Failed only grow: tasks, and starts of
	// sandboxes.
	Arrived, Finished, Started, Failed int64
	// Target is how many sandboxes there should be, busy ones included; the
	// world brings them about. Policies that act by name leave it alone.
	Target int

	pending     int // wanted, without a slot
	queue       ring
	first, last int32  // ready ones, the longest ready first
	moves       []move // on the ready list, for the planner
	area        int64  // demand over time, in task-milliseconds
	areaAt      int64
}

// Backlog is how many tasks wait.
func (p *Pool) Backlog() int { return p.queue.n }

// Demand is backlog and tasks in flight.
func (p *Pool) Demand() int { return p.queue.n + p.Running }

// Area is the integral of Demand up to now, in task-milliseconds.
func (p *Pool) Area(now int64) int64 { return p.area + (now-p.areaAt)*int64(p.Demand()) }

// settleArea brings the integral up to now; call it before demand changes.
func (p *Pool) settleArea(now int64) { p.area, p.areaAt = p.Area(now), now }

// World is the state of a simulated fleet. Policies read it and act on it
// through its methods; it is not safe for concurrent use.
type World struct {
	Pools []Pool

	m           *Model
	now         int64
	events      heap
	nodes       []node
	boxes       []box
	spareNodes  []int32 // indices that are free
	spareBoxes  []int32
	buckets     []int32 // by free slots: first node of the list, -1 for none
	alive       int     // nodes that are not gone
	booting     int
	waiting     int // tasks in all queues
	running     int
	watch       bool // record changed nodes for the planner
	changed     []int32
	membership  bool    // a node came or went
	carried     []int32 // Slots places for each node: its sandboxes, the used ones first
	ended       []int64 // durations of tasks that ended, for the planner
	objective   int64   // waits above it are late
	still       bool    // a sandbox that becomes ready changes no plan
	news        bool    // something happened that the planner has not seen
	begun, late int64
	nodesBooted int64
	lastBoot    int64 // lead time of the last node that came into service
	minBill     int64
	hold        int64 // Never: empty nodes are kept
	chance      *rand.Rand
	bill        bill
	waits       *Waits
	lost        int64 // tasks begun again
	lastLead    int64 // lead time of the last sandbox that became ready
	series      *Series
	open, close int64 // the evaluated window
}

// bill adds up what the evaluated window costs.
type bill struct {
	millis   int64 // node-milliseconds
	launches int
	peak     int
}

func newWorld(m *Model, pools int, open, closing int64) *World {
	w := &World{
		m: m, Pools: make([]Pool, pools), buckets: make([]int32, m.Slots+1), waits: &Waits{},
		minBill: m.MinBill.Milliseconds(), hold: m.Hold.Milliseconds(), open: open, close: closing,
		chance: rand.New(rand.NewPCG(m.Seed, 0x6d7573746572)),
	}
	for i := range w.buckets {
		w.buckets[i] = -1
	}
	for i := range w.Pools {
		w.Pools[i].first, w.Pools[i].last = -1, -1
	}
	return w
}

// Now is the virtual time in milliseconds since the Unix epoch.
func (w *World) Now() int64 { return w.now }

// Alive is how many nodes are paid for, booting ones included.
func (w *World) Alive() int { return w.alive }

// touch notes that a node changed.
func (w *World) touch(i int32) {
	if n := &w.nodes[i]; w.watch && !n.touched {
		n.touched = true
		w.changed = append(w.changed, i)
	}
}

// shelve takes a node out of its bucket, or puts it into the one it belongs
// to; only ready nodes with a free slot are in one.
func (w *World) shelve(i int32, in bool) {
	n := &w.nodes[i]
	free := int32(w.m.Slots) - n.used
	if n.state != nodeReady || free <= 0 {
		return
	}
	if in {
		n.prev, n.next = -1, w.buckets[free]
		if n.next >= 0 {
			w.nodes[n.next].prev = i
		}
		w.buckets[free] = i
		return
	}
	if n.next >= 0 {
		w.nodes[n.next].prev = n.prev
	}
	if n.prev >= 0 {
		w.nodes[n.prev].next = n.next
	} else {
		w.buckets[free] = n.next
	}
}

// fullest is the ready node with the fewest free slots: best fit; -1: none.
func (w *World) fullest() int32 {
	for _, i := range w.buckets[1:] {
		if i >= 0 {
			return i
		}
	}
	return -1
}

// Launch asks for n nodes.
func (w *World) Launch(n int) {
	for ; n > 0 && (w.m.MaxNodes == 0 || w.alive < w.m.MaxNodes); n-- {
		i := w.newNode()
		x := &w.nodes[i]
		x.state, x.asked, x.requested = nodeBooting, w.now, w.served()
		w.booting++
		w.countLaunch()
		w.events.push(newEvent(x.requested+w.m.Boot.draw(w.chance), nodeBooted, x.gen, i))
	}
}

func (w *World) newNode() int32 {
	var i int32
	if k := len(w.spareNodes); k > 0 {
		i = w.spareNodes[k-1]
		w.spareNodes = w.spareNodes[:k-1]
	} else {
		i = int32(len(w.nodes))
		w.nodes = append(w.nodes, node{})
		w.carried = append(w.carried, make([]int32, w.m.Slots)...)
	}
	w.nodes[i] = node{gen: w.nodes[i].gen + 1, touched: w.nodes[i].touched, ran: manyRan, empty: w.now}
	w.alive++
	w.membership = true
	return i
}

func (w *World) countLaunch() {
	if w.now >= w.open && w.now < w.close {
		w.bill.launches++
		w.bill.peak = max(w.bill.peak, w.alive)
	}
}

// served is when the provider acts on what is asked for now.
func (w *World) served() int64 {
	at := w.now
	for _, s := range w.m.StockOuts {
		if from, until := s.From.UnixMilli(), s.Until.UnixMilli(); at >= from && at < until {
			at = until
		}
	}
	return at
}

// booted puts a node into service.
func (w *World) booted(i int32) {
	n := &w.nodes[i]
	n.state = nodeReady
	w.booting--
	w.nodesBooted++
	w.lastBoot = w.now - n.asked
	w.shelve(i, true)
	w.touch(i)
	w.emptied(i)
	w.doom(i)
}

// doom draws when a node that is put into service dies.
func (w *World) doom(i int32) {
	if rate := w.m.NodeFailures; rate > 0 {
		if life := w.chance.ExpFloat64() / rate * 3600_000; life < 1e15 {
			w.events.push(newEvent(w.now+int64(life), nodeFailed, w.nodes[i].gen, i))
		}
	}
}

// emptied starts the hold of a node that carries nothing.
func (w *World) emptied(i int32) {
	w.nodes[i].empty = w.now
	if w.hold != Never {
		// Not now: what waits for the node has not seen it yet.
		w.events.push(newEvent(w.now+max(1, w.hold), nodeIdle, w.nodes[i].gen, i))
	}
}

// Release returns an empty node, or one that is still booting.
func (w *World) Release(i int32) {
	n := &w.nodes[i]
	if n.state == nodeGone || n.used > 0 {
		return
	}
	w.remove(i)
}

// remove ends a node and its bill.
func (w *World) remove(i int32) {
	n := &w.nodes[i]
	w.shelve(i, false)
	if n.state == nodeBooting {
		w.booting--
	}
	if n.requested <= w.now {
		w.charge(n.requested, max(w.now, n.requested+w.minBill))
	}
	n.state = nodeGone
	n.gen++
	w.alive--
	w.membership = true
	w.spareNodes = append(w.spareNodes, i)
}

// charge adds the part of a bill that lies in the window.
func (w *World) charge(from, until int64) {
	w.bill.millis += max(0, min(until, w.close)-max(from, w.open))
}

// settle bills the nodes that are left at the end.
func (w *World) settle() {
	for i := range w.nodes {
		if n := &w.nodes[i]; n.state != nodeGone {
			w.charge(n.requested, max(w.now, w.close, n.requested+w.minBill))
		}
	}
}

// Cordon takes a node out of service for new sandboxes, or back into it.
func (w *World) Cordon(i int32, on bool) {
	n := &w.nodes[i]
	switch {
	case on && n.state == nodeReady:
		w.shelve(i, false)
		n.state = nodeCordoned
	case !on && n.state == nodeCordoned:
		n.state = nodeReady
		w.shelve(i, true)
	}
	w.touch(i)
}

// nodeFails ends a node with all it carries; its tasks get other sandboxes
// that are ready, or wait again, first in line.
func (w *World) nodeFails(i int32) {
	for k := range w.boxes {
		if b := &w.boxes[k]; b.state != boxGone && b.node == i {
			w.loseBox(int32(k))
		}
	}
	w.remove(i)
	for k := range w.Pools {
		w.dispatch(&w.Pools[k])
	}
}
