package storetest

import (
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

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
	_, err = f.s.ClaimSandbox(f.ctx, leased.Lease, fleet.Claim{Sandbox: f.ready("p").Spec.ID, Launch: fleet.LaunchWarm, At: now})
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
