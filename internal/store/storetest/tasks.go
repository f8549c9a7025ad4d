package storetest

import (
	"context"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

const absent = fleet.TaskID("t00000000000000000000")

func testSubmit(f *fixture) {
	in := full()
	in.Spec.NotBefore = time.Now().Add(time.Minute)
	got := f.submit(in)[0]
	if got.State != fleet.TaskQueued || got.Attempt != 0 || got.Fence != 0 || !got.DueAt.Equal(in.Spec.NotBefore) ||
		!got.SubmittedAt.Equal(in.SubmittedAt) || got.ID != in.ID {
		f.Errorf("submitted: %+v", got)
	}
	f.same("spec", in.Spec, got.Spec)
	f.same("stored", got, f.task(in.ID))
	filled := f.submit(fleet.Task{Spec: fleet.TaskSpec{Pool: "p"}})[0]
	if !fleet.ValidID("t", string(filled.ID)) || filled.Spec.Tenant != "default" || !filled.DueAt.Equal(time.Now()) {
		f.Errorf("filled in: %+v", filled)
	}
	f.submit() // nothing is fine
	_, err := f.s.Task(f.ctx, absent)
	f.is(err, fleet.ErrNotFound, "absent task")
	_, err = f.s.Submit(f.ctx, []fleet.Task{{ID: "nonsense"}})
	f.is(err, fleet.ErrInvalid, "bad id")
	_, err = f.s.Submit(f.ctx, []fleet.Task{{State: fleet.TaskRunning}})
	f.is(err, fleet.ErrInvalid, "submitted running")
	_, err = f.s.Submit(f.ctx, []fleet.Task{plain("p"), {ID: in.ID}})
	f.is(err, fleet.ErrConflict, "id used twice")
	f.counts(1, 1, 0, 0)
}

func testAllOrNone(f *fixture) {
	f.submit(plain("p"), plain("p"))
	_, err := f.s.Submit(f.ctx, []fleet.Task{plain("p"), plain("p")})
	f.is(err, fleet.ErrFull, "beyond the bound")
	f.counts(2, 0, 0, 0)
	keyed := plain("p")
	keyed.Spec.IdempotencyKey = "k"
	f.submit(keyed)
	f.submit(keyed, keyed) // repeats add nothing
	d := f.lease("p")
	f.submit(plain("p")) // a leased task does not wait
	if err := f.q.Nack(f.ctx, d.Lease, 0, "back"); err != nil {
		f.Fatalf("a task that comes back was refused: %v", err)
	}
	_, err = f.s.Submit(f.ctx, []fleet.Task{plain("p")})
	f.is(err, fleet.ErrFull, "beyond the bound")
	f.counts(4, 0, 0, 0)
}

func testIdempotent(f *fixture) {
	in := full()
	first := f.submit(in)[0]
	again := in
	again.ID = fleet.NewTaskID(time.Now())
	again.Spec.NotBefore = time.Now().Add(time.Second) // "+1s", said again later
	f.same("repeated", first, f.submit(again)[0])
	other := again
	other.Spec.Prompt = "something else"
	_, err := f.s.Submit(f.ctx, []fleet.Task{plain("p"), other})
	f.is(err, fleet.ErrConflict, "key reused")
	tenant := again
	tenant.Spec.Tenant = "other"
	if got := f.submit(tenant)[0]; got.ID == first.ID {
		f.Error("a key of one tenant found the task of another")
	}
	twin := plain("p")
	twin.Spec.IdempotencyKey = "twin"
	both := f.submit(twin, twin)
	if both[0].ID != both[1].ID {
		f.Error("a key twice in one call made two tasks")
	}
	f.counts(2, 1, 0, 0)
	if _, err := f.s.Cancel(f.ctx, first.ID, "", time.Now()); err != nil {
		f.Fatal(err)
	}
	if got := f.submit(again)[0]; got.ID != first.ID || got.State != fleet.TaskCancelled {
		f.Errorf("repeated after the end: %+v", got)
	}
}

func testLife(f *fixture) {
	in := f.submit(full())[0]
	time.Sleep(2 * time.Second)
	d := f.lease(in.Spec.Pool)
	f.same("delivered", d.Task, f.task(in.ID))
	if d.Task.State != fleet.TaskQueued {
		f.Errorf("a leased task is %s", d.Task.State)
	}
	sb := f.ready(in.Spec.Pool)
	at := time.Now().UTC()
	t, err := f.s.ClaimSandbox(f.ctx, sb.Spec.ID, d.Lease, fleet.LaunchCold, at)
	if err != nil {
		f.Fatal(err)
	}
	if t.State != fleet.TaskClaimed || t.Sandbox != sb.Spec.ID || t.Node != "n1" || t.Launch != fleet.LaunchCold || !t.ClaimedAt.Equal(at) {
		f.Errorf("claimed: %+v", t)
	}
	box := f.sandbox(sb.Spec.ID)
	if box.State != fleet.SandboxClaimed || box.Task != in.ID || box.Fence != d.Lease.Fence || !box.ClaimedAt.Equal(at) {
		f.Errorf("claimed sandbox: %+v", box)
	}
	again, err := f.s.ClaimSandbox(f.ctx, sb.Spec.ID, d.Lease, fleet.LaunchCold, at)
	if err != nil {
		f.Fatalf("the same claim again: %v", err)
	}
	f.same("claimed again", t, again)
	for _, c := range []fleet.Change{
		{State: fleet.TaskStarting, StartedAt: at.Add(time.Second)},
		{State: fleet.TaskRunning, RunningAt: at.Add(2 * time.Second)},
		{State: fleet.TaskCollecting, Phases: &fleet.Phases{Run: time.Second}},
	} {
		if err := f.s.Change(f.ctx, in.ID, d.Lease.Fence, c); err != nil {
			f.Fatal(err)
		}
	}
	t = f.task(in.ID)
	if t.State != fleet.TaskCollecting || !t.StartedAt.Equal(at.Add(time.Second)) || !t.RunningAt.Equal(at.Add(2*time.Second)) || t.Phases.Run != time.Second {
		f.Errorf("changed: %+v", t)
	}
	f.counts(0, 0, 1, 0)
	end := fleet.Settlement{
		State: fleet.TaskFailed, EndedAt: at.Add(time.Minute), Phases: fleet.Phases{Queue: 1, Run: 2},
		Result: fleet.Result{Reason: fleet.ReasonExit, Message: "exit 3", ExitCode: 3, Artifacts: []fleet.Artifact{{Path: "a", Bytes: 1}}, Usage: fleet.Usage{At: at, CPU: time.Second}},
	}
	t, err = f.s.Settle(f.ctx, in.ID, d.Lease.Fence, end)
	if err != nil {
		f.Fatal(err)
	}
	if t.State != end.State || !t.EndedAt.Equal(end.EndedAt) || t.Phases != end.Phases {
		f.Errorf("settled: %+v", t)
	}
	f.same("result", end.Result, t.Result)
	f.same("stored", t, f.task(in.ID))
	box = f.sandbox(sb.Spec.ID)
	if box.State != fleet.SandboxDraining || box.Task != in.ID || box.Fence != d.Lease.Fence {
		f.Errorf("sandbox after the settlement: %+v", box)
	}
	_, err = f.s.Settle(f.ctx, in.ID, d.Lease.Fence, end)
	f.is(err, fleet.ErrFenced, "second completion")
	_, err = f.s.Retry(f.ctx, in.ID, d.Lease.Fence, at, "")
	f.is(err, fleet.ErrFenced, "retry after the completion")
	f.is(f.s.Change(f.ctx, in.ID, d.Lease.Fence, fleet.Change{State: fleet.TaskRunning}), fleet.ErrFenced, "change after the completion")
	if err := f.q.Ack(f.ctx, d.Lease); err != nil {
		f.Errorf("ack of what is settled: %v", err)
	}
	f.counts(0, 0, 0, 0)
}

func testClaim(f *fixture) {
	f.submit(plain("p"), plain("p"), plain("p"))
	a, b := f.lease("p"), f.lease("p")
	sb := f.ready("p")
	claim := func(d fleet.Delivery, id fleet.SandboxID) error {
		_, err := f.s.ClaimSandbox(f.ctx, id, d.Lease, fleet.LaunchWarm, time.Now())
		return err
	}
	f.is(claim(a, "s00000000000000000000"), fleet.ErrNotFound, "absent sandbox")
	if err := claim(a, sb.Spec.ID); err != nil {
		f.Fatal(err)
	}
	f.is(claim(b, sb.Spec.ID), fleet.ErrConflict, "claimed by another")
	f.is(claim(a, f.ready("p").Spec.ID), fleet.ErrConflict, "second sandbox for one task")
	for _, st := range []fleet.SandboxState{fleet.SandboxStarting, fleet.SandboxDraining, fleet.SandboxFailed, fleet.SandboxGone} {
		other := f.ready("p")
		other.State = st
		if err := f.s.PutSandbox(f.ctx, other); err != nil {
			f.Fatal(err)
		}
		f.is(claim(b, other.Spec.ID), fleet.ErrConflict, string(st))
	}
	time.Sleep(visibility)
	f.is(claim(b, f.ready("p").Spec.ID), fleet.ErrFenced, "lease ended")
	f.settle(a, fleet.TaskSucceeded)
	f.is(claim(a, f.ready("p").Spec.ID), fleet.ErrFenced, "settled")

	// Of many who claim one sandbox at once, one wins.
	f.submit(plain("q"), plain("q"), plain("q"), plain("q"))
	one, errs := f.ready("q"), make(chan error)
	for range 4 {
		d := f.lease("q")
		go func() { errs <- claim(d, one.Spec.ID) }()
	}
	won := 0
	for range 4 {
		if err := <-errs; err == nil {
			won++
		} else {
			f.is(err, fleet.ErrConflict, "lost the race")
		}
	}
	if won != 1 {
		f.Errorf("%d claims of one sandbox succeeded", won)
	}
}

func testClaimOutlasts(f *fixture) {
	f.submit(plain("p"))
	d, _ := f.claim("p")
	time.Sleep(10 * visibility)
	f.none("p")
	f.counts(0, 0, 1, 0)
	l, err := f.q.Extend(f.ctx, d.Lease, visibility)
	if err != nil || !l.Until.Equal(time.Now().Add(visibility)) {
		f.Errorf("extend after the end: %+v, %v", l, err)
	}
	time.Sleep(10 * visibility)
	f.settle(d, fleet.TaskSucceeded)
}

func testChange(f *fixture) {
	id := f.submit(plain("p"))[0].ID
	f.is(f.s.Change(f.ctx, absent, 1, fleet.Change{}), fleet.ErrNotFound, "absent")
	f.is(f.s.Change(f.ctx, id, 0, fleet.Change{State: fleet.TaskStarting}), fleet.ErrFenced, "queued")
	d := f.lease("p")
	f.is(f.s.Change(f.ctx, id, d.Lease.Fence, fleet.Change{State: fleet.TaskStarting}), fleet.ErrFenced, "leased only")
	sb := f.ready("p")
	if _, err := f.s.ClaimSandbox(f.ctx, sb.Spec.ID, d.Lease, fleet.LaunchWarm, time.Now()); err != nil {
		f.Fatal(err)
	}
	f.is(f.s.Change(f.ctx, id, d.Lease.Fence+1, fleet.Change{State: fleet.TaskStarting}), fleet.ErrFenced, "other fence")
	f.is(f.s.Change(f.ctx, id, d.Lease.Fence, fleet.Change{State: fleet.TaskSucceeded}), fleet.ErrInvalid, "final")
	f.is(f.s.Change(f.ctx, id, d.Lease.Fence, fleet.Change{State: fleet.TaskQueued}), fleet.ErrInvalid, "queued")
	for _, st := range []fleet.TaskState{fleet.TaskRunning, fleet.TaskStarting} { // a phase repeated late
		if err := f.s.Change(f.ctx, id, d.Lease.Fence, fleet.Change{State: st}); err != nil {
			f.Fatal(err)
		}
	}
	if got := f.task(id).State; got != fleet.TaskRunning {
		f.Errorf("went back to %s", got)
	}
}

func testRetry(f *fixture) {
	id := f.submit(plain("p"))[0].ID
	d, sb := f.claim("p")
	if err := f.s.Change(f.ctx, id, d.Lease.Fence, fleet.Change{State: fleet.TaskRunning, StartedAt: time.Now(), RunningAt: time.Now()}); err != nil {
		f.Fatal(err)
	}
	due := time.Now().Add(time.Minute).UTC()
	_, err := f.s.Retry(f.ctx, id, d.Lease.Fence+1, due, "")
	f.is(err, fleet.ErrFenced, "other fence")
	t, err := f.s.Retry(f.ctx, id, d.Lease.Fence, due, "the node vanished")
	if err != nil {
		f.Fatal(err)
	}
	if t.State != fleet.TaskQueued || !t.DueAt.Equal(due) || t.Sandbox != "" || t.Node != "" || t.Launch != "" ||
		!t.StartedAt.IsZero() || !t.ClaimedAt.IsZero() || t.Result.Message != "the node vanished" {
		f.Errorf("retried: %+v", t)
	}
	f.same("stored", t, f.task(id))
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxDraining {
		f.Errorf("the lost sandbox is %s", box.State)
	}
	_, err = f.s.Settle(f.ctx, id, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded})
	f.is(err, fleet.ErrFenced, "completion of the lost attempt")
	f.counts(0, 1, 0, 0)
	time.Sleep(time.Minute)
	second, _ := f.claim("p")
	if second.Lease.Fence <= d.Lease.Fence || second.Lease.Attempt != 2 {
		f.Errorf("second lease %+v", second.Lease)
	}
	_, err = f.s.Settle(f.ctx, id, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded})
	f.is(err, fleet.ErrFenced, "completion of the lost attempt")
	if t := f.settle(second, fleet.TaskSucceeded); t.Result.Message != "" {
		f.Errorf("the reason of the retry stuck: %+v", t.Result)
	}
}

func testNackClaimed(f *fixture) {
	id := f.submit(plain("p"))[0].ID
	d, sb := f.claim("p")
	if err := f.q.Nack(f.ctx, d.Lease, time.Second, "it would not start"); err != nil {
		f.Fatal(err)
	}
	if t := f.task(id); t.State != fleet.TaskQueued || t.Sandbox != "" {
		f.Errorf("nacked: %+v", t)
	}
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxDraining {
		f.Errorf("its sandbox is %s", box.State)
	}
}

func testCancel(f *fixture) {
	_, err := f.s.Cancel(f.ctx, absent, "", time.Now())
	f.is(err, fleet.ErrNotFound, "absent")
	now := time.Now().UTC()
	waiting := f.submit(plain("p"))[0]
	t, err := f.s.Cancel(f.ctx, waiting.ID, "ann", now)
	if err != nil {
		f.Fatal(err)
	}
	if t.State != fleet.TaskCancelled || t.Result.Reason != fleet.ReasonCancelled || t.CancelBy != "ann" || !t.EndedAt.Equal(now) {
		f.Errorf("cancelled while waiting: %+v", t)
	}
	f.same("stored", t, f.task(waiting.ID))
	f.none("p")
	f.counts(0, 0, 0, 0)

	later := plain("p")
	later.Spec.NotBefore = now.Add(time.Hour)
	if _, err = f.s.Cancel(f.ctx, f.submit(later)[0].ID, "", now); err != nil {
		f.Fatal(err)
	}
	f.counts(0, 0, 0, 0)

	f.submit(plain("p"))
	leased := f.lease("p")
	if t, err = f.s.Cancel(f.ctx, leased.Task.ID, "", now); err != nil || t.State != fleet.TaskCancelled {
		f.Fatalf("cancelled while leased: %+v, %v", t, err)
	}
	_, err = f.s.ClaimSandbox(f.ctx, f.ready("p").Spec.ID, leased.Lease, fleet.LaunchWarm, now)
	f.is(err, fleet.ErrFenced, "claim after cancel")
	f.counts(0, 0, 0, 0)

	f.submit(plain("p"))
	d, _ := f.claim("p")
	for _, by := range []string{"ann", "bob"} {
		if t, err = f.s.Cancel(f.ctx, d.Task.ID, by, now); err != nil || t.State != fleet.TaskClaimed || !t.Cancel || t.CancelBy != "ann" {
			f.Fatalf("cancelled while claimed: %+v, %v", t, err)
		}
	}
	t = f.settle(d, fleet.TaskCancelled)
	after, err := f.s.Cancel(f.ctx, d.Task.ID, "bob", now)
	if err != nil {
		f.Fatal(err)
	}
	f.same("cancelled after the end", t, after)
}

func testCancelLeads(f *fixture) {
	f.submit(plain("p"))
	d, sb := f.claim("p")
	if _, err := f.s.Cancel(f.ctx, d.Task.ID, "ann", time.Now()); err != nil {
		f.Fatal(err)
	}
	t, err := f.s.Retry(f.ctx, d.Task.ID, d.Lease.Fence, time.Now(), "lost")
	if err != nil {
		f.Fatal(err)
	}
	if t.State != fleet.TaskCancelled || t.Result.Reason != fleet.ReasonCancelled {
		f.Errorf("a cancelled task that lost its sandbox: %+v", t)
	}
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxDraining {
		f.Errorf("its sandbox is %s", box.State)
	}
	f.none("p")
	f.counts(0, 0, 0, 0)
}

func testExpire(f *fixture) {
	queued := func(d time.Duration) fleet.Task {
		t := plain("p")
		t.Spec.Timeouts.Queue = d
		return t
	}
	delayed := queued(time.Minute)
	delayed.Spec.NotBefore = time.Now().Add(10 * time.Minute)
	in := f.submit(queued(2*time.Minute), queued(time.Minute), queued(0), queued(time.Hour), delayed)
	expire := func(limit int) []fleet.TaskID {
		f.Helper()
		out, err := f.s.ExpireQueued(f.ctx, time.Now(), limit)
		if err != nil {
			f.Fatal(err)
		}
		for _, t := range out {
			if t.State != fleet.TaskTimedOut || t.Result.Reason != fleet.ReasonTimeoutQueue || !strings.Contains(t.Result.Message, "timeouts.queue") {
				f.Errorf("expired: %+v", t)
			}
			f.same("stored", t, f.task(t.ID))
		}
		return ids(out)
	}
	f.same("at once", []fleet.TaskID{}, expire(10))
	time.Sleep(5 * time.Minute)
	f.same("the oldest first", []fleet.TaskID{in[1].ID}, expire(1))
	f.same("the next", []fleet.TaskID{in[0].ID}, expire(10))
	f.same("no more", []fleet.TaskID{}, expire(10))
	f.counts(2, 1, 0, 0)
	time.Sleep(5*time.Minute + 30*time.Second)
	f.same("delayed, but due for half a minute only", []fleet.TaskID{}, expire(10))
	time.Sleep(30 * time.Second)
	f.same("delayed", []fleet.TaskID{in[4].ID}, expire(10))

	// The wait begins anew when a task lost its sandbox, not when it was merely
	// handed back.
	f.submit(fleet.Task{Spec: fleet.TaskSpec{Pool: "q", Timeouts: fleet.Timeouts{Queue: time.Minute}}})
	time.Sleep(45 * time.Second)
	d, _ := f.claim("q")
	time.Sleep(45 * time.Second)
	f.same("claimed", []fleet.TaskID{}, expire(10))
	if _, err := f.s.Retry(f.ctx, d.Task.ID, d.Lease.Fence, time.Now(), ""); err != nil {
		f.Fatal(err)
	}
	time.Sleep(45 * time.Second)
	f.same("retried", []fleet.TaskID{}, expire(10))
	l := f.lease("q")
	if err := f.q.Nack(f.ctx, l.Lease, 0, ""); err != nil {
		f.Fatal(err)
	}
	time.Sleep(30 * time.Second)
	f.same("handed back", []fleet.TaskID{d.Task.ID}, expire(10))
}

func testDead(f *fixture) {
	f.submit(plain("p"), plain("p"), plain("p"))
	a, _ := f.claim("p")
	b, sb := f.claim("p")
	c, _ := f.claim("p")
	f.settle(a, fleet.TaskLost)
	if err := f.q.DeadLetter(f.ctx, b.Lease, "it crashes the runner"); err != nil {
		f.Fatal(err)
	}
	f.settle(c, fleet.TaskFailed)
	t := f.task(b.Task.ID)
	if t.State != fleet.TaskFailed || t.Result.Reason != fleet.ReasonPoison || t.Result.Message != "it crashes the runner" || t.EndedAt.IsZero() {
		f.Errorf("dead: %+v", t)
	}
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxDraining {
		f.Errorf("its sandbox is %s", box.State)
	}
	f.counts(0, 0, 0, 2)
	if _, err := f.s.Prune(f.ctx, time.Now().Add(time.Hour), 10); err != nil {
		f.Fatal(err)
	}
	f.counts(0, 0, 0, 0)
}

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
