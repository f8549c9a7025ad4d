package storetest

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

func testSandboxes(f *fixture) {
	now := time.Now().UTC()
	sb := fleet.Sandbox{
		Spec: fleet.SandboxSpec{
			ID: fleet.NewSandboxID(now), Pool: "p", Template: "p", Revision: "r", Node: "n", Runtime: fleet.RuntimeRunc, Image: "host",
			Env: map[string]string{"A": "b"}, Prepare: []string{"x"}, Mounts: []fleet.Mount{{Source: "/a", Target: "/b"}}, Startup: time.Minute,
		},
		State: fleet.SandboxStarting, CreatedAt: now,
	}
	put := func(s fleet.Sandbox) {
		f.Helper()
		if err := f.s.PutSandbox(f.ctx, s); err != nil {
			f.Fatal(err)
		}
	}
	list := func(since time.Time) []fleet.SandboxID {
		f.Helper()
		all, err := f.s.Sandboxes(f.ctx, since)
		if err != nil {
			f.Fatal(err)
		}
		out := []fleet.SandboxID{}
		for _, s := range all {
			out = append(out, s.Spec.ID)
		}
		return out
	}
	_, err := f.s.Sandbox(f.ctx, sb.Spec.ID)
	f.is(err, fleet.ErrNotFound, "absent")
	f.same("none", []fleet.SandboxID{}, list(now.Add(-time.Hour)))
	put(sb)
	f.same("stored", sb, f.sandbox(sb.Spec.ID))
	sb.State, sb.ReadyAt = fleet.SandboxReady, now.Add(time.Second)
	sb.Isolation = fleet.Isolation{Runtime: fleet.RuntimeRunc, Capabilities: []string{"X"}, Lost: []string{"y"}}
	sb.Usage = fleet.Usage{At: now, CPU: time.Second, DiskFull: true}
	put(sb)
	f.same("replaced", sb, f.sandbox(sb.Spec.ID))
	time.Sleep(time.Second)
	gone := f.ready("p")
	gone.State, gone.GoneAt = fleet.SandboxGone, now.Add(time.Minute)
	put(gone)
	f.same("not gone", []fleet.SandboxID{sb.Spec.ID}, list(time.Time{}))
	f.same("gone since", []fleet.SandboxID{sb.Spec.ID, gone.Spec.ID}, list(gone.GoneAt))
	f.same("gone earlier", []fleet.SandboxID{sb.Spec.ID}, list(gone.GoneAt.Add(1)))
}

func testOverlook(f *fixture) {
	f.submit(plain("p"))
	d, stale := f.claim("p")
	for _, st := range []fleet.SandboxState{fleet.SandboxReady, fleet.SandboxDraining, fleet.SandboxStarting} {
		stale.State = st
		f.is(f.s.PutSandbox(f.ctx, stale), fleet.ErrConflict, "written over the claim as "+string(st))
	}
	if box := f.sandbox(stale.Spec.ID); box.State != fleet.SandboxClaimed {
		f.Fatalf("the sandbox is %s", box.State)
	}
	// Who has seen the claim may write; so may who saw the sandbox end.
	seen := f.sandbox(stale.Spec.ID)
	seen.Usage.CPU = time.Second
	if err := f.s.PutSandbox(f.ctx, seen); err != nil {
		f.Error(err)
	}
	stale.State, stale.GoneAt = fleet.SandboxGone, time.Now()
	if err := f.s.PutSandbox(f.ctx, stale); err != nil {
		f.Error(err)
	}
	f.settle(d, fleet.TaskLost)
	if box := f.sandbox(stale.Spec.ID); box.State != fleet.SandboxGone {
		f.Errorf("settling brought a gone sandbox back as %s", box.State)
	}
}

func testUsedOnce(f *fixture) {
	f.submit(plain("p"))
	d, stale := f.claim("p")
	f.settle(d, fleet.TaskSucceeded)
	for _, st := range []fleet.SandboxState{fleet.SandboxReady, fleet.SandboxStarting} {
		stale.State = st
		f.is(f.s.PutSandbox(f.ctx, stale), fleet.ErrConflict, "used, and written as "+string(st))
	}
	stale.State = fleet.SandboxFailed
	if err := f.s.PutSandbox(f.ctx, stale); err != nil {
		f.Error(err)
	}
}

func testDecisions(f *fixture) {
	large := make([]byte, 10_000)
	copy(large, `{"observation":`)
	var seqs []int64
	for i := range 5 {
		seq, err := f.s.AppendDecision(f.ctx, fleet.DecisionRecord{
			At: time.Now(), Changed: true, Observation: large, Plan: []byte{byte(i)}, State: []byte{},
		}, nil)
		if err != nil {
			f.Fatal(err)
		}
		if i > 0 && seq <= seqs[i-1] {
			f.Fatalf("seq %d after %d", seq, seqs[i-1])
		}
		seqs = append(seqs, seq)
		time.Sleep(time.Minute)
	}
	d, err := f.s.Decision(f.ctx, seqs[3])
	if err != nil {
		f.Fatal(err)
	}
	if d.Seq != seqs[3] || string(d.Observation) != string(large) || d.Plan[0] != 3 || !d.Changed || !d.At.Equal(time.Now().Add(-2*time.Minute)) {
		f.Errorf("decision: seq %d at %s", d.Seq, d.At)
	}
	_, err = f.s.Decision(f.ctx, seqs[4]+100)
	f.is(err, fleet.ErrNotFound, "absent decision")
	after, err := f.s.Decisions(f.ctx, fleet.DecisionFilter{After: seqs[1], Limit: 2})
	if err != nil || len(after) != 2 || after[0].Seq != seqs[2] || after[1].Seq != seqs[3] {
		f.Errorf("decisions after %d: %d of them, %v", seqs[1], len(after), err)
	}
	// An unchanged one may be left out; its seq still leads to an equal plan.
	seq, err := f.s.AppendDecision(f.ctx, fleet.DecisionRecord{At: time.Now().Add(-time.Minute), Observation: large, Plan: []byte{4}, State: []byte{}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	if d, err = f.s.Decision(f.ctx, seq); err != nil || d.Plan[0] != 4 {
		f.Errorf("unchanged decision %d: %+v, %v", seq, d.Plan, err)
	}
}

func testListDecisions(f *fixture) {
	var all []fleet.DecisionRecord
	for i := range 6 {
		d := fleet.DecisionRecord{At: time.Now().UTC(), Changed: i%2 == 0, Observation: []byte("{}"), Plan: []byte("{}"), State: []byte("{}")}
		var err error
		if d.Seq, err = f.s.AppendDecision(f.ctx, d, nil); err != nil {
			f.Fatal(err)
		}
		all = append(all, d)
		time.Sleep(time.Minute) // no store thins out over so long
	}
	list := func(fl fleet.DecisionFilter, want ...int) {
		f.Helper()
		got, err := f.s.Decisions(f.ctx, fl)
		if err != nil {
			f.Fatal(err)
		}
		exp := []fleet.DecisionRecord{}
		for _, i := range want {
			exp = append(exp, all[i])
		}
		f.same("decisions", exp, got)
	}
	list(fleet.DecisionFilter{}, 0, 1, 2, 3, 4, 5)
	list(fleet.DecisionFilter{After: all[1].Seq, Limit: 3}, 2, 3, 4)
	list(fleet.DecisionFilter{Since: all[2].At}, 2, 3, 4, 5)
	list(fleet.DecisionFilter{Since: all[2].At.Add(1)}, 3, 4, 5)
	list(fleet.DecisionFilter{Until: all[2].At}, 0, 1, 2)
	list(fleet.DecisionFilter{Until: all[2].At.Add(-1)}, 0, 1)
	list(fleet.DecisionFilter{Since: time.Unix(0, 0).AddDate(-1000, 0, 0), Until: time.Now().AddDate(5000, 0, 0)}, 0, 1, 2, 3, 4, 5)
	list(fleet.DecisionFilter{Changed: true}, 0, 2, 4)
	list(fleet.DecisionFilter{Changed: true, Since: all[1].At, Until: all[4].At, After: all[2].Seq}, 4)
	list(fleet.DecisionFilter{After: all[5].Seq})
}

func testPolicies(f *fixture) {
	policies := [][]byte{[]byte(`{"min":1}`), append([]byte(`{"large":"`), append(make([]byte, 5000), `"}`...)...), nil}
	seqs := make([]int64, 0, len(policies))
	for i := range 2 * len(policies) {
		policy := policies[i%len(policies)]
		seq, err := f.s.AppendDecision(f.ctx, fleet.DecisionRecord{
			At: time.Now(), Changed: true, Observation: []byte("{}"), Plan: []byte("{}"), State: []byte("{}"), Policy: "overruled", Version: i,
		}, policy)
		if err != nil {
			f.Fatal(err)
		}
		seqs = append(seqs, seq)
		time.Sleep(time.Second)
	}
	check := func() {
		f.Helper()
		listed, err := f.s.Decisions(f.ctx, fleet.DecisionFilter{})
		if err != nil || len(listed) != len(seqs) {
			f.Fatalf("%d decisions, %v", len(listed), err)
		}
		for i, seq := range seqs {
			d, err := f.s.Decision(f.ctx, seq)
			if err != nil {
				f.Fatal(err)
			}
			f.same("listed", listed[i], d)
			policy := policies[i%len(policies)]
			if policy == nil {
				if d.Policy != "" {
					f.Errorf("decision %d without a policy has %q", seq, d.Policy)
				}
				continue
			}
			if d.Version != i || d.Policy != fleet.PolicyDigest(policy) {
				f.Errorf("decision %d: version %d, policy %q", seq, d.Version, d.Policy)
			}
			got, err := f.s.Policy(f.ctx, d.Policy)
			if err != nil {
				f.Fatal(err)
			}
			f.same("policy", policy, got)
		}
	}
	check()
	_, err := f.s.Policy(f.ctx, fleet.PolicyDigest([]byte("another")))
	f.is(err, fleet.ErrNotFound, "absent policy")
	if f.Reopen != nil {
		s := f.Reopen(f.T)
		f.s, f.q = s.Store, s.Queue
		check()
	}
}

func testEvents(f *fixture) {
	add := func(ev ...fleet.Event) []fleet.Event {
		f.Helper()
		for i := range ev {
			ev[i].At = time.Now().UTC()
		}
		out, err := f.s.AppendEvents(f.ctx, ev)
		if err != nil {
			f.Fatal(err)
		}
		time.Sleep(time.Second)
		return out
	}
	start := time.Now()
	add()
	all := add(
		fleet.Event{Kind: "scale_out", Layer: "sandboxes", Pool: "p", From: 1, To: 3, Reason: "three wait", Bound: "max", Numbers: map[string]float64{"backlog": 3}, Decision: 7},
		fleet.Event{Kind: "sandbox_ready", Layer: "sandboxes", Sandbox: "s1", Node: "n"},
	)
	all = append(all, add(fleet.Event{Kind: "task_claimed", Layer: "tasks", Task: "t1", Sandbox: "s1"})...)
	all = append(all, add(fleet.Event{Kind: "task_settled", Layer: "tasks", Task: "t1"}, fleet.Event{Kind: "hold", Layer: "nodes"})...)
	for i, e := range all {
		if e.Seq != int64(i+1) {
			f.Fatalf("event %d has seq %d", i, e.Seq)
		}
	}
	list := func(fl fleet.EventFilter, want ...int) {
		f.Helper()
		got, err := f.s.Events(f.ctx, fl)
		if err != nil {
			f.Fatal(err)
		}
		exp := []fleet.Event{}
		for _, i := range want {
			exp = append(exp, all[i])
		}
		f.same("events", exp, got)
	}
	list(fleet.EventFilter{}, 0, 1, 2, 3, 4)
	list(fleet.EventFilter{After: 2, Limit: 2}, 2, 3)
	list(fleet.EventFilter{Last: true, Limit: 2}, 3, 4)
	list(fleet.EventFilter{Kinds: []string{"hold", "scale_out"}}, 0, 4)
	list(fleet.EventFilter{Layer: "tasks"}, 2, 3)
	list(fleet.EventFilter{Task: "t1"}, 2, 3)
	list(fleet.EventFilter{Sandbox: "s1"}, 1, 2)
	list(fleet.EventFilter{Sandbox: "s1", Kinds: []string{"task_claimed"}, Last: true}, 2)
	list(fleet.EventFilter{Since: start.Add(2 * time.Second)}, 2, 3, 4)
	list(fleet.EventFilter{Since: start.Add(2 * time.Second), After: 4}, 4)
	list(fleet.EventFilter{Task: "none"})
}

func testWakeEvents(f *fixture) {
	awake := func(w <-chan struct{}) bool {
		select {
		case <-w:
			return true
		case <-time.After(time.Second):
			return false
		}
	}
	a, releaseA := f.s.WakeEvents()
	b, releaseB := f.s.WakeEvents()
	defer releaseB()
	if awake(a) {
		f.Error("woken without an event")
	}
	for range 3 {
		if _, err := f.s.AppendEvents(f.ctx, []fleet.Event{{Kind: "hold"}}); err != nil {
			f.Fatal(err)
		}
	}
	if !awake(a) || !awake(b) {
		f.Error("not woken")
	}
	releaseA()
	releaseA()
	if _, err := f.s.AppendEvents(f.ctx, []fleet.Event{{Kind: "hold"}}); err != nil {
		f.Fatal(err)
	}
	for awake(b) {
	}
}

func testSchedules(f *fixture) {
	a := fleet.Schedule{
		Name: "nightly", Cron: "0 3 * * *", Timezone: "Europe/Warsaw", Task: []byte(`{"command":["x"]}`), Paused: true,
		Next: time.Now().UTC(), LastAt: time.Now().Add(-time.Hour).UTC(), LastTask: "t1", LastError: "full",
	}
	b := fleet.Schedule{Name: "hourly", Cron: "0 * * * *", Task: []byte(`{}`), Next: time.Now().UTC()}
	put := func(s fleet.Schedule) {
		f.Helper()
		if err := f.s.PutSchedule(f.ctx, s); err != nil {
			f.Fatal(err)
		}
	}
	want := func(w ...fleet.Schedule) {
		f.Helper()
		got, err := f.s.Schedules(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		f.same("schedules", append([]fleet.Schedule{}, w...), got)
	}
	want()
	put(a)
	put(b)
	want(b, a)
	b.Paused = true
	put(b)
	want(b, a)
	if err := f.s.DeleteSchedule(f.ctx, "nightly"); err != nil {
		f.Fatal(err)
	}
	want(b)
	f.is(f.s.DeleteSchedule(f.ctx, "nightly"), fleet.ErrNotFound, "deleted twice")
	f.is(f.s.PutSchedule(f.ctx, fleet.Schedule{}), fleet.ErrInvalid, "no name")
}

func testSettings(f *fixture) {
	got, err := f.s.Setting(f.ctx, "k")
	if got != nil || err != nil {
		f.Errorf("absent setting: %v, %v", got, err)
	}
	for _, v := range [][]byte{{0, 1, 255}, []byte("second"), {}} {
		if err := f.s.PutSetting(f.ctx, "k", v); err != nil {
			f.Fatal(err)
		}
		if got, err = f.s.Setting(f.ctx, "k"); err != nil {
			f.Fatal(err)
		}
		f.same("setting", v, got)
	}
}
