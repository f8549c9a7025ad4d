package sim

import (
	"reflect"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sim/trace"
)

// TestObservationIsTheWorld: what the adapter keeps up to date, piece by
// piece, is what a fresh look at the world would show.
func TestObservationIsTheWorld(t *testing.T) {
	m := Defaults()
	m.NodeFailures, m.StartFailures = 0.3, 0.05
	rows := bursts(1500, 21)
	for i := range rows {
		rows[i].Class = int32(i % 2)
	}
	c := Config{Trace: rows, Model: m, Pools: []string{"web", "api"}}
	s, err := Look(&c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policyOf("muster")
	if err != nil {
		t.Fatal(err)
	}
	sizer, err := p.make(&c, s)
	if err != nil {
		t.Fatal(err)
	}
	v := &witness{t: t, planner: sizer.(*planner)}
	if _, _, err := c.drive(s, p, v); err != nil {
		t.Fatal(err)
	}
	if v.looks < 1000 {
		t.Errorf("%d looks", v.looks)
	}
}

// witness looks at each observation before it is decided on.
type witness struct {
	*planner
	t     *testing.T
	looks int
}

func (v *witness) Decide(now int64, w *World) int64 {
	v.outlook.observe(now, clock(now), w, v.planner)
	v.observe(now, clock(now), w)
	v.looks++
	if v.looks%5 == 0 {
		v.compare(w)
	}
	return v.planner.Decide(now, w)
}

func (v *witness) compare(w *World) {
	v.t.Helper()
	var nodes []plan.Node
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state == nodeGone {
			continue
		}
		x := plan.Node{ID: v.nodeID(int32(i)), State: nodeStates[n.state], Slots: w.m.Slots, Used: int(n.used), Running: int(n.running), Starting: int(n.starting), Since: clock(n.requested), Requested: clock(n.requested)}
		if n.empty != Never && n.state != nodeBooting {
			x.Since = clock(n.empty)
		}
		x.Residual = v.o.Nodes[len(nodes)].Residual
		if x.Residual < 0 || (x.Residual > 0) != (n.running > 0) {
			v.t.Fatalf("node %d with %d tasks is expected to go on for %s", i, n.running, x.Residual)
		}
		nodes = append(nodes, x)
	}
	if len(nodes) != len(v.o.Nodes) || len(nodes) > 0 && !reflect.DeepEqual(nodes, v.o.Nodes) {
		v.t.Fatalf("at %s nodes\n%+v\nare observed as\n%+v", clock(w.now), nodes, v.o.Nodes)
	}
	for i := range w.Pools {
		p := &w.Pools[i]
		o := &v.o.Pools[v.pools[i].at]
		d := &v.o.Queues[0].Pools[v.pools[i].at]
		if o.Ready != p.Ready || o.Starting != p.Starting || o.Running != p.Running || d.Backlog != p.queue.n || d.InFlight != p.Running ||
			o.Started != p.Started || o.Failed != p.Failed || o.Finished != p.Finished || d.Arrived != p.Arrived {
			v.t.Fatalf("pool %s is observed as %+v, %+v; it is %+v", o.Key, o, d, p)
		}
		if len(o.Idle) != min(p.Ready, plan.MaxIdle) || len(o.Draining) != p.Draining {
			v.t.Fatalf("pool %s names %d idle and %d draining; there are %d and %d", o.Key, len(o.Idle), len(o.Draining), p.Ready, p.Draining)
		}
		for k := range o.Idle {
			b := &w.boxes[indexOf(o.Idle[k].ID)]
			if b.state != boxReady || int(b.pool) != i || v.nodeID(b.node) != o.Idle[k].Node || k > 0 && o.Idle[k].Created.Before(o.Idle[k-1].Created) {
				v.t.Fatalf("idle %d of %s: %+v is %+v", k, o.Key, o.Idle[k], b)
			}
		}
	}
}

// TestWhatHoldsIsNotDecidedOtherwise: where the planner says that nothing would
// be done, a decision does nothing.
func TestWhatHoldsIsNotDecidedOtherwise(t *testing.T) {
	for seed := range uint64(3) {
		c := Config{Trace: bursts(3000, 40+seed), Model: Defaults()}
		if seed == 2 {
			c.Muster.Policy.Min, c.Muster.Policy.Max = 3, 40
		}
		s, err := Look(&c)
		if err != nil {
			t.Fatal(err)
		}
		p, err := policyOf("muster")
		if err != nil {
			t.Fatal(err)
		}
		sizer, err := p.make(&c, s)
		if err != nil {
			t.Fatal(err)
		}
		v := &doubter{t: t, planner: sizer.(*planner)}
		if _, _, err := c.drive(s, p, v); err != nil {
			t.Fatal(err)
		}
		if v.held < 500 {
			t.Errorf("held %d times", v.held)
		}
		if v.wrong > 0 {
			t.Errorf("of %d times that the plan was said to hold, a decision did something %d times", v.held, v.wrong)
		}
	}
}

// doubter decides where the planner does not.
type doubter struct {
	*planner
	t           *testing.T
	held, wrong int
}

func (v *doubter) Decide(now int64, w *World) int64 {
	before := v.s
	wake := v.planner.Decide(now, w)
	if v.s != before {
		return wake
	}
	v.held++
	v.observe(now, clock(now), w)
	if p, _ := plan.Decide(clock(now), v.o, v.c.Policy, *v.s); p.Changed() {
		v.wrong++
		v.t.Logf("%s: %s: %+v", clock(now), p.Sentence(), p.Actions)
	}
	return wake
}

// TestMusterHasTheFleetsBounds: max, floors and budget of a Fleet bind in the
// simulator as they do in life.
func TestMusterHasTheFleetsBounds(t *testing.T) {
	rows := trace.Rows{}
	for range 40 {
		rows = append(rows, seconds(600, 300))
	}
	c := Config{Trace: rows, Model: Defaults(), From: t0, To: t0.Add(2 * time.Hour)}
	c.Muster.Policy.Max = 8
	r := simulate(t, c, "muster")
	if r.MaxWait < 4*300 {
		t.Errorf("8 sandboxes at most: longest wait %v", r.MaxWait)
	}
	c.Muster.Policy.Max = 0
	c.Muster.Floors = func(time.Time) []plan.Floor {
		return []plan.Floor{{Template: "default", Name: "morning", From: t0.Add(5 * time.Minute), Until: t0.Add(time.Hour), Min: 40}}
	}
	c.Trace = append(trace.Rows{seconds(-60, 1)}, rows...)
	if r = simulate(t, c, "muster"); r.MaxWait != 0 {
		t.Errorf("with a floor of 40 nobody waits: %v", r.MaxWait)
	}
	c.Muster.Floors = nil
	c.Muster.Policy.Budget.PerHour = 1 // micro-USD
	c.Trace = append(rows[:len(rows):len(rows)], seconds(900, 10))
	if r = simulate(t, c, "muster"); r.MaxWait < 3600 {
		t.Errorf("the budget is spent, and the last task waits %v", r.MaxWait)
	}
}

func TestSpending(t *testing.T) {
	var s spending
	at := midnight.UnixMilli()
	s.charge(at, 0, 3600)
	got := s.charge(at+90*60_000, 2, 3600)
	if got.DayMicroUSD != 2*5400 || got.MonthMicroUSD != 2*5400 || got.HourMicroUSD != 2*1800 {
		t.Errorf("%+v; want 10800 today and 3600 of it since the full hour", got)
	}
	if got = s.charge(at+24*3600_000, 0, 3600); got.DayMicroUSD != 0 || got.HourMicroUSD != 0 || got.MonthMicroUSD != 2*5400 {
		t.Errorf("the next day %+v", got)
	}
}

func TestNamesAreReadBack(t *testing.T) {
	var p planner
	for _, i := range []int32{0, 7, 1234} {
		if got := indexOf(p.boxID(i)); got != i {
			t.Errorf("sandbox %d is read as %d", i, got)
		}
	}
	if indexOf(fleet.NodeID("")) != -1 || indexOf(fleet.NodeID("nx")) != -1 {
		t.Error("names that are none")
	}
}

// A planner that is not asked after events that lead to nothing decides as well
// as one that is asked after each: what differs is noise, from the instants at
// which rates are read.
func TestMusterNeedsNoDecisionWhereNothingChanges(t *testing.T) {
	rows := bursts(20_000, 11)
	var got [2]Result
	for i := range got {
		c := Config{Trace: rows, Model: Defaults(), every: i == 1}
		s, err := Look(&c)
		if err != nil {
			t.Fatal(err)
		}
		if got[i], err = Simulate(&c, s, "muster"); err != nil {
			t.Fatal(err)
		}
	}
	few, every := got[0], got[1]
	if r := few.CostOver / every.CostOver; r < 0.99 || r > 1.01 {
		t.Errorf("costs %.4f times the bound, and %.4f when asked after every event", few.CostOver, every.CostOver)
	}
	if d := few.ShareOver10s - every.ShareOver10s; d < -0.01 || d > 0.01 {
		t.Errorf("%.4f wait for more than 10 s, and %.4f when asked after every event", few.ShareOver10s, every.ShareOver10s)
	}
	t.Logf("%+v\n%+v", few, every)
}
