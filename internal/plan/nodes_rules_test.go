package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// The rules of demand integrity for the node layer; the tests carry the
// rule's number.

// scalable is a policy that brings nodes of eight slots.
func scalable(change ...func(*Policy)) Policy {
	p := policy()
	p.Nodes = NodePolicy{Scalable: true, Slots: 8, Size: Size{8000, 8 << 30, 8 << 20}, BootLead: 45 * time.Second}
	for _, c := range change {
		c(&p)
	}
	return p.WithDefaults()
}

// host is a node of eight slots, paid for long enough, with so many tasks.
func host(id string, running int, change ...func(*Node)) Node {
	n := Node{ID: fleet.NodeID(id), State: fleet.NodeReady, Slots: 8, Capacity: Size{8000, 8 << 30, 8 << 20}, Used: running, Running: running,
		Requested: t0.Add(-time.Hour), Since: t0.Add(-time.Hour)}
	n.UsedSize = Size{int64(running) * 1000, int64(running) << 30, int64(running) << 20}
	for _, c := range change {
		c(&n)
	}
	return n
}

func in(s fleet.NodeState) func(*Node) { return func(n *Node) { n.State = s } }

// cluster is an observation of one pool with a backlog on these nodes.
func cluster(backlog int, nodes ...Node) Observation {
	running := 0
	for _, n := range nodes {
		running += n.Running
	}
	o := observation(t0, pool("default", func(p *Pool) { p.Running = running }))
	o.Nodes = nodes
	o.backlog(backlog)
	if backlog > 0 {
		o.Queues[0].Pools[0].Oldest = t0.Add(-time.Second)
	}
	return o
}

// scaledTo is to how many nodes in all the plan scales; 0 when it does not.
func scaledTo(p Plan) int {
	for _, a := range p.Actions {
		if a.Kind == ScaleNodes {
			return a.N
		}
	}
	return 0
}

func gone(p Plan) int { return count(p, ReleaseNode, "") + count(p, CordonNode, "") }

func TestNodesRule01NothingGoesOnMissingSignals(t *testing.T) {
	fresh := cluster(0, host("a", 3), host("b", 0), host("c", 0))
	if p, _ := Decide(t0, fresh, scalable(), State{}); gone(p) != 2 {
		t.Fatalf("two empty nodes, %d go: the test shows nothing", gone(p))
	}
	for name, f := range map[string]func(*Observation){
		"queue error": func(o *Observation) { o.Queues[0] = Queue{Name: "q", AsOf: t0, Error: "connection refused"} },
		"old reading": func(o *Observation) { o.Queues[0].AsOf = t0.Add(-time.Hour) },
		"no queue":    func(o *Observation) { o.Queues = nil },
		"nodes error": func(o *Observation) { o.NodesError = "list nodes: timeout" },
	} {
		t.Run(name, func(t *testing.T) {
			o := cluster(0, fresh.Nodes...)
			o.Nodes[0].Running, o.Nodes[0].Used = 3, 3
			f(&o)
			p, _ := Decide(t0, o, scalable(), State{})
			if gone(p) != 0 {
				t.Errorf("%d nodes go: %+v", gone(p), p.Actions)
			}
			if s := p.Nodes.Reason.Sentence(); p.Nodes.Reason.Bound != BoundSignal || !strings.Contains(s, "frozen") {
				t.Errorf("the reason does not say so: %s", s)
			}
			if o.Queues == nil || o.NodesError == "" {
				return
			}
			// Scale-out goes on.
			o.backlog(20)
			if p, _ = Decide(t0, o, scalable(), State{}); p.Nodes.Desired < 3 {
				t.Errorf("desired %d nodes for 23 tasks", p.Nodes.Desired)
			}
		})
	}
}

func TestNodesRule02RunningTasksAreDemand(t *testing.T) {
	// The running ones take 14 of 16 slots; the queue is empty.
	p, _ := decideFor(time.Hour, cluster(0, host("a", 7), host("b", 7)), scalable(), State{})
	if p.Nodes.Desired != 2 || gone(p) != 0 {
		t.Errorf("desired %d, %d go", p.Nodes.Desired, gone(p))
	}
	// What runs on a cordoned or leaving node is no demand for another one.
	for _, s := range []fleet.NodeState{fleet.NodeCordoned, fleet.NodeDraining} {
		p, _ = Decide(t0, cluster(0, host("a", 7), host("b", 7, in(s))), scalable(), State{})
		if scaledTo(p) != 0 || count(p, UncordonNode, "") != 0 {
			t.Errorf("7 tasks on a node that is %s bring another: %+v", s, p.Actions)
		}
	}
}

func TestNodesRule03BootingIsSupply(t *testing.T) {
	p, s := Decide(t0, cluster(20), scalable(), State{})
	if scaledTo(p) != 3 {
		t.Fatalf("20 tasks and no node: scaled to %d, want 3", scaledTo(p))
	}
	booting := []Node{host("a", 0, in(fleet.NodeBooting)), host("b", 0, in(fleet.NodeBooting)), host("c", 0, in(fleet.NodeBooting))}
	if p, _ = decideFor(time.Minute, cluster(20, booting...), scalable(), s); scaledTo(p) != 0 {
		t.Errorf("3 nodes boot for 20 tasks: scaled to %d", scaledTo(p))
	}
	// Four more tasks still fit, five do not.
	if p, _ = Decide(t0, cluster(24, booting...), scalable(), s); scaledTo(p) != 0 {
		t.Errorf("24 tasks fit in 3 nodes: scaled to %d", scaledTo(p))
	}
	if p, _ = Decide(t0, cluster(25, booting...), scalable(), s); scaledTo(p) != 4 {
		t.Errorf("25 tasks: scaled to %d, want 4", scaledTo(p))
	}
	// Idle stock of another pool that makes room is supply, too.
	o := observation(t0, pool("default"), pool("other", func(p *Pool) { idle(p, 8) }))
	o.Nodes = []Node{host("local", 0, func(n *Node) { n.Used = 8; n.UsedSize = n.Capacity })}
	o.backlog(1)
	if p, _ = Decide(t0, o, scalable(), State{}); count(p, DrainSandbox, "") != 1 || scaledTo(p) != 0 {
		t.Errorf("1 task waits, and 8 idle ones of another pool hold the node: %+v", p.Actions)
	}
}

func TestNodesRule04ForecastOnlyAdds(t *testing.T) {
	quiet := &forecast.Outlook{Lead: 45 * time.Second}
	busy := &forecast.Outlook{Lead: 45 * time.Second, Mean: 9, Recent: 20, Prior: 1, Rates: []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}
	for backlog := range 40 {
		want := (backlog + 7) / 8
		for name, v := range map[string]*forecast.Outlook{"nil": nil, "zero": {}, "quiet": quiet} {
			o := cluster(backlog)
			o.Outlook = v
			if p, _ := Decide(t0, o, scalable(), State{}); p.Nodes.Desired != want {
				t.Errorf("%d tasks, outlook %s: %d nodes, want %d", backlog, name, p.Nodes.Desired, want)
			}
		}
		o := cluster(backlog)
		o.Outlook = busy
		if p, _ := Decide(t0, o, scalable(), State{}); p.Nodes.Desired <= want {
			t.Errorf("%d tasks and a busy outlook: %d nodes, want more than %d", backlog, p.Nodes.Desired, want)
		}
	}
}

// TestNodesRule04FloorBringsNodesOneBootEarly: a window that opens at nine has
// its sandboxes at nine, so its nodes are asked for a boot and a start earlier.
func TestNodesRule04FloorBringsNodesOneBootEarly(t *testing.T) {
	opens := t0.Add(10 * time.Minute)
	at := func(now time.Time, nodes ...Node) (Observation, Plan) {
		o := cluster(0, nodes...)
		o.Queues[0].AsOf = now
		o.Floors = []Floor{{Template: "default", Name: "0 9 * * *", From: opens, Until: opens.Add(time.Hour), Min: 20}}
		p, _ := Decide(now, o, scalable(), State{})
		return o, p
	}
	early := opens.Add(-47 * time.Second) // 45 s of boot, 2 s of start
	if _, p := at(t0); scaledTo(p) != 0 || !p.Wake.Equal(early) {
		t.Errorf("ten minutes before: %+v, wakes at %s, want %s", p.Actions, p.Wake, early)
	}
	if _, p := at(early.Add(-time.Millisecond)); scaledTo(p) != 0 {
		t.Errorf("a millisecond too early: scaled to %d", scaledTo(p))
	}
	if _, p := at(early); scaledTo(p) != 3 {
		t.Errorf("one lead time early: scaled to %d, want 3 nodes for 20 sandboxes", scaledTo(p))
	}
	// Empty nodes stay while the window is open, and go after it.
	full := []Node{host("a", 0), host("b", 0), host("c", 0)}
	if _, p := at(opens.Add(30*time.Minute), full...); gone(p) != 0 || count(p, StartSandboxes, "") != 20 {
		t.Errorf("in the window: %+v", p.Actions)
	}
	if _, p := at(opens.Add(time.Hour), full...); gone(p) != 3 {
		t.Errorf("after the window %d of 3 nodes go", gone(p))
	}
}

func TestNodesRule05BusyNodesNeverGoAndUncordonComesFirst(t *testing.T) {
	p, _ := decideFor(time.Hour, cluster(0, host("a", 1), host("b", 1), host("c", 1), host("d", 1, in(fleet.NodeCordoned))), scalable(), State{})
	if gone(p) != 0 {
		t.Errorf("nodes with a task go: %+v", p.Actions)
	}
	for name, c := range map[string]struct {
		change func(*Observation, *Policy)
		scaled int
	}{
		"free to scale": {func(*Observation, *Policy) {}, 4},
		"at the most":   {func(_ *Observation, p *Policy) { p.Nodes.Max = 2 }, 0},
		"boots fail":    {func(o *Observation, _ *Policy) { o.NodesFailed = 9 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o, p := cluster(20, host("a", 8), host("b", 0, in(fleet.NodeCordoned))), scalable()
			c.change(&o, &p)
			got, _ := Decide(t0, o, p, State{})
			if count(got, UncordonNode, "") != 1 || scaledTo(got) != c.scaled {
				t.Errorf("want b taken back and %d nodes in all: %+v", c.scaled, got.Actions)
			}
			for _, a := range got.Actions {
				if a.Kind == ScaleNodes {
					t.Fatal("scaled before a cordoned node was taken back")
				} else if a.Kind == UncordonNode {
					break
				}
			}
		})
	}
}

// TestNodesRule05OccupiedNodesAreDrainedFirst: warm sandboxes on an empty node
// are drained by name and the node cordoned; it is released once nothing is on
// it.
func TestNodesRule05OccupiedNodesAreDrainedFirst(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { idle(p, 2) }))
	o.Nodes = []Node{host("local", 0, func(n *Node) { n.Used = 2 })}
	p, _ := Decide(t0, o, scalable(), State{})
	if count(p, CordonNode, "") != 1 || count(p, DrainSandbox, "") != 2 || count(p, ReleaseNode, "") != 0 || p.Nodes.Desired != 0 {
		t.Errorf("want it cordoned and both drained: %+v", p.Actions)
	}
	o.Nodes[0].State = fleet.NodeCordoned
	o.Pools[0] = pool("default", func(p *Pool) { p.Draining = []Idle{{ID: "x", Node: "local", Since: t0, Created: t0}} })
	o.Nodes[0].Used = 1
	if p, _ = Decide(t0, o, scalable(), State{}); count(p, ReleaseNode, "") != 0 {
		t.Errorf("released with a sandbox on it: %+v", p.Actions)
	}
	o.Pools[0], o.Nodes[0].Used = pool("default"), 0
	if p, _ = Decide(t0, o, scalable(), State{}); count(p, ReleaseNode, "") != 1 {
		t.Errorf("empty and cordoned, and not released: %+v", p.Actions)
	}
}

// TestNodesRule06FailingBootsDoNotMultiply: a zone without machines is asked
// again with back-off, one node at a time, and the reason says so.
func TestNodesRule06FailingBootsDoNotMultiply(t *testing.T) {
	const boot = 20
	p := scalable()
	var s State
	var plan Plan
	var booting []int // second at which each fails
	failed, asked, most := int64(0), 0, 0
	for i := range 3600 {
		later := booting[:0]
		for _, at := range booting {
			if at > i {
				later = append(later, at)
			} else {
				failed++
			}
		}
		booting = later
		now := t0.Add(time.Duration(i) * time.Second)
		o := cluster(40)
		o.Queues[0].AsOf, o.NodesFailed, o.NodeFailure = now, failed, "no capacity in zone a"
		for k := range booting {
			o.Nodes = append(o.Nodes, host(fmt.Sprint("n", k), 0, in(fleet.NodeBooting)))
		}
		plan, s = Decide(now, o, p, s)
		if n := scaledTo(plan); n > 0 {
			asked += n - len(booting)
			for len(booting) < n {
				booting = append(booting, i+boot)
			}
		}
		if i > boot {
			most = max(most, len(booting))
		}
	}
	if asked > 5+3600/(boot+60)+8 || most > 1 {
		t.Errorf("an hour without machines: %d asked for, up to %d at once after the first wave", asked, most)
	}
	r := plan.Nodes.Reason
	if text := r.Sentence(); r.Cause != CauseBreaker || r.Bound != BoundBreaker || !strings.Contains(text, "no capacity in zone a") ||
		!strings.Contains(text, "boots failed in a row") {
		t.Errorf("the reason is not visible: %s", text)
	}
	// One that boots closes it.
	o := cluster(40, host("a", 0))
	o.NodesFailed, o.NodesStarted = failed, 1
	if plan, _ = Decide(t0.Add(2*time.Hour), o, p, s); scaledTo(plan) != 5 {
		t.Errorf("after a boot that went well: scaled to %d, want 5", scaledTo(plan))
	}
}

// TestNodesRule06BrokenTemplateBringsNoNodes: tasks whose sandboxes do not
// start are no reason to pay for nodes.
func TestNodesRule06BrokenTemplateBringsNoNodes(t *testing.T) {
	o := cluster(40)
	o.Pools[0].Failed, o.Pools[0].Failure, o.Pools[0].Proven = 9, "npm ci: exit code 1", true
	s := State{Pools: []PoolState{{Key: "default", Breaker: Breaker{Revision: "r1", Failures: 6, Opened: 4, Failed: 9, RetryAt: t0.Add(time.Minute)}}}}
	if p, _ := Decide(t0, o, scalable(), s); scaledTo(p) != 0 {
		t.Errorf("nothing can start and the fleet scales to %d", scaledTo(p))
	}
	s.Pools[0].Breaker.RetryAt = t0
	if p, _ := Decide(t0, o, scalable(), s); scaledTo(p) != 1 {
		t.Errorf("the probe needs 1 node and the fleet scales to %d", scaledTo(p))
	}
}

// TestNodesRule06UnschedulableBringsNoNodes: a sandbox that is larger than a
// new node fits on none of any number.
func TestNodesRule06UnschedulableBringsNoNodes(t *testing.T) {
	for _, nodes := range [][]Node{nil, {host("a", 0)}} {
		o := cluster(4, nodes...)
		o.Pools[0].Size.MemoryBytes = 1 << 40
		p, _ := Decide(t0, o, scalable(), State{})
		if r := p.Pools[0].Reason; scaledTo(p) != 0 || len(nodes) > 0 && r.Bound != BoundMemory || !strings.Contains(r.Sentence(), "largest node") {
			t.Errorf("scaled to %d; %s", scaledTo(p), r.Sentence())
		}
	}
	// Larger than the nodes there are, and smaller than a new one: it is brought.
	small := host("a", 0, func(n *Node) { n.Capacity.MemoryBytes = 1 << 30 })
	o := cluster(4, small)
	o.Pools[0].Size.MemoryBytes = 4 << 30
	if p, _ := Decide(t0, o, scalable(), State{}); scaledTo(p) < 2 {
		t.Errorf("4 tasks, two a new node: scaled to %d; %s", scaledTo(p), p.Pools[0].Reason.Sentence())
	}
	// Tasks of a template that is gone bring none either.
	o = cluster(30)
	o.Pools[0].Unknown = true
	if p, _ := Decide(t0, o, scalable(), State{}); scaledTo(p) != 0 {
		t.Errorf("no template, and scaled to %d", scaledTo(p))
	}
}
