package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// anyCluster draws worlds of nodes that come and go.
func anyCluster(t *rapid.T, now time.Time) Observation {
	var o Observation
	q := Queue{Name: "q", AsOf: now.Add(-time.Duration(rapid.IntRange(0, 12).Draw(t, "age")) * time.Second)}
	if rapid.IntRange(0, 9).Draw(t, "outage") == 0 {
		q.Error = "down"
	}
	if rapid.IntRange(0, 9).Draw(t, "nodes outage") == 0 {
		o.NodesError = "down"
	}
	states := []fleet.NodeState{fleet.NodeReady, fleet.NodeReady, fleet.NodeReady, fleet.NodeBooting, fleet.NodeCordoned, fleet.NodeDraining, "other"}
	for i := range rapid.IntRange(0, 8).Draw(t, "nodes") {
		n := host(fmt.Sprint("n", i), 0, in(rapid.SampledFrom(states).Draw(t, "state")))
		n.Requested = now.Add(-time.Duration(rapid.IntRange(0, 600).Draw(t, "requested")) * time.Second)
		n.Residual = time.Duration(rapid.IntRange(0, 600).Draw(t, "residual")) * time.Second
		n.Slots = rapid.SampledFrom([]int{8, 8, 8, 4, 16, 0}).Draw(t, "slots")
		o.Nodes = append(o.Nodes, n)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "pools") {
		p, d := anyPool(t, now, i, o.Nodes)
		o.Pools, q.Pools = append(o.Pools, p), append(q.Pools, d)
	}
	o.NodesStarted, o.NodesFailed = int64(rapid.IntRange(0, 3).Draw(t, "booted")), int64(rapid.IntRange(0, 5).Draw(t, "boots failed"))
	o.NodeLead.P95 = time.Duration(rapid.IntRange(0, 120).Draw(t, "lead")) * time.Second
	o.Spend.HourMicroUSD = int64(rapid.IntRange(0, 3_000_000).Draw(t, "spent"))
	if rapid.Bool().Draw(t, "outlook known") {
		o.Outlook = anyOutlook(t, now)
	}
	if rapid.Bool().Draw(t, "floor") {
		from := now.Add(time.Duration(rapid.IntRange(-100, 100).Draw(t, "from")) * time.Second)
		o.Floors = []Floor{{Template: "default", Name: "f", From: from, Until: from.Add(time.Minute), Min: rapid.IntRange(0, 30).Draw(t, "min")}}
	}
	o.Queues = []Queue{q}
	return o
}

func anyPool(t *rapid.T, now time.Time, i int, nodes []Node) (Pool, Demand) {
	p := pool(fmt.Sprint("p", i), func(p *Pool) {
		p.Template = "default"
		p.Unknown = rapid.IntRange(0, 19).Draw(t, "unknown") == 0
		p.Failed = int64(rapid.IntRange(0, 4).Draw(t, "failed"))
		p.Size.MemoryBytes = rapid.SampledFrom([]int64{1 << 30, 1 << 30, 3 << 30, 1 << 40}).Draw(t, "memory")
	})
	for k := range nodes {
		n := &nodes[k]
		if n.State == fleet.NodeBooting {
			continue
		}
		for range rapid.IntRange(0, 3).Draw(t, "boxes") {
			n.Used++
			x := Idle{ID: fleet.SandboxID(fmt.Sprint(p.Key, n.ID, n.Used)), Node: n.ID, Created: now, Since: now.Add(-time.Minute)}
			switch rapid.IntRange(0, 4).Draw(t, "box") {
			case 0:
				p.Starting++
				n.Starting++
			case 1:
				p.Draining = append(p.Draining, x)
			case 2:
				p.Ready++
				p.Idle = append(p.Idle, x)
			default:
				p.Running++
				n.Running++
			}
		}
	}
	d := Demand{Pool: p.Key, Backlog: rapid.IntRange(0, 60).Draw(t, "backlog"), InFlight: p.Running, Priority: rapid.IntRange(-3, 3).Draw(t, "priority"),
		Arrived: int64(rapid.IntRange(0, 500).Draw(t, "arrived")), Oldest: now.Add(-time.Second)}
	d.Held = rapid.IntRange(0, d.Backlog).Draw(t, "held")
	return p, d
}

func anyOutlook(t *rapid.T, now time.Time) *forecast.Outlook {
	v := &forecast.Outlook{
		Lead: 45 * time.Second, Mean: rapid.Float64Range(0, 50).Draw(t, "mean"), Recent: rapid.IntRange(0, 50).Draw(t, "recent"),
		Prior: rapid.Float64Range(0, 1).Draw(t, "prior"), Next: now.Add(time.Minute),
	}
	for range rapid.IntRange(0, 47).Draw(t, "rates") {
		v.Rates = append(v.Rates, rapid.Float32Range(0, 0.5).Draw(t, "rate"))
	}
	return v
}

func TestNodeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := scalable(func(p *Policy) {
			p.Max = rapid.SampledFrom([]int{0, 20, 80}).Draw(t, "max")
			p.Nodes.Max = rapid.SampledFrom([]int{0, 4, 12}).Draw(t, "most nodes")
			p.Nodes.Min = rapid.IntRange(0, 3).Draw(t, "least nodes")
			p.Budget = Budget{PerHour: rapid.SampledFrom([]int64{0, 2_000_000}).Draw(t, "budget"), NodeHour: 400_000}
		})
		now := t0
		var s State
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-30, 90).Draw(t, "step")) * time.Second)
			o := anyCluster(t, now)
			before := mustJSON(t, o, s)
			got, next := Decide(now, o, p, s)
			if after := mustJSON(t, o, s); before != after {
				t.Fatal("Decide changed what it was given")
			}
			back := throughJSON(t, o)
			again, nextAgain := Decide(now, back, p, reread(t, s))
			if mustJSON(t, got) != mustJSON(t, again) || mustJSON(t, next) != mustJSON(t, nextAgain) {
				t.Fatal("an observation read back is decided differently")
			}
			if same, _ := Decide(now, o, p, s); !reflect.DeepEqual(got, same) {
				t.Fatal("Decide is not deterministic")
			}
			checkTerse(t, now, &o, &p, &s)
			checkNodes(t, now, &o, &p, &got)
			s = reread(t, next)
		}
	})
}

func throughJSON(t *rapid.T, o Observation) (out Observation) {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkNodes holds the rules against a plan.
func checkNodes(t *rapid.T, now time.Time, o *Observation, p *Policy, got *Plan) {
	nodes := map[fleet.NodeID]*Node{}
	exist := 0
	for i := range o.Nodes {
		nodes[o.Nodes[i].ID] = &o.Nodes[i]
		if s := o.Nodes[i].State; s != "other" {
			exist++
		}
	}
	done := map[fleet.NodeID]Kind{}
	started := map[fleet.NodeID]bool{}
	for _, a := range got.Actions {
		if a.Reason == nil || a.Reason.Sentence() == "" {
			t.Fatalf("no reason: %+v", a)
		}
		if a.Kind == StartSandboxes || a.Kind == UndrainSandbox {
			started[a.Node] = true
		}
		switch a.Kind {
		case ScaleNodes:
			checkScale(t, o, p, &a, exist)
		case UncordonNode, CordonNode, ReleaseNode:
			n := nodes[a.Node]
			if n == nil || done[a.Node] != "" || started[a.Node] && a.Kind != UncordonNode {
				t.Fatalf("%s of %s: unknown, twice, or in use: %+v", a.Kind, a.Node, got.Actions)
			}
			done[a.Node] = a.Kind
			checkGoing(t, &a, n, got.Frozen() || o.NodesError != "", now.Before(n.Requested.Add(p.Nodes.MinBill)))
		}
	}
	checkEnough(t, o, p, got)
}

func checkScale(t *rapid.T, o *Observation, p *Policy, a *Action, exist int) {
	if a.N <= exist {
		t.Fatalf("scaled to %d where there are %d", a.N, exist)
	}
	if p.Nodes.Max > 0 && a.N > p.Nodes.Max {
		t.Fatalf("scaled to %d, the most is %d", a.N, p.Nodes.Max)
	}
	if most := (p.Max + p.Nodes.Slots - 1) / p.Nodes.Slots; p.Max > 0 && a.N > most {
		t.Fatalf("scaled to %d, and %d hold the most sandboxes", a.N, most)
	}
	if p.Budget.PerHour > 0 && o.Spend.HourMicroUSD >= p.Budget.PerHour {
		t.Fatalf("scaled to %d with the money spent", a.N)
	}
}

// checkGoing: blind says that signals are missing, paid that the node has to be
// paid for anyway.
func checkGoing(t *rapid.T, a *Action, n *Node, blind, paid bool) {
	if a.Kind == UncordonNode {
		if n.State != fleet.NodeCordoned {
			t.Fatalf("uncordon of %+v", n)
		}
		return
	}
	if n.Running > 0 || a.Kind == ReleaseNode && n.Used > 0 {
		t.Fatalf("%s of a node in use: %+v", a.Kind, n)
	}
	if blind {
		t.Fatalf("%s on missing signals", a.Kind)
	}
	if n.State != fleet.NodeReady && n.State != fleet.NodeCordoned {
		t.Fatalf("%s of a node that is %s", a.Kind, n.State)
	}
	if n.State == fleet.NodeReady && paid {
		t.Fatalf("%s of a node that is paid for", a.Kind)
	}
}

// checkEnough: the slots of what is desired hold all that waits and runs, or
// the layer's reason names what bounds it.
func checkEnough(t *rapid.T, o *Observation, p *Policy, got *Plan) {
	x := &got.Nodes
	if x.Desired < 0 {
		t.Fatalf("desired %d", x.Desired)
	}
	if x.Reason.Bound != BoundNone && x.Reason.Bound != BoundSignal {
		return
	}
	if x.Desired < p.Nodes.Min {
		t.Fatalf("desired %d, the least is %d: %s", x.Desired, p.Nodes.Min, x.Reason.Sentence())
	}
	going := map[fleet.NodeID]bool{}
	for _, a := range got.Actions {
		if a.Kind == CordonNode || a.Kind == ReleaseNode {
			going[a.Node] = true
		}
	}
	slots := 0 // of nodes that stay or boot, and of those to bring
	for i := range o.Nodes {
		n := &o.Nodes[i]
		if s := n.State; s == fleet.NodeReady || s == fleet.NodeBooting {
			x := n.Slots
			if x <= 0 {
				x = p.Nodes.Slots
			}
			if !going[n.ID] {
				slots += x
			}
		} else {
			slots += n.Running
		}
	}
	slots += max(0, x.Desired-x.Reason.Numbers.Ready-x.Reason.Numbers.Starting) * p.Nodes.Slots
	want := 0
	for i := range o.Pools {
		w := &o.Pools[i]
		d := &o.Queues[0].Pools[i]
		want += w.Running
		if !w.Unknown && got.Pools[i].Breaker.Failures == 0 && w.Size.MemoryBytes == 1<<30 && got.Signal == "" {
			want += d.Backlog - d.Held
		}
	}
	if slots < want {
		t.Fatalf("%d slots for %d: %s", slots, want, x.Reason.Sentence())
	}
}
