package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

// anyObservation draws worlds, sane and less so.
func anyObservation(t *rapid.T, now time.Time) Observation {
	var o Observation
	q := Queue{Name: "q", AsOf: now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "age")) * time.Second)}
	if rapid.IntRange(0, 9).Draw(t, "outage") == 0 {
		q.Error = "down"
	}
	for n := range rapid.IntRange(1, 3).Draw(t, "nodes") {
		x := node(rapid.IntRange(0, 40).Draw(t, "slots"))
		x.ID = fleet.NodeID(fmt.Sprint("n", n))
		x.Capacity.MemoryBytes = int64(rapid.IntRange(1, 64).Draw(t, "memory")) << 30
		o.Nodes = append(o.Nodes, x)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "pools") {
		p := pool(fmt.Sprint("p", i), func(p *Pool) {
			p.Template = "default"
			p.Starting = rapid.IntRange(0, 20).Draw(t, "starting")
			p.Running = rapid.IntRange(0, 20).Draw(t, "running")
			p.Failed = int64(rapid.IntRange(0, 5).Draw(t, "failed"))
			p.Started = int64(rapid.IntRange(0, 5).Draw(t, "started"))
			p.Seasonal = rapid.IntRange(0, 5).Draw(t, "seasonal")
			p.Unknown = rapid.IntRange(0, 19).Draw(t, "unknown") == 0
			idle(p, rapid.IntRange(0, 20).Draw(t, "ready"))
			for k := range p.Idle {
				p.Idle[k].Node = o.Nodes[k%len(o.Nodes)].ID
				p.Idle[k].Stale = rapid.IntRange(0, 5).Draw(t, "stale") == 0
				p.Idle[k].Unfit = rapid.IntRange(0, 9).Draw(t, "unfit") == 0
				p.Idle[k].Since, p.Idle[k].Created = now, now
			}
			for k := range rapid.IntRange(0, 5).Draw(t, "draining") {
				p.Draining = append(p.Draining, Idle{ID: fleet.SandboxID(fmt.Sprint(p.Key, "-d", k)), Node: o.Nodes[0].ID, Since: now, Created: now})
			}
		})
		o.Pools = append(o.Pools, p)
		o.Nodes[0].Used += p.Ready + p.Starting + p.Running
		q.Pools = append(q.Pools, Demand{
			Pool: p.Key, Backlog: rapid.IntRange(0, 60).Draw(t, "backlog"), InFlight: rapid.IntRange(0, 30).Draw(t, "inflight"),
			Arrived: int64(rapid.IntRange(0, 500).Draw(t, "arrived")), Priority: rapid.IntRange(-3, 3).Draw(t, "priority"),
		})
	}
	o.Queues = []Queue{q}
	return o
}

func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policy()
		p.Max = rapid.IntRange(0, 80).Draw(t, "max")
		p.Min = rapid.IntRange(0, 10).Draw(t, "min")
		p.First = "default"
		p.Templates["default"] = TemplatePolicy{MaxAge: time.Hour}
		now := t0
		var s State
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-30, 90).Draw(t, "step")) * time.Second)
			o := anyObservation(t, now)
			before := mustJSON(t, o, s)
			got, next := Decide(now, o, p, s)
			if after := mustJSON(t, o, s); before != after {
				t.Fatal("Decide changed what it was given")
			}
			again, nextAgain := Decide(now, o, p, s)
			if !reflect.DeepEqual(got, again) || !reflect.DeepEqual(next, nextAgain) {
				t.Fatal("Decide is not deterministic")
			}
			checkTerse(t, now, &o, &p, &s)
			checkPlan(t, o, p, got)
			s = reread(t, next)
		}
	})
}

// checkTerse: a terse Decider does the same.
func checkTerse(t *rapid.T, now time.Time, o *Observation, p *Policy, s *State) {
	full, terse := new(Decider), &Decider{Terse: true}
	want, wantNext := full.Decide(now, o, p, s)
	got, gotNext := terse.Decide(now, o, p, s)
	for _, x := range []*Plan{want, got} {
		for i := range x.Actions {
			x.Actions[i].Reason = nil
		}
	}
	if mustJSON(t, want.Actions, want.Wake, wantNext, full.Next()) != mustJSON(t, got.Actions, got.Wake, gotNext, terse.Next()) {
		t.Fatalf("a terse decision is another one:\n%s\n%s", mustJSON(t, want, wantNext), mustJSON(t, got, gotNext))
	}
}

// reread takes the state through JSON, as a restart does.
func reread(t *rapid.T, s State) (out State) {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func mustJSON(t *rapid.T, v ...any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkPlan(t *rapid.T, o Observation, p Policy, got Plan) {
	exist, starts := 0, 0
	named := map[fleet.SandboxID]string{}
	for _, x := range o.Pools {
		exist += x.Ready + x.Starting + x.Running + x.Releasing + len(x.Draining)
		for _, b := range x.Idle {
			named[b.ID] = "idle"
		}
		for _, b := range x.Draining {
			named[b.ID] = "draining"
		}
	}
	want := map[Kind]string{DrainSandbox: "idle", UndrainSandbox: "draining", DestroySandbox: "draining"}
	seen := map[fleet.SandboxID]bool{}
	perNode := map[fleet.NodeID]int{}
	for _, a := range got.Actions {
		if from := want[a.Kind]; from != "" {
			if named[a.Sandbox] != from || seen[a.Sandbox] {
				t.Fatalf("%s of %s, which is %q (seen before: %v)", a.Kind, a.Sandbox, named[a.Sandbox], seen[a.Sandbox])
			}
			seen[a.Sandbox] = true
		}
		if a.Kind == StartSandboxes {
			if a.N <= 0 {
				t.Fatalf("start of %d", a.N)
			}
			starts += a.N
			perNode[a.Node] += a.N
		}
		if got.Frozen() && (a.Kind == DrainSandbox && a.Reason.Cause != CauseUnfit || a.Kind == DestroySandbox) {
			t.Fatalf("%s on missing signals", a.Kind)
		}
		if a.Reason.Sentence() == "" {
			t.Fatalf("no reason: %+v", a)
		}
	}
	if p.Max > 0 && starts > 0 && exist+starts > p.Max {
		t.Fatalf("%d exist, %d started, the most is %d", exist, starts, p.Max)
	}
	for _, n := range o.Nodes {
		if n.Slots > 0 && perNode[n.ID] > 0 && n.Used+perNode[n.ID] > n.Slots {
			t.Fatalf("node %s: %d used, %d started, %d slots", n.ID, n.Used, perNode[n.ID], n.Slots)
		}
		if int64(perNode[n.ID])<<30 > n.Capacity.MemoryBytes {
			t.Fatalf("node %s: %d started do not fit its memory", n.ID, perNode[n.ID])
		}
	}
	for _, x := range got.Pools {
		if x.Desired < 0 || x.Warm < 0 || x.Unmet < 0 || x.Consumers < 0 {
			t.Fatalf("negative target: %+v", x)
		}
	}
}
