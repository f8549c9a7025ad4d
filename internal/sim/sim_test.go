package sim

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/sim/trace"
)

// t0 is a Monday.
var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func seconds(at, long int64) trace.Row {
	return trace.Row{Arrival: t0.UnixMilli() + at*1000, Duration: long * 1000}
}

func simulate(t *testing.T, c Config, name string) Result {
	t.Helper()
	s, err := Look(&c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Simulate(&c, s, name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReactiveByHand: a boot, a cold start, the work, the hold; a second task
// on the same node waits for a cold start alone.
func TestReactiveByHand(t *testing.T) {
	c := Config{Trace: trace.Rows{seconds(0, 100), seconds(60, 30)}, Model: Defaults(), From: t0, To: t0.Add(time.Hour)}
	r := simulate(t, c, "reactive")
	// 45 + 5 + 100 s, then empty for 45 s.
	if r.NodeSeconds != 195 || r.Launches != 1 || r.PeakNodes != 1 {
		t.Errorf("%v node-seconds, %d launches, %d nodes; want 195, 1, 1", r.NodeSeconds, r.Launches, r.PeakNodes)
	}
	if r.WaitP50 != 5 || r.WaitP99 != 50 || r.ShareOver10s != 0.5 || r.ShareOver60s != 0 || r.Tasks != 2 {
		t.Errorf("waits %v and %v, over 10 s %v; want 5, 50, 0.5", r.WaitP50, r.WaitP99, r.ShareOver10s)
	}
	if want := 195.0 / 3600 * 0.4; r.CostUSD < want-1e-9 || r.CostUSD > want+1e-9 {
		t.Errorf("cost %v, want %v", r.CostUSD, want)
	}
}

func TestFixedByHand(t *testing.T) {
	rows := trace.Rows{seconds(0, 100)}
	for i := range int64(9) {
		rows = append(rows, seconds(200+i, 100))
	}
	c := Config{Trace: rows, Model: Defaults(), From: t0, To: t0.Add(1000 * time.Second)}
	r := simulate(t, c, "fixed")
	if r.NodeSeconds != 2000 || r.PeakNodes != 2 || r.MaxWait != 0 {
		t.Errorf("%v node-seconds, %d nodes, longest wait %v; want 2 nodes for 1000 s and no wait", r.NodeSeconds, r.PeakNodes, r.MaxWait)
	}
	if r = simulate(t, c, "fixed-p99"); r.PeakNodes != 2 {
		t.Errorf("the 99th percentile of demand is 9 tasks: %d nodes", r.PeakNodes)
	}
}

func TestLeastBill(t *testing.T) {
	m := Defaults()
	m.Boot, m.ColdStart, m.Hold = Constant(time.Second), Constant(time.Second), 0
	c := Config{Trace: trace.Rows{seconds(0, 3)}, Model: m, From: t0, To: t0.Add(time.Hour)}
	if r := simulate(t, c, "reactive"); r.NodeSeconds != 60 {
		t.Errorf("a node used for 5 s is billed %v s, want 60", r.NodeSeconds)
	}
}

// TestStockOut: a node asked for in a stock-out boots, and is paid, from its
// end on.
func TestStockOut(t *testing.T) {
	m := Defaults()
	m.StockOuts = []Window{{From: t0.Add(-time.Hour), Until: t0.Add(600 * time.Second)}}
	c := Config{Trace: trace.Rows{seconds(0, 100)}, Model: m, From: t0, To: t0.Add(time.Hour)}
	for _, name := range []string{"reactive", "muster"} {
		if r := simulate(t, c, name); r.MaxWait != 650 || r.NodeSeconds > 400 {
			t.Errorf("%s: wait %v, %v node-seconds; want 650 and what is paid from minute 10 on", name, r.MaxWait, r.NodeSeconds)
		}
	}
}

// TestNodeFailuresLoseNoTask: with nodes dying every few minutes all tasks
// still end.
func TestNodeFailuresLoseNoTask(t *testing.T) {
	m := Defaults()
	m.NodeFailures = 6
	for _, name := range Names() {
		c := Config{Trace: bursts(300, 3), Model: m}
		s, err := Look(&c)
		if err != nil {
			t.Fatal(err)
		}
		c.To = trace.Time(s.Close).Add(48 * time.Hour)
		if r := simulate(t, c, name); r.Tasks != 300 || name != Clairvoyant && r.Lost == 0 {
			t.Errorf("%s: %d of 300 tasks counted, %d begun again", name, r.Tasks, r.Lost)
		}
	}
}

// TestFailingStarts: the fleet gets through, and muster's breaker with it.
func TestFailingStarts(t *testing.T) {
	m := Defaults()
	m.StartFailures = 0.3
	for _, name := range []string{"reactive", "muster", "keda"} {
		c := Config{Trace: bursts(500, 5), Model: m}
		if r := simulate(t, c, name); r.Tasks != 500 {
			t.Errorf("%s: %d of 500 tasks", name, r.Tasks)
		}
	}
}

// TestSameSeedSameResult, to the last bit, and another seed another one.
func TestSameSeedSameResult(t *testing.T) {
	m := Defaults()
	m.Boot, m.ColdStart = Lead{Kind: "lognormal", Median: 45 * time.Second, Sigma: 0.5}, Lead{Kind: "uniform", Low: time.Second, High: 9 * time.Second}
	m.NodeFailures, m.StartFailures = 0.5, 0.05
	for _, name := range Names() {
		c := Config{Trace: bursts(2000, 9), Model: m}
		a, b := simulate(t, c, name), simulate(t, c, name)
		if a != b {
			t.Errorf("%s: %+v then %+v", name, a, b)
		}
		c.Model.Seed = 2
		if other := simulate(t, c, name); name != Clairvoyant && other == a {
			t.Errorf("%s: another seed gives the same", name)
		}
	}
}

// drawCase draws a small trace and a world.
func drawCase(t *rapid.T) (*Config, *Survey) {
	var rows trace.Rows
	at := t0.UnixMilli()
	for range rapid.IntRange(1, 60).Draw(t, "tasks") {
		if rapid.IntRange(0, 3).Draw(t, "again") > 0 {
			at += rapid.Int64Range(0, 400_000).Draw(t, "gap")
		}
		rows = append(rows, trace.Row{Arrival: at, Duration: rapid.Int64Range(0, 900_000).Draw(t, "work")})
	}
	m := Defaults()
	m.Slots = rapid.IntRange(1, 5).Draw(t, "slots")
	m.Boot = Constant(time.Duration(rapid.IntRange(0, 90).Draw(t, "boot")) * time.Second)
	m.ColdStart = Constant(time.Duration(rapid.IntRange(0, 20).Draw(t, "cold")) * time.Second)
	m.Seed = rapid.Uint64().Draw(t, "seed")
	if rapid.Bool().Draw(t, "faults") {
		m.NodeFailures, m.StartFailures = 2, 0.2
	}
	c := &Config{Trace: rows, Model: m, From: t0}
	s, err := Look(c)
	if err != nil {
		t.Fatal(err)
	}
	c.To = trace.Time(s.Close).Add(12 * time.Hour)
	if s, err = Look(c); err != nil {
		t.Fatal(err)
	}
	return c, s
}

// audit recounts the world and holds it against its counters.
func audit(t interface{ Fatalf(string, ...any) }, w *World) {
	used, running := make([]int32, len(w.nodes)), make([]int32, len(w.nodes))
	var states [boxDraining + 1]int
	for i := range w.boxes {
		b := &w.boxes[i]
		states[b.state]++
		if b.state == boxGone {
			continue
		}
		used[b.node]++
		if b.state == boxRunning {
			running[b.node]++
		}
		if b.place >= w.nodes[b.node].used || w.carried[int(b.node)*w.m.Slots+int(b.place)] != int32(i) {
			t.Fatalf("sandbox %d is not in its place on node %d", i, b.node)
		}
		if s := w.nodes[b.node].state; s != nodeReady && s != nodeCordoned {
			t.Fatalf("a sandbox is on a node in state %d", s)
		}
	}
	alive := 0
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state == nodeGone {
			continue
		}
		alive++
		if n.used != used[i] || n.running != running[i] || int(n.used) > w.m.Slots {
			t.Fatalf("node %d counts %d sandboxes, %d running; there are %d and %d, of %d slots", i, n.used, n.running, used[i], running[i], w.m.Slots)
		}
	}
	var p Pool
	waiting := 0
	for i := range w.Pools {
		x := &w.Pools[i]
		p.Ready, p.Starting, p.Running, p.Draining = p.Ready+x.Ready, p.Starting+x.Starting, p.Running+x.Running, p.Draining+x.Draining
		waiting += x.queue.n
		if x.Arrived != x.Finished+int64(x.Demand()) {
			t.Fatalf("%d tasks arrived, %d ended, %d are there", x.Arrived, x.Finished, x.Demand())
		}
		if x.Ready > 0 && x.queue.n > 0 {
			t.Fatalf("%d tasks wait beside %d ready sandboxes", x.queue.n, x.Ready)
		}
	}
	want := []int{p.Starting, p.Ready, p.Running, p.Draining}
	if !slices.Equal(states[boxStarting:], want) || alive != w.alive || waiting != w.waiting || p.Running != w.running {
		t.Fatalf("counted %v, %d nodes; there are %v, %d", want, w.alive, states[boxStarting:], alive)
	}
}

// TestEveryRunAddsUp: no task is lost, each starts and ends once, no node
// holds more than its slots, and the bill is the time nodes were there.
func TestEveryRunAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, s := drawCase(t)
		c.Model.MinBill = 0
		c.Buckets = 50
		name := rapid.SampledFrom(Names()[:8]).Draw(t, "policy")
		var last *World
		c.after = func(w *World) {
			last = w
			audit(t, w)
		}
		r, err := Simulate(c, s, name)
		if err != nil {
			t.Fatal(err)
		}
		p := &last.Pools[0]
		if n := int64(len(c.Trace.(trace.Rows))); r.Tasks != n || p.Arrived != n || p.Finished != n {
			t.Fatalf("%s: %d tasks; %d started, %d arrived, %d ended", name, n, r.Tasks, p.Arrived, p.Finished)
		}
		var nodes int64
		for _, x := range r.Series.Parts {
			nodes += x.Nodes
		}
		if nodes != int64(math.Round(r.NodeSeconds*1000)) {
			t.Fatalf("%s: nodes were there for %d ms, and %v s are billed", name, nodes, r.NodeSeconds)
		}
	})
}

// TestSeveralPools: tasks only get sandboxes of their template.
func TestSeveralPools(t *testing.T) {
	rows := bursts(3000, 11)
	for i := range rows {
		rows[i].Class = int32(i % 3)
	}
	for _, name := range Names() {
		c := Config{Trace: rows, Model: Defaults(), Pools: []string{"web", "api", "data"}}
		if name != Clairvoyant {
			c.after = func(w *World) {
				if w.now%7 == 0 { // now and then
					audit(t, w)
				}
			}
		}
		if r := simulate(t, c, name); r.Tasks != 3000 {
			t.Errorf("%s: %d of 3000 tasks", name, r.Tasks)
		}
	}
}

// TestWarmUpIsNotCounted: only tasks and money of the window.
func TestWarmUpIsNotCounted(t *testing.T) {
	c := Config{Trace: trace.Rows{seconds(-500, 400), seconds(100, 50)}, Model: Defaults(), From: t0, To: t0.Add(time.Hour)}
	r := simulate(t, c, "reactive")
	if r.Tasks != 1 || r.NodeSeconds != 45+5+50+45 {
		t.Errorf("%d tasks, %v node-seconds; want 1 and 145", r.Tasks, r.NodeSeconds)
	}
}

func TestUnknownAndEmpty(t *testing.T) {
	c := Config{Trace: bursts(10, 1), Model: Defaults()}
	s, err := Look(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Simulate(&c, s, "magic"); err == nil || err.Error() != `policy "magic" is unknown; want muster, fixed, fixed-p99, keda, hpa, kpa, reactive, schedule, clairvoyant` {
		t.Errorf("got %v", err)
	}
	c.From = t0.Add(1000 * 24 * time.Hour)
	if _, err := Look(&c); err == nil {
		t.Error("a window without tasks is refused")
	}
}
