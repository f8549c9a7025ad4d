package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
)

// The rules of demand integrity. Each is a known failure of autoscalers in
// use; the tests carry the rule's number.

var t0 = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func policy() Policy {
	return Policy{First: "default", Max: 200, Templates: map[string]TemplatePolicy{"default": {}, "other": {}}}.WithDefaults()
}

func node(slots int) Node {
	return Node{ID: "local", State: fleet.NodeReady, Slots: slots, Capacity: Size{1e6, 1 << 40, 1 << 44}}
}

func pool(key string, change ...func(*Pool)) Pool {
	p := Pool{Key: fleet.PoolKey(key), Template: strings.SplitN(key, "~", 2)[0], Revision: "r1",
		Size: Size{1000, 1 << 30, 1 << 20}, Lead: fleet.Lead{P50: time.Second, P95: 2 * time.Second, P99: 3 * time.Second, Samples: 9}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func idle(p *Pool, n int) {
	p.Ready = n
	for i := range n {
		p.Idle = append(p.Idle, Idle{ID: fleet.SandboxID(fmt.Sprintf("%s-idle-%d", p.Key, i)), Node: "local", Created: t0, Since: t0})
	}
}

func observation(now time.Time, pools ...Pool) Observation {
	o := Observation{Pools: pools, Nodes: []Node{node(1000)}, Queues: []Queue{{Name: "q", AsOf: now}}}
	for _, p := range pools {
		o.Nodes[0].Used += p.Ready + p.Starting + p.Running + p.Releasing + len(p.Draining)
		o.Queues[0].Pools = append(o.Queues[0].Pools, Demand{Pool: p.Key, InFlight: p.Running})
	}
	return o
}

func (o *Observation) backlog(n int) { o.Queues[0].Pools[0].Backlog = n }

func count(p Plan, k Kind, key string) (n int) {
	for _, a := range p.Actions {
		if a.Kind == k && (key == "" || string(a.Pool) == key) {
			n += max(1, a.N)
		}
	}
	return n
}

// decideFor repeats a decision every second, as a loop would that applies
// nothing.
func decideFor(d time.Duration, o Observation, p Policy, s State) (Plan, State) {
	var last Plan
	var all []Action
	for now := t0; !now.After(t0.Add(d)); now = now.Add(time.Second) {
		if len(o.Queues) > 0 && o.Queues[0].Error == "" {
			o.Queues[0].AsOf = now
		}
		last, s = Decide(now, o, p, s)
		all = append(all, last.Actions...)
	}
	last.Actions = all
	return last, s
}

func TestRule01MissingReadingIsNeverZero(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { idle(p, 8); p.Running = 2 }))
	o.backlog(10)
	_, s := Decide(t0, o, policy(), State{})
	failing := map[string]func(*Observation){
		"error":    func(o *Observation) { o.Queues[0] = Queue{Name: "q", AsOf: t0, Error: "connection refused"} },
		"no queue": func(o *Observation) { o.Queues = nil },
		"old":      func(o *Observation) { o.Queues[0] = Queue{Name: "q", AsOf: t0.Add(-time.Hour)} },
	}
	for name, f := range failing {
		t.Run(name, func(t *testing.T) {
			bad := o
			bad.Queues = []Queue{o.Queues[0]}
			f(&bad)
			if name == "old" {
				p, _ := Decide(t0.Add(time.Minute), bad, policy(), s)
				checkFrozen(t, p)
				return
			}
			p, _ := decideFor(10*time.Minute, bad, policy(), s)
			checkFrozen(t, p)
			if got := p.Pools[0].Desired; got < 12 {
				t.Errorf("desired %d, want the last reading's 12 at least", got)
			}
			if count(p, StartSandboxes, "") == 0 {
				t.Error("scale-out must go on from the last reading")
			}
		})
	}
	t.Run("an outage is not an endless backlog", func(t *testing.T) {
		bad := o
		bad.Queues = []Queue{{Name: "q", Error: "down"}}
		bad.Pools = []Pool{pool("default", func(p *Pool) { idle(p, 8); p.Finished = 12 })}
		p, _ := Decide(t0.Add(time.Second), bad, policy(), s)
		if got := p.Pools[0].Desired; got > p.Pools[0].Warm {
			t.Errorf("12 of 12 tasks have finished since the last reading, and %d are wanted", got)
		}
	})
}

func checkFrozen(t *testing.T, p Plan) {
	t.Helper()
	if !p.Frozen() || count(p, DrainSandbox, "")+count(p, DestroySandbox, "") > 0 {
		t.Errorf("frozen %v, %d drains", p.Frozen(), count(p, DrainSandbox, ""))
	}
	if !strings.Contains(p.Sentence(), "frozen") {
		t.Errorf("the plan does not say so: %q", p.Sentence())
	}
}

func TestRule02DemandIsBacklogAndInFlight(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { p.Running = 7 }))
	p, _ := decideFor(time.Hour, o, policy(), State{})
	if p.Pools[0].Desired != 7 || len(p.Actions) != 0 {
		t.Errorf("backlog 0 and 7 in flight: desired %d, actions %v", p.Pools[0].Desired, p.Actions)
	}
	// Leased but not yet claimed: in flight and without a sandbox.
	o = observation(t0, pool("default"))
	o.Queues[0].Pools[0].InFlight = 3
	if p, _ := Decide(t0, o, policy(), State{}); count(p, StartSandboxes, "default") != 3 {
		t.Errorf("3 in flight without a sandbox start %d", count(p, StartSandboxes, "default"))
	}
}

func TestRule03StartingIsSupply(t *testing.T) {
	o := observation(t0, pool("default"))
	o.backlog(50)
	p, s := Decide(t0, o, policy(), State{})
	if n := count(p, StartSandboxes, ""); n != 50 {
		t.Fatalf("starts %d, want 50", n)
	}
	o = observation(t0, pool("default", func(p *Pool) { p.Starting = 50 }))
	o.backlog(50)
	if p, _ = decideFor(time.Minute, o, policy(), s); count(p, StartSandboxes, "") != 0 {
		t.Errorf("50 wait and 50 are starting: %d more started", count(p, StartSandboxes, ""))
	}
	// Half became ready, some of them were claimed: still nothing is missing.
	o = observation(t0, pool("default", func(p *Pool) { p.Starting = 25; p.Running = 20; idle(p, 5) }))
	o.backlog(30)
	if p, _ = Decide(t0.Add(time.Second), o, policy(), s); count(p, StartSandboxes, "") != 0 {
		t.Errorf("provided twice: %d more started", count(p, StartSandboxes, ""))
	}
}

func TestRule04ForecastOnlyRaisesAndFloorsBeginEarly(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { p.Seasonal = 0 }))
	o.backlog(9)
	if p, _ := Decide(t0, o, policy(), State{}); p.Pools[0].Desired < 9 {
		t.Errorf("a forecast of nothing lowered demand to %d", p.Pools[0].Desired)
	}
	o.Pools[0].Seasonal = 6
	if p, _ := Decide(t0, o, policy(), State{}); p.Pools[0].Warm != 6 {
		t.Errorf("warm %d, want the seasonal 6", p.Pools[0].Warm)
	}
	// In Warsaw the clocks go forward on 29 March 2026 and back on 25 October:
	// eight in the morning is 07:00 UTC before, 06:00 in summer.
	rule, err := calendar.Parse("0 8 * * *", "Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	for day, utc := range map[string]string{"2026-03-28": "07:00", "2026-03-29": "06:00", "2026-10-24": "06:00", "2026-10-25": "07:00"} {
		opens, err := time.Parse("2006-01-02 15:04", day+" "+utc)
		if err != nil {
			t.Fatal(err)
		}
		next := rule.Next(opens.Add(-30 * time.Minute))
		for _, c := range []struct {
			at   time.Duration
			want int
		}{{-2100 * time.Millisecond, 0}, {-1900 * time.Millisecond, 20}, {0, 20}, {59 * time.Minute, 20}, {time.Hour, 0}} {
			now := opens.Add(c.at)
			o := observation(now, pool("default"))
			o.Floors = []Floor{{Template: "default", Name: "0 8 * * *", From: next, Until: next.Add(time.Hour), Min: 20}}
			p, _ := Decide(now, o, policy(), State{})
			if got := count(p, StartSandboxes, ""); got != c.want {
				t.Errorf("%s, %s from 08:00 in Warsaw: %d started, want %d (lead time 2 s)", day, c.at, got, c.want)
			}
		}
	}
}

func TestRule05BusyIsNeverChosenAndDrainedIsTakenBack(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { idle(p, 5); p.Running = 30 }))
	p, _ := decideFor(time.Hour, o, policy(), State{})
	named := map[fleet.SandboxID]bool{}
	for _, a := range p.Actions {
		if a.Kind == DrainSandbox {
			named[a.Sandbox] = true
		}
	}
	if len(named) != 5 {
		t.Errorf("%d named for scale-in, want the 5 idle ones and no other", len(named))
	}
	for id := range named {
		if !strings.Contains(string(id), "idle") {
			t.Errorf("%s is not idle", id)
		}
	}
	o = observation(t0, pool("default", func(p *Pool) {
		for i := range 3 {
			p.Draining = append(p.Draining, Idle{ID: fleet.SandboxID(fmt.Sprint("d", i)), Node: "local", Since: t0.Add(-time.Hour), Created: t0})
		}
	}))
	o.backlog(5)
	got, _ := Decide(t0, o, policy(), State{})
	if count(got, UndrainSandbox, "") != 3 || count(got, StartSandboxes, "") != 2 || count(got, DestroySandbox, "") != 0 {
		t.Errorf("5 wait and 3 are draining: %+v", got.Actions)
	}
	if got.Actions[0].Kind != UndrainSandbox {
		t.Error("un-drain comes before starting anything new")
	}
}

func TestRule06FailingStartsDoNotMultiply(t *testing.T) {
	var s State
	var plan Plan
	failed, starting, most := int64(0), 0, 0
	starts := 0
	for i := range 3600 {
		now := t0.Add(time.Duration(i) * time.Second)
		// What was started a second ago has failed.
		failed += int64(starting)
		o := observation(now, pool("default", func(p *Pool) { p.Failed, p.Failure, p.Proven = failed, "npm ci: exit code 1", true }))
		o.backlog(40)
		plan, s = Decide(now, o, policy(), s)
		starting = count(plan, StartSandboxes, "")
		starts += starting
		if i > 0 {
			most = max(most, starting)
		}
	}
	if starts > 40+5+60 || most > 1 { // a probe a minute at the most
		t.Errorf("an hour of a broken template: %d starts, up to %d at once after the first wave", starts, most)
	}
	r := plan.Pools[0].Reason
	if !plan.Pools[0].Breaker.Open || r.Bound != BoundBreaker || !strings.Contains(r.Sentence(), "npm ci") {
		t.Errorf("the reason is not visible: %+v, %s", plan.Pools[0].Breaker, r.Sentence())
	}
	// One success closes it.
	o := observation(t0.Add(2*time.Hour), pool("default", func(p *Pool) { p.Failed, p.Started, p.Running = failed, 1, 1 }))
	o.backlog(40)
	if plan, _ = Decide(t0.Add(2*time.Hour), o, policy(), s); count(plan, StartSandboxes, "") < 40 {
		t.Errorf("after a success %d start, want 40", count(plan, StartSandboxes, ""))
	}
}

func TestRule06UnschedulableDoesNotMultiply(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { p.Size.MemoryBytes = 1 << 50 }))
	o.backlog(4)
	p, _ := decideFor(time.Hour, o, policy(), State{})
	r := p.Pools[0].Reason
	if len(p.Actions) != 0 || r.Bound != BoundMemory || !strings.Contains(r.Sentence(), "largest node") {
		t.Errorf("%d actions, bound %q, %s", len(p.Actions), r.Bound, r.Sentence())
	}
}

func TestRule07EachTargetHasOneWriter(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { idle(p, 3) }), pool("other"))
	o.backlog(20)
	p, _ := Decide(t0, o, policy(), State{})
	seen := map[fleet.PoolKey]int{}
	for _, x := range p.Pools {
		seen[x.Pool]++
	}
	if len(seen) != 2 || seen["default"] != 1 || seen["other"] != 1 {
		t.Errorf("targets %v, want exactly one for each pool", seen)
	}
	touched := map[fleet.SandboxID]Kind{}
	for _, a := range p.Actions {
		if a.Sandbox == "" {
			continue
		}
		if k, twice := touched[a.Sandbox]; twice {
			t.Errorf("%s is the object of %s and %s", a.Sandbox, k, a.Kind)
		}
		touched[a.Sandbox] = a.Kind
	}
}

func TestRule08ConsumersAreBoundedByWhatCanStart(t *testing.T) {
	p := policy()
	p.Max = 10
	o := observation(t0, pool("default", func(p *Pool) { idle(p, 4); p.Running = 3 }))
	o.backlog(1000)
	got, _ := Decide(t0, o, p, State{})
	if got.Consumers > 10 || got.Consumers < 7 {
		t.Errorf("%d consumers for 4 ready, 3 running and room for 3 more", got.Consumers)
	}
	o = observation(t0, pool("default", func(p *Pool) { p.Failed = 3 }))
	o.backlog(1000)
	_, s := Decide(t0, o, p, State{})
	o.Pools[0].Failed = 6
	if got, _ = Decide(t0.Add(time.Second), o, p, s); got.Consumers != 0 {
		t.Errorf("nothing can start and %d consumers lease", got.Consumers)
	}
}

func TestRule09BudgetIsABound(t *testing.T) {
	p := policy()
	p.Budget = Budget{PerHour: 40e6, NodeHour: 400e3}
	p.Templates = map[string]TemplatePolicy{"default": {Priority: 5}, "other": {}}
	o := observation(t0, pool("default", func(p *Pool) { p.Running = 6 }), pool("other"))
	o.backlog(12)
	o.Queues[0].Pools[1].Backlog = 3
	o.Spend = Spend{HourMicroUSD: 41_500_000}
	got, _ := decideFor(time.Hour, o, p, State{})
	if len(got.Actions) != 0 {
		t.Errorf("at the cap nothing is started and nothing killed: %+v", got.Actions)
	}
	r := got.Pools[0].Reason
	if s := r.Sentence(); r.Cause != CauseBudget || !strings.Contains(s, "cap binds: waiting 12 tasks, $41.50") {
		t.Errorf("%s: %s", r.Cause, s)
	}
	// Below the cap the higher priority goes first where not all fit.
	o.Spend = Spend{}
	p.Max = 12
	got, _ = Decide(t0, o, p, State{})
	if a, b := count(got, StartSandboxes, "default"), count(got, StartSandboxes, "other"); a != 6 || b != 0 {
		t.Errorf("room for 6: %d of high priority and %d of low", a, b)
	}
}

// TestRule08HeldTasksBringNoSandbox: what waits for the cap of its tenant would
// not start on any number of sandboxes.
func TestRule08HeldTasksBringNoSandbox(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) { p.Running = 2 }))
	o.Queues[0].Pools[0].Backlog, o.Queues[0].Pools[0].Held = 50, 47
	if p, _ := Decide(t0, o, policy(), State{}); count(p, StartSandboxes, "") != 3 {
		t.Errorf("47 of 50 are held: %d started, want 3", count(p, StartSandboxes, ""))
	}
}

func TestRule10EverythingHasAReason(t *testing.T) {
	o := observation(t0,
		pool("default", func(p *Pool) { idle(p, 3); p.Running = 2 }), pool("gone", func(p *Pool) { p.Unknown = true }), pool("other"))
	o.backlog(20)
	o.Queues[0].Pools[1].Backlog = 2
	p, s := Decide(t0, o, policy(), State{})
	quiet, _ := Decide(t0, observation(t0, pool("default")), policy(), s)
	for _, plan := range []Plan{p, quiet} {
		if plan.Sentence() == "" {
			t.Error("the plan has no sentence")
		}
		for _, x := range plan.Pools {
			if x.Reason.Cause == "" || x.Reason.Sentence() == "" {
				t.Errorf("pool %s has no reason: %+v", x.Pool, x.Reason)
			}
		}
		for _, a := range plan.Actions {
			if a.Reason == nil || a.Reason.Cause == "" || len(a.Reason.Numbers.Map()) == 0 {
				t.Errorf("action without reason or numbers: %+v", a)
			}
		}
	}
	if r := p.Pools[1].Reason; r.Cause != CauseNoTemplate || r.Bound != BoundTemplate {
		t.Errorf("tasks of a template that is gone: %s", r.Sentence())
	}
}

// floorsOf are the windows a calendar rule opens within a day.
func floorsOf(expr, zone string, from time.Time, length time.Duration, n int) (out []Floor) {
	rule, err := calendar.Parse(expr, zone)
	if err != nil {
		panic(err)
	}
	for at := rule.Next(from); at.Before(from.Add(24 * time.Hour)); at = rule.Next(at) {
		out = append(out, Floor{Template: "default", Name: expr + " " + zone, From: at, Until: at.Add(length), Min: n})
	}
	return out
}

func TestUnfitIsTakenOutOfDispatchAtOnce(t *testing.T) {
	o := observation(t0, pool("default", func(p *Pool) {
		idle(p, 3)
		p.Idle[0].Stale, p.Idle[0].Unfit = true, true
	}))
	p := policy()
	p.Min = 3
	o.Queues[0].Error = "down" // even then
	got, _ := Decide(t0, o, p, State{})
	if count(got, DrainSandbox, "") != 1 || got.Actions[0].Sandbox != "default-idle-0" || count(got, StartSandboxes, "") != 1 {
		t.Errorf("want the unfit one drained and one started: %+v", got.Actions)
	}
}

// TestWhatLeavesIsNotTakenBack: a sandbox that was drained since its node goes
// stays drained; another is started elsewhere. Taken back, it would be drained
// again by the next decision, and so on each second.
func TestWhatLeavesIsNotTakenBack(t *testing.T) {
	p := policy()
	p.Nodes.Scalable, p.Min = true, 2
	o := observation(t0, pool("default", func(p *Pool) {
		idle(p, 1)
		p.Idle[0].Node = "stays"
		p.Draining = []Idle{{ID: "gone", Node: "leaves", Created: t0, Since: t0}}
	}))
	stays, leaves := node(8), node(8)
	stays.ID, stays.Used, leaves.ID, leaves.Used, leaves.State = "stays", 1, "leaves", 1, fleet.NodeCordoned
	o.Nodes = []Node{leaves, stays}
	got, _ := Decide(t0.Add(time.Second), o, p, State{})
	if count(got, UndrainSandbox, "") != 0 || count(got, DestroySandbox, "") != 1 || count(got, StartSandboxes, "") != 1 {
		t.Errorf("want it destroyed and another started: %+v", got.Actions)
	}
}
