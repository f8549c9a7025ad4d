package sim

import (
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

// residualsEvery is how often the expected ends of running tasks are looked
// at on nodes where nothing happened.
const residualsEvery = 10 * second

// outlook is what the control loop measures for the node layer.
type outlook struct {
	ranks    forecast.Ranks
	lives    forecast.Lifetimes
	leads    forecast.Leads
	next     forecast.Outlook
	lookedAt int64
	last     []expected // by node
	boxes    []expected // by sandbox
}

// expected is how long a task that runs since then was found to go on, or the
// longest of a node, and until when: it is looked up anew as the age of a task
// grows by a quarter, which is what it depends on most.
type expected struct {
	since, until int64
	left         time.Duration
}

// observe takes in what happened since the last look.
func (v *outlook) observe(now int64, at time.Time, w *World, m *planner) {
	o := &m.o
	if fresh := w.nodesBooted - o.NodesStarted; fresh > 0 {
		o.NodesStarted = w.nodesBooted
		if len(v.leads.Samples) < 64 || w.m.Boot.Kind != "constant" || len(w.m.StockOuts) > 0 {
			v.leads.Add(at, time.Duration(w.lastBoot)*time.Millisecond)
			o.NodeLead = v.leads.Quantiles(at, time.Hour, fleet.Lead{})
		}
	}
	for _, d := range w.ended {
		v.lives.Done(at, time.Duration(d)*time.Millisecond)
	}
	w.ended = w.ended[:0]
	var arrived, finished int64
	for i := range w.Pools {
		arrived += w.Pools[i].Arrived
		finished += w.Pools[i].Finished
	}
	lead := m.c.Policy.Nodes.BootLead
	if o.NodeLead.P95 > 0 {
		lead = o.NodeLead.P95
	}
	v.ranks.Observe(at, arrived, finished, lead)
	v.ranks.Outlook(at, lead, &v.next)
	o.Outlook = &v.next
	o.Begun, o.Late = w.begun, w.late
}

// residual is how long the task that is expected to go on longest of a node
// does.
func (v *outlook) residual(now int64, w *World, i int32) time.Duration {
	n := &w.nodes[i]
	if n.running == 0 {
		return 0
	}
	for len(v.last) < len(w.nodes) {
		v.last = append(v.last, expected{})
	}
	for len(v.boxes) < len(w.boxes) {
		v.boxes = append(v.boxes, expected{})
	}
	r, ran := &v.last[i], n.ran
	n.ran = noneRan
	switch {
	case ran == manyRan || now >= r.until:
		*r = expected{until: Never}
		for _, k := range w.carried[int(i)*w.m.Slots:][:n.used] {
			if w.boxes[k].state == boxRunning {
				v.take(now, w, k, n, r)
			}
		}
	case ran == oneBegan:
		v.take(now, w, n.began, n, r)
	}
	return r.left
}

// take takes the task of one sandbox into what is expected of its node.
func (v *outlook) take(now int64, w *World, k int32, n *node, r *expected) {
	b, x := &w.boxes[k], &v.boxes[k]
	if x.since != b.since || now >= x.until {
		left, until := v.lives.Expect(time.Duration(now-b.since) * time.Millisecond)
		*x = expected{since: b.since, until: b.since + int64(until/time.Millisecond), left: left}
	}
	if x.left > r.left || r.until == Never {
		n.longest = k
	}
	r.left, r.until = max(r.left, x.left), min(r.until, x.until)
}

// observeNodes lists the nodes anew when one came or went, and otherwise
// updates those that changed.
func (m *planner) observeNodes(now int64, w *World) {
	if w.membership {
		w.membership = false
		m.listNodes(now, w)
	}
	if now-m.outlook.lookedAt >= residualsEvery {
		m.outlook.lookedAt = now
		for at, i := range m.order {
			if w.nodes[i].ran != noneRan || now >= m.outlook.last[i].until {
				m.expectEnd(now, w, i, &m.o.Nodes[at])
			}
		}
	}
	for _, i := range w.changed {
		if w.nodes[i].state != nodeGone {
			m.observeNode(now, w, i)
		}
		w.nodes[i].touched = false
	}
	w.changed = w.changed[:0]
}

// listNodes lists the nodes anew.
func (m *planner) listNodes(now int64, w *World) {
	for len(m.place) < len(w.nodes) {
		m.place = append(m.place, -1)
	}
	before := m.o.Nodes
	m.order, m.o.Nodes, m.before = m.order[:0], m.before[:0], before
	for k := range w.nodes {
		n, i, at := &w.nodes[k], int32(k), m.place[k]
		if n.state == nodeGone {
			m.place[k] = -1
			continue
		}
		m.place[k] = int32(len(m.order))
		m.order = append(m.order, i)
		if at >= 0 && !n.touched && n.ran == noneRan {
			m.o.Nodes = append(m.o.Nodes, before[at])
			m.expectEnd(now, w, i, &m.o.Nodes[m.place[k]])
			continue
		}
		m.o.Nodes = append(m.o.Nodes, plan.Node{ID: m.nodeID(i), Slots: m.slots})
		m.observeNode(now, w, i)
	}
}

// expectEnd brings up to date how long the tasks of a node are expected to go
// on.
func (m *planner) expectEnd(now int64, w *World, i int32, o *plan.Node) {
	if left := m.outlook.residual(now, w, i); left != o.Residual {
		o.Residual = left
		w.nodes[i].prefer = plan.Prefer(o)
	}
}

var nodeStates = [...]fleet.NodeState{fleet.NodeGone, fleet.NodeBooting, fleet.NodeReady, fleet.NodeCordoned}

func (m *planner) observeNode(now int64, w *World, i int32) {
	n, o := &w.nodes[i], &m.o.Nodes[m.place[i]]
	o.State, o.Used, o.Running, o.Starting = nodeStates[n.state], int(n.used), int(n.running), int(n.starting)
	o.Since, o.Requested = clock(n.requested), clock(n.requested)
	o.Residual = m.outlook.residual(now, w, i)
	w.nodes[i].prefer = plan.Prefer(o)
	if n.empty != Never && n.state != nodeBooting {
		o.Since = clock(n.empty)
	}
}
