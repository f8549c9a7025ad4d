package plan

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// byRank is an outlook in which arrivals of these ranks, from the first on,
// come at these rates a second.
func byRank(perSecond ...float32) *forecast.Outlook {
	return &forecast.Outlook{Lead: 45 * time.Second, Rates: append(make([]float32, 8), perSecond...)}
}

const (
	often   = 1
	aDay    = 1.5 / 86400
	aMonth  = 1.0 / 86400 / 30
	thisNow = 20 * time.Second
)

// TestSlotsOfIdleNodesAreFilledForTasksThatAreExpected: nodes that carry
// nothing and are paid for still are kept warm only as far as tasks are
// expected.
func TestSlotsOfIdleNodesAreFilledForTasksThatAreExpected(t *testing.T) {
	young := func(n *Node) { n.Requested = t0.Add(-thisNow) }
	pol := scalable(func(p *Policy) { p.Nodes.MinBill, p.Min = time.Hour, 1 })
	at := func(v *forecast.Outlook, ready int) Observation { // 24 free slots
		o := cluster(0, host("a", 0, young), host("b", 0, young), host("c", 0, young))
		o.Pools[0].Ready, o.Pools[0].Proven = ready, true
		for i := range ready {
			n := &o.Nodes[i%3]
			o.Pools[0].Idle = append(o.Pools[0].Idle, Idle{ID: fleet.SandboxID(rune('a' + i)), Node: n.ID})
			n.Used++
		}
		o.Outlook = v
		return o
	}
	some := byRank(often, often, often, often, aDay, aDay, aMonth, aMonth)
	for _, c := range []struct {
		name        string
		v           *forecast.Outlook
		ready, want int
	}{
		{"nothing known", nil, 1, 23},
		{"none expected", byRank(), 1, 0},
		{"none expected, and the floor", byRank(), 0, 1},
		{"six expected", some, 0, 6},
		{"six expected, four there", some, 4, 2},
		{"six expected, six there", some, 6, 0},
		{"six expected, ten there", some, 10, 0},
		{"a burst expected", &forecast.Outlook{Lead: 45 * time.Second, Mean: 40, Recent: 40, Prior: 1}, 0, 24},
	} {
		p, _ := Decide(t0, at(c.v, c.ready), pol, State{})
		if got := count(p, StartSandboxes, "default"); got != c.want {
			t.Errorf("%s: %d started, want %d", c.name, got, c.want)
		}
	}
	// What is there already stays: to remove it saves nothing.
	s := State{At: t0}
	for range 100 {
		now := s.At.Add(10 * time.Second)
		var p Plan
		if p, s = Decide(now, after(at(some, 10), now), pol, s); count(p, DrainSandbox, "") > 0 {
			t.Fatalf("drained after %s, on nodes that are paid for anyway: %+v", now.Sub(t0), p.Actions)
		}
	}
}

// TestSlotsBesideTasksAreFilled: where tasks run, what comes may choose its
// node, but not where they are over before a sandbox would be of use.
func TestSlotsBesideTasksAreFilled(t *testing.T) {
	for _, c := range []struct {
		residual time.Duration
		want     int
	}{{0, 12}, {time.Minute, 12}, {3 * time.Second, 0}} {
		left := func(n *Node) { n.Residual = c.residual }
		o := cluster(0, host("a", 2, left), host("b", 2, left))
		o.Outlook = byRank()
		o.Pools[0].Proven, o.Pools[0].Lead = true, fleet.Lead{P50: time.Second, P95: 2 * time.Second, P99: 2 * time.Second}
		p, _ := Decide(t0, o, scalable(), State{})
		if got := count(p, StartSandboxes, "default"); got != c.want {
			t.Errorf("tasks go on for %s: %d started, want %d", c.residual, got, c.want)
		}
	}
}

func after(o Observation, now time.Time) Observation {
	o.Queues[0].AsOf = now
	return o
}

// TestFillingIsLookedAtAgain: when more tasks are expected, a decision that
// left slots empty does not hold.
func TestFillingIsLookedAtAgain(t *testing.T) {
	young := func(n *Node) { n.Requested = t0.Add(-thisNow) }
	o := cluster(0, host("a", 0, young))
	o.Pools[0].Proven = true
	o.Outlook = byRank(often, aMonth)
	pol, x, s := scalable(func(p *Policy) { p.Nodes.MinBill, p.Min = time.Hour, 1 }), new(Decider), &State{}
	p, s := x.Decide(t0, &o, &pol, s)
	if n := count(*p, StartSandboxes, ""); n != 1 {
		t.Fatalf("%d started, want 1", n)
	}
	o.Pools[0].Ready = 1
	o.Nodes[0].Used++
	now := t0.Add(time.Second)
	o.Queues[0].AsOf = now
	if p, _ = x.Decide(now, &o, &pol, s); len(p.Actions) > 0 {
		t.Fatalf("%+v", p.Actions)
	}
	if !x.Holds(now.Add(time.Second), o.Outlook) {
		t.Error("nothing has changed, and the decision does not hold")
	}
	more := byRank(often, often)
	if x.Holds(now.Add(time.Second), more) {
		t.Error("a second slot is worth its sandbox now, and the decision holds")
	}
}
