package storetest

import (
	"context"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

func testWebhooks(f *fixture) {
	hooked := func() fleet.Task {
		t := plain("p")
		t.Spec.Webhook = "https://example.com/hook"
		return t
	}
	pending := func() []fleet.TaskID {
		f.Helper()
		out, err := f.s.PendingWebhooks(f.ctx, 10)
		if err != nil {
			f.Fatal(err)
		}
		return ids(out)
	}
	in := f.submit(hooked(), hooked(), plain("p"), hooked())
	f.same("before the end", []fleet.TaskID{}, pending())
	a, b, c := f.lease("p"), f.lease("p"), f.lease("p")
	f.settle(b, fleet.TaskSucceeded)
	time.Sleep(time.Second)
	f.settle(a, fleet.TaskFailed)
	f.settle(c, fleet.TaskSucceeded)
	time.Sleep(time.Second)
	if _, err := f.s.Cancel(f.ctx, in[3].ID, "", time.Now()); err != nil {
		f.Fatal(err)
	}
	f.same("oldest first", []fleet.TaskID{in[1].ID, in[0].ID, in[3].ID}, pending())
	gone, err := f.s.Prune(f.ctx, time.Now().Add(time.Hour), 10)
	if err != nil {
		f.Fatal(err)
	}
	f.same("pruned", []fleet.TaskID{in[2].ID}, gone)
	for _, problem := range []string{"", "gave up"} {
		if err := f.s.WebhookDone(f.ctx, pending()[0], problem); err != nil {
			f.Fatal(err)
		}
	}
	f.same("left", []fleet.TaskID{in[3].ID}, pending())
	f.is(f.s.WebhookDone(f.ctx, absent, ""), fleet.ErrNotFound, "absent")
}

func testPrune(f *fixture) {
	keyed := plain("p")
	keyed.Spec.IdempotencyKey = "k"
	keyed.Spec.Labels = map[string]string{"a": "b"}
	in := f.submit(plain("p"), keyed, plain("p"), plain("p"))
	for range 2 {
		f.settle(f.lease("p"), fleet.TaskSucceeded)
		time.Sleep(time.Minute)
	}
	f.claim("p")
	prune := func(before time.Time, limit int) []fleet.TaskID {
		f.Helper()
		out, err := f.s.Prune(f.ctx, before, limit)
		if err != nil {
			f.Fatal(err)
		}
		return out
	}
	f.same("too young", []fleet.TaskID{}, prune(time.Now().Add(-time.Hour), 10))
	f.same("oldest first", []fleet.TaskID{in[0].ID}, prune(time.Now(), 1))
	f.same("the rest", []fleet.TaskID{in[1].ID}, prune(time.Now(), 10))
	_, err := f.s.Task(f.ctx, in[1].ID)
	f.is(err, fleet.ErrNotFound, "pruned")
	if got := f.submit(keyed)[0]; got.ID == in[1].ID {
		f.Error("the key outlived its task")
	}
	st, err := f.q.Stats(f.ctx)
	if err != nil || st.Arrived != 5 {
		f.Errorf("arrived %d, %v; pruning must not lower it", st.Arrived, err)
	}
	labelled, err := f.s.Tasks(f.ctx, fleet.TaskFilter{Labels: keyed.Spec.Labels})
	if err != nil || len(labelled) != 1 {
		f.Errorf("tasks with the label: %v, %v", labelled, err)
	}
}

func testList(f *fixture) {
	var in []fleet.Task
	for i := range 6 {
		t := plain([]fleet.PoolKey{"p", "q"}[i%2])
		t.Spec.Labels = map[string]string{"n": string(rune('0' + i)), "half": string(rune('0' + i/3))}
		in = append(in, f.submit(t)[0])
		time.Sleep(time.Minute)
	}
	d := f.lease("p") // in[0]
	f.settle(d, fleet.TaskSucceeded)
	f.claim("p") // in[2]
	list := func(fl fleet.TaskFilter, want ...int) {
		f.Helper()
		got, err := f.s.Tasks(f.ctx, fl)
		if err != nil {
			f.Fatal(err)
		}
		exp := []fleet.TaskID{}
		for _, i := range want {
			exp = append(exp, in[i].ID)
		}
		f.same("listed", exp, ids(got))
	}
	list(fleet.TaskFilter{}, 5, 4, 3, 2, 1, 0)
	some := []fleet.TaskID{in[3].ID, in[0].ID, in[5].ID, in[3].ID, fleet.NewTaskID(time.Now())}
	list(fleet.TaskFilter{IDs: some}, 5, 3, 0)
	list(fleet.TaskFilter{IDs: some, Before: in[5].ID, Limit: 1}, 3)
	list(fleet.TaskFilter{IDs: some, States: []fleet.TaskState{fleet.TaskSucceeded}}, 0)
	list(fleet.TaskFilter{IDs: some, Labels: map[string]string{"half": "1"}}, 5, 3)
	list(fleet.TaskFilter{Limit: 2}, 5, 4)
	list(fleet.TaskFilter{Limit: 2, Before: in[4].ID}, 3, 2)
	list(fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskQueued}}, 5, 4, 3, 1)
	list(fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskSucceeded, fleet.TaskClaimed, fleet.TaskClaimed}}, 2, 0)
	list(fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskQueued, fleet.TaskClaimed}, Limit: 4}, 5, 4, 3, 2)
	list(fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskLost}})
	list(fleet.TaskFilter{Pool: "q"}, 5, 3, 1)
	list(fleet.TaskFilter{Pool: "q", Before: in[5].ID}, 3, 1)
	list(fleet.TaskFilter{Labels: map[string]string{"half": "1"}}, 5, 4, 3)
	list(fleet.TaskFilter{Labels: map[string]string{"half": "1", "n": "4"}}, 4)
	list(fleet.TaskFilter{Labels: map[string]string{"half": "0"}, Pool: "p", States: []fleet.TaskState{fleet.TaskClaimed}}, 2)
	list(fleet.TaskFilter{Labels: map[string]string{"half": "9"}})
	list(fleet.TaskFilter{Since: in[3].SubmittedAt}, 5, 4, 3)
	list(fleet.TaskFilter{Since: in[3].SubmittedAt.Add(1), Before: in[5].ID}, 4)
	got, err := f.s.Tasks(f.ctx, fleet.TaskFilter{Limit: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.same("whole", in[5], got[0])
}

func testCopies(f *fixture) {
	in := full()
	out := f.submit(in)[0]
	in.Spec.Labels["team"], in.Spec.Command[0], in.Spec.Repo.URL = "x", "x", "x"
	out.Spec.Env["A"], out.Spec.Network.Allow[0] = "x", "x"
	want := full()
	want.Spec.NotBefore = time.Time{}
	f.same("stored", want.Spec, f.task(out.ID).Spec)
}

func testContext(f *fixture) {
	in := f.submit(plain("p"))[0]
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	calls := map[string]func() error{
		"submit": func() error { _, err := f.s.Submit(ctx, []fleet.Task{plain("p")}); return err },
		"task":   func() error { _, err := f.s.Task(ctx, in.ID); return err },
		"tasks":  func() error { _, err := f.s.Tasks(ctx, fleet.TaskFilter{}); return err },
		"cancel": func() error { _, err := f.s.Cancel(ctx, in.ID, "", time.Now()); return err },
		"events": func() error { _, err := f.s.AppendEvents(ctx, []fleet.Event{{}}); return err },
		"ping":   func() error { return f.s.Ping(ctx) },
	}
	for name, call := range calls {
		f.is(call(), context.Canceled, name)
	}
	f.counts(1, 0, 0, 0)
}

func testClosed(f *fixture) {
	in := f.submit(plain("p"))[0]
	if err := f.s.Ping(f.ctx); err != nil {
		f.Fatal(err)
	}
	if err := f.s.Close(); err != nil {
		f.Fatal(err)
	}
	_, err := f.s.Submit(f.ctx, []fleet.Task{plain("p")})
	f.is(err, fleet.ErrUnavailable, "submit")
	_, err = f.s.Task(f.ctx, in.ID)
	f.is(err, fleet.ErrUnavailable, "task")
	_, err = f.q.Stats(f.ctx)
	f.is(err, fleet.ErrUnavailable, "stats")
	_, err = f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: visibility})
	f.is(err, fleet.ErrUnavailable, "lease")
	f.is(f.s.Ping(f.ctx), fleet.ErrUnavailable, "ping")
	if err := f.s.Close(); err != nil {
		f.Errorf("closed twice: %v", err)
	}
}

func testReopen(f *fixture) {
	if f.Reopen == nil {
		f.Skip("nothing of this store outlives the process")
	}
	later := plain("p")
	later.Spec.NotBefore = time.Now().Add(time.Hour)
	f.submit(plain("p"), plain("p"), plain("p"), plain("p"), later)
	f.settle(f.lease("p"), fleet.TaskLost)
	claimed, sb := f.claim("p")
	leased := f.lease("p")
	before, err := f.s.Tasks(f.ctx, fleet.TaskFilter{})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.s.AppendEvents(f.ctx, []fleet.Event{{Kind: "hold", At: time.Now()}}); err != nil {
		f.Fatal(err)
	}
	s := f.Reopen(f.T)
	f.s, f.q = s.Store, s.Queue
	after, err := f.s.Tasks(f.ctx, fleet.TaskFilter{})
	if err != nil {
		f.Fatal(err)
	}
	i := slices.IndexFunc(before, func(t fleet.Task) bool { return t.ID == leased.Task.ID })
	before[i].Phases = fleet.Phases{} // back in the queue
	f.same("tasks", before, after)
	f.counts(2, 1, 1, 1)
	_, err = f.q.Extend(f.ctx, leased.Lease, visibility)
	f.is(err, fleet.ErrFenced, "lease of the process before")
	if _, err := f.q.Extend(f.ctx, claimed.Lease, visibility); err != nil {
		f.Errorf("lease of a claimed task: %v", err)
	}
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxClaimed || box.Task != claimed.Task.ID {
		f.Errorf("sandbox: %+v", box)
	}
	again := f.lease("p")
	if again.Task.ID != leased.Task.ID || again.Lease.Fence <= leased.Lease.Fence {
		f.Errorf("leased %+v after %+v", again.Lease, leased.Lease)
	}
	f.settle(claimed, fleet.TaskSucceeded)
	ev, err := f.s.AppendEvents(f.ctx, []fleet.Event{{Kind: "hold", At: time.Now()}})
	if err != nil || ev[0].Seq != 2 {
		f.Errorf("event after the restart: %+v, %v", ev, err)
	}
	st, err := f.q.Stats(f.ctx)
	if err != nil || st.Arrived != 5 || st.Pools[0].Arrived != 5 {
		f.Errorf("arrived: %+v, %v", st, err)
	}
}
