package storetest

import (
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
	t, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchCold, At: at})
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
	again, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchCold, At: at})
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
		_, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: id, Launch: fleet.LaunchWarm, At: time.Now()})
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
	if _, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()}); err != nil {
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
