package plan

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestObjectiveProjectedForward: when the task that waits breaches, and what
// had to be requested until when.
func TestObjectiveProjectedForward(t *testing.T) {
	p := policy()
	p.Max = 4
	o := observation(t0, pool("default", func(p *Pool) { p.Running = 4 }))
	o.Queues[0].Pools[0] = Demand{Pool: "default", Backlog: 3, InFlight: 4, Oldest: t0.Add(-time.Second)}
	plan, _ := Decide(t0, o, p, State{})
	if plan.Project(t0, &plan.Pools[0], &o, &p) != nil {
		t.Error("what the capacity holds back is named by its bound, not projected")
	}

	p = policy()
	p.Nodes.Scalable = true
	o.Nodes = []Node{{ID: "n", State: fleet.NodeReady, Slots: 4, Used: 4, Running: 4}}
	o.NodeLead = fleet.Lead{P95: 40 * time.Second}
	o.Queues[0].Pools[0].Backlog = 20
	plan, _ = Decide(t0, o, p, State{})
	b := plan.Project(t0.Add(-time.Second), &plan.Pools[0], &o, &p)
	want := "it breaches the objective of 5s at 09:00:04 UTC unless 3 more nodes had been requested by 08:59:22 UTC"
	if b == nil || b.OfTask(t0, p.Objective) != want {
		t.Fatalf("%+v: %s\nwant %s", b, b.OfTask(t0, p.Objective), want)
	}
	if got := b.OfTask(t0.Add(-time.Minute), p.Objective); got != "it breaches the objective of 5s at 09:00:04 UTC unless 3 more nodes are requested by 08:59:22 UTC" {
		t.Error(got)
	}
	if got := b.OfTask(t0.Add(time.Minute), p.Objective); got != "it has waited longer than the objective of 5s since 09:00:04 UTC" {
		t.Error(got)
	}
	fixed := policy()
	b = plan.Project(t0, &plan.Pools[0], &o, &fixed)
	if got := b.OfTask(t0, p.Objective); got != "it breaches the objective of 5s at 09:00:05 UTC unless 20 more sandboxes are requested by 09:00:03 UTC" {
		t.Error(got)
	}
}

// TestRule06UnprovenStartsWhatIsNeeded: a template that never started gets no
// warm stock, however large the burst: it may be broken.
func TestRule06UnprovenStartsWhatIsNeeded(t *testing.T) {
	for proven, most := range map[bool]int{false: 20, true: 200} {
		var s State
		o := observation(t0, pool("default", func(p *Pool) { p.Proven = proven }))
		_, s = Decide(t0, o, policy(), s)
		o.Queues[0].AsOf = t0.Add(time.Second)
		o.backlog(20)
		o.Queues[0].Pools[0].Arrived = 20
		plan, _ := Decide(t0.Add(time.Second), o, policy(), s)
		if n := count(plan, StartSandboxes, ""); n < 20 || n > most || proven && n == 20 {
			t.Errorf("proven %v: a burst of 20 starts %d", proven, n)
		}
	}
}
