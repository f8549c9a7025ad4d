package plan

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

func TestNodesRule08HeldTasksBringNoNode(t *testing.T) {
	o := cluster(50, host("a", 2))
	o.Queues[0].Pools[0].Held = 47
	if p, _ := Decide(t0, o, scalable(), State{}); scaledTo(p) != 0 {
		t.Errorf("47 of 50 wait for the cap of their tenant: scaled to %d", scaledTo(p))
	}
	o.Queues[0].Pools[0].Held = 30
	if p, _ := Decide(t0, o, scalable(), State{}); scaledTo(p) != 3 {
		t.Errorf("20 of 50 may run beside 2: scaled to %d, want 3", scaledTo(p))
	}
}

func TestNodesRule09BoundsBindWithAVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Observation, *Policy)
		nodes  int
		bound  Bound
		says   string
	}{
		"nodes.max":     {func(_ *Observation, p *Policy) { p.Nodes.Max = 3 }, 3, BoundNodesMax, "no more are allowed (bound: nodes.max = 3)"},
		"sandboxes.max": {func(_ *Observation, p *Policy) { p.Max = 20 }, 3, BoundMax, "capacity.sandboxes.max = 20"},
		"per hour": {func(o *Observation, p *Policy) { p.Budget.PerHour, o.Spend.HourMicroUSD = 40e6, 41_500_000 }, 1, BoundPerHour,
			"cap binds: waiting 40 tasks, $41.50 spent of $40.00"},
		"per day, and the sandboxes at their most": {func(o *Observation, p *Policy) { p.Budget.PerDay, o.Spend.DayMicroUSD, p.Max = 40e6, 41_500_000, 7 }, 1, BoundPerDay,
			"running work goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			o, p := cluster(40, host("a", 7)), scalable()
			c.change(&o, &p)
			got, _ := Decide(t0, o, p, State{})
			if got.Nodes.Desired != c.nodes || gone(got) != 0 {
				t.Errorf("desired %d, want %d: %+v", got.Nodes.Desired, c.nodes, got.Actions)
			}
			if r := got.Nodes.Reason; r.Bound != c.bound || !strings.Contains(r.Sentence(), c.says) {
				t.Errorf("bound %q, want %q with %q: %s", r.Bound, c.bound, c.says, r.Sentence())
			}
		})
	}
}

// TestNodesRule09MoneyIsNotBurntByBoots: a budget that has just a little left
// brings only the nodes that it can pay for until they are of use. All that the
// tasks ask for would use it up while they boot, again and again.
func TestNodesRule09MoneyIsNotBurntByBoots(t *testing.T) {
	p := scalable(func(p *Policy) { p.Budget = Budget{PerHour: 10_000_000, NodeHour: 1_000_000} })
	for left, want := range map[int64]int{1: 0, 200_000: 1, 400_000: 2, 10_000_000: 13} {
		o := cluster(100)
		o.Spend.HourMicroUSD = p.Budget.PerHour - left
		got, _ := Decide(t0, o, p, State{})
		if scaledTo(got) != want {
			t.Errorf("$%.2f left at $1 an hour each: scaled to %d, want %d", float64(left)/1e6, scaledTo(got), want)
		}
		if r := got.Nodes.Reason; want < 13 && (r.Bound != BoundPerHour || !strings.Contains(r.Sentence(), "of $10.00") || got.Wake.IsZero()) {
			t.Errorf("$%.2f left: %s", float64(left)/1e6, r.Sentence())
		}
	}
}

// TestNodesRule09EmptyNodesGoWhenTheMoneyIsSpent: nothing could start on them.
func TestNodesRule09EmptyNodesGoWhenTheMoneyIsSpent(t *testing.T) {
	p := scalable(func(p *Policy) { p.Budget = Budget{PerHour: 10_000_000, NodeHour: 1_000_000} })
	o := cluster(40, host("a", 3), host("b", 0), host("c", 0))
	o.Spend.HourMicroUSD = 10_000_001
	o.Outlook = &forecast.Outlook{Lead: 45 * time.Second, Mean: 20, Recent: 20, Prior: 1}
	if got, _ := Decide(t0, o, p, State{}); gone(got) != 2 || got.Nodes.Desired != 1 || got.Nodes.Reason.Cause != CauseBudget {
		t.Errorf("want the two empty ones gone and the verdict: %s", got.Nodes.Reason.Sentence())
	}
}

// TestNodesRule09HigherPriorityIsPlacedFirst: where only some of what waits
// finds room, low priority waits, and among equals none takes it all.
func TestNodesRule09HigherPriorityIsPlacedFirst(t *testing.T) {
	for _, c := range []struct{ priority, first, second int }{{10, 0, 8}, {0, 6, 2}} {
		p := scalable()
		p.Templates["other"] = TemplatePolicy{Priority: c.priority}
		o := observation(t0, pool("default"), pool("other"))
		o.Nodes = []Node{host("a", 0)}
		o.Queues[0].Pools[0].Backlog, o.Queues[0].Pools[1].Backlog = 60, 20
		got, _ := Decide(t0, o, p, State{})
		if a, b := count(got, StartSandboxes, "default"), count(got, StartSandboxes, "other"); a != c.first || b != c.second {
			t.Errorf("8 slots, 60 and 20 wait, the latter with priority %d: %d and %d start, want %d and %d", c.priority, a, b, c.first, c.second)
		}
	}
}

func TestNodesRule10EveryActionHasNumbers(t *testing.T) {
	leaving := host("c", 0, in(fleet.NodeCordoned))
	o := cluster(40, host("a", 8), leaving)
	scale, _ := Decide(t0, o, scalable(), State{})
	idleHost := host("local", 0, func(n *Node) { n.Used = 2 })
	x := observation(t0, pool("default", func(p *Pool) { idle(p, 2) }))
	x.Nodes = []Node{host("a", 0), idleHost}
	release, _ := Decide(t0, x, scalable(), State{})
	seen := map[Kind]bool{}
	for _, p := range []Plan{scale, release} {
		for _, a := range p.Actions {
			seen[a.Kind] = true
			if a.Reason == nil || a.Reason.Cause == "" || len(a.Reason.Numbers.Map()) < 3 {
				t.Errorf("%s without reason or numbers: %+v", a.Kind, a.Reason)
			}
		}
	}
	for _, k := range []Kind{ScaleNodes, UncordonNode, ReleaseNode, CordonNode} {
		if !seen[k] {
			t.Errorf("no %s was seen", k)
		}
	}
	if s := release.Nodes.Reason.Sentence(); !strings.HasPrefix(s, "2 empty nodes go") {
		t.Errorf("two nodes go: %s", s)
	}
}

// TestNodesRule10BreachIsProjected: 16 slots are free, a task comes every two
// seconds, and one may wait for 5 s: the nodes must be asked for one boot and
// one start before.
func TestNodesRule10BreachIsProjected(t *testing.T) {
	o := cluster(0, host("a", 0), host("b", 0))
	rates := make([]float32, 24)
	for i := range rates {
		rates[i] = 1
	}
	o.Outlook = &forecast.Outlook{Lead: 46 * time.Second, Mean: 23, Recent: 10, Rates: rates}
	p, _ := Decide(t0, o, scalable(), State{})
	b := p.Nodes.Reason.Breach
	if b == nil || !b.At.Equal(t0.Add(37*time.Second)) || !b.By.Equal(t0.Add(-10*time.Second)) || b.Nodes == 0 {
		t.Fatalf("breach %+v, want at 37 s, by -10 s", b)
	}
	if s := p.Nodes.Reason.Sentence(); !strings.Contains(s, "breached at 09:00:37") || !strings.Contains(s, "by 08:59:50") {
		t.Errorf("the sentence does not say so: %s", s)
	}
	// A bound that withholds the nodes does not withhold the warning.
	bounded := scalable(func(p *Policy) { p.Nodes.Max = 2 })
	if p, _ = Decide(t0, o, bounded, State{}); scaledTo(p) != 0 || p.Nodes.Reason.Breach == nil || p.Nodes.Reason.Breach.Nodes == 0 {
		t.Errorf("at the most: %s", p.Nodes.Reason.Sentence())
	}
	// From the oldest task that waits.
	p, _ = Decide(t0, cluster(20), scalable(), State{})
	if b = p.Nodes.Reason.Breach; b == nil || !b.At.Equal(t0.Add(4*time.Second)) || b.Nodes != 3 {
		t.Errorf("a task waits for a second, the objective is 5 s: %+v", b)
	}
	// What is over is not announced.
	o = cluster(20)
	o.Queues[0].Pools[0].Oldest = t0.Add(-time.Minute)
	p, _ = Decide(t0, o, scalable(), State{})
	if s := p.Nodes.Reason.Sentence(); !strings.Contains(s, "has been breached since 08:59:05; 3 nodes are missing") {
		t.Errorf("a task waits for a minute: %s", s)
	}
}

func TestNodesMinimumBillIsUsed(t *testing.T) {
	o := cluster(0, host("a", 0, func(n *Node) { n.Requested = t0.Add(-59 * time.Second) }))
	p, _ := Decide(t0, o, scalable(), State{})
	if gone(p) != 0 || !p.Wake.Equal(t0.Add(time.Second)) {
		t.Errorf("paid for another second: %d go, wakes at %s", gone(p), p.Wake)
	}
	o.Queues[0].AsOf = p.Wake
	if p, _ = Decide(p.Wake, o, scalable(), State{}); gone(p) != 1 {
		t.Errorf("after the minimum %d go", gone(p))
	}
}

func TestNodesMinimumStays(t *testing.T) {
	p := scalable(func(p *Policy) { p.Nodes.Min = 2 })
	if got, _ := Decide(t0, cluster(0), p, State{}); scaledTo(got) != 2 {
		t.Errorf("scaled to %d, want the minimum of 2", scaledTo(got))
	}
	if got, _ := Decide(t0, cluster(0, host("a", 0), host("b", 0), host("c", 0)), p, State{}); gone(got) != 1 {
		t.Errorf("%d of 3 go, want 1", gone(got))
	}
}

// TestNodesDecideAgainFromJournal: an observation read back from JSON, the
// outlook included, gives the same plan.
func TestNodesDecideAgainFromJournal(t *testing.T) {
	var r forecast.Ranks
	var v forecast.Outlook
	for i := range 2000 {
		r.Observe(t0.Add(time.Duration(i)*time.Second), int64(i/3), int64(i/4), 45*time.Second)
	}
	now := t0.Add(2000 * time.Second)
	r.Outlook(now, 45*time.Second, &v)
	o := cluster(5, host("a", 7), host("b", 0))
	o.Queues[0].AsOf, o.Outlook = now, &v
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var back Observation
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	p1, _ := Decide(now, o, scalable(), State{})
	p2, _ := Decide(now, back, scalable(), State{})
	j1, _ := json.Marshal(p1)
	j2, _ := json.Marshal(p2)
	if string(j1) != string(j2) {
		t.Errorf("decided differently:\n%s\n%s", j1, j2)
	}
}
