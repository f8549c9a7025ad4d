package storetest

import (
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// owned makes a sandbox that waits, of an owner.
func (f *fixture) owned(pool fleet.PoolKey, owner string) fleet.Sandbox {
	f.Helper()
	sb := f.ready(pool)
	sb.Owner = owner
	if err := f.s.PutSandbox(f.ctx, sb); err != nil {
		f.Fatal(err)
	}
	return sb
}

// inside brings a task into a sandbox of an owner.
func (f *fixture) inside(pool fleet.PoolKey, owner string) (fleet.Delivery, fleet.Sandbox) {
	f.Helper()
	f.submit(plain(pool))
	d, sb := f.lease(pool), f.owned(pool, owner)
	t, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: owner})
	if err != nil {
		f.Fatal(err)
	}
	d.Task = t
	return d, f.sandbox(sb.Spec.ID)
}

func (f *fixture) takeOver(id fleet.SandboxID, from, to string) (fleet.Sandbox, fleet.Task) {
	f.Helper()
	sb, t, err := f.s.TakeOver(f.ctx, id, from, to)
	if err != nil {
		f.Fatal(err)
	}
	f.same("taken over", sb, f.sandbox(id))
	if t.ID != "" {
		f.same("the task in it", t, f.task(t.ID))
	}
	return sb, t
}

func testSwap(f *fixture) {
	sb := f.owned("p", "a")
	swap := func(to, state fleet.SandboxState, owner string) error {
		f.Helper()
		before := f.sandbox(sb.Spec.ID)
		next := before
		next.State, next.Message = to, fmt.Sprintf("as %s", to)
		err := f.s.SwapSandbox(f.ctx, next, state, owner)
		if err == nil {
			before = next
		}
		f.same("stored", before, f.sandbox(sb.Spec.ID))
		return err
	}
	if err := swap(fleet.SandboxDraining, fleet.SandboxReady, "a"); err != nil {
		f.Fatal(err)
	}
	f.is(swap(fleet.SandboxDraining, fleet.SandboxReady, "a"), fleet.ErrConflict, "another state")
	f.is(swap(fleet.SandboxReady, fleet.SandboxDraining, "b"), fleet.ErrConflict, "another owner")
	f.is(swap(fleet.SandboxReady, fleet.SandboxDraining, ""), fleet.ErrConflict, "no owner")
	f.is(swap(fleet.SandboxReady, "", "b"), fleet.ErrConflict, "any state, another owner")
	if err := swap(fleet.SandboxReady, fleet.SandboxDraining, "a"); err != nil {
		f.Fatal(err)
	}
	// All of a record is written.
	next := f.sandbox(sb.Spec.ID)
	next.State, next.Order, next.Failure, next.Message = fleet.SandboxDraining, "scale-in", fleet.ReasonNodeLost, "why"
	next.Usage.CPU, next.Isolation.Lost = time.Second, []string{"x"}
	if err := f.s.SwapSandbox(f.ctx, next, "", "a"); err != nil {
		f.Fatal(err)
	}
	f.same("swapped", next, f.sandbox(sb.Spec.ID))
	next.State, next.GoneAt = fleet.SandboxGone, time.Now().UTC()
	if err := f.s.SwapSandbox(f.ctx, next, fleet.SandboxDraining, "a"); err != nil {
		f.Fatal(err)
	}
	f.same("gone", next, f.sandbox(sb.Spec.ID))
	f.is(swap(fleet.SandboxDraining, "", "a"), fleet.ErrConflict, "gone")
	next.Spec.ID = fleet.NewSandboxID(time.Now())
	f.is(f.s.SwapSandbox(f.ctx, next, "", "a"), fleet.ErrNotFound, "absent")
	f.is(f.s.SwapSandbox(f.ctx, next, fleet.SandboxReady, ""), fleet.ErrNotFound, "absent")

	// What the control plane itself owns has no owner.
	if err := f.s.SwapSandbox(f.ctx, f.ready("p"), fleet.SandboxReady, ""); err != nil {
		f.Error(err)
	}
}

func testSwapOverlooks(f *fixture) {
	d, sb := f.inside("p", "a")
	stale := sb
	stale.Task, stale.Fence, stale.ClaimedAt = "", 0, time.Time{}
	for _, st := range []fleet.SandboxState{fleet.SandboxReady, fleet.SandboxStarting, fleet.SandboxDraining} {
		stale.State = st
		f.is(f.s.SwapSandbox(f.ctx, stale, fleet.SandboxReady, "a"), fleet.ErrConflict, "claimed meanwhile, as "+string(st))
		f.is(f.s.SwapSandbox(f.ctx, stale, "", "a"), fleet.ErrConflict, "claimed meanwhile, in any state, as "+string(st))
	}
	f.same("left alone", sb, f.sandbox(sb.Spec.ID))
	// Of one who drains and one who claims at once, one wins.
	f.settle(d, fleet.TaskSucceeded)
	for range 8 {
		f.submit(plain("p"))
		d, one := f.lease("p"), f.owned("p", "a")
		drained, swapped := one, make(chan error)
		drained.State = fleet.SandboxDraining
		go func() { swapped <- f.s.SwapSandbox(f.ctx, drained, fleet.SandboxReady, "a") }()
		_, claimed := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: one.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "a"})
		err := <-swapped
		if (err == nil) == (claimed == nil) || err != nil && !errors.Is(err, fleet.ErrConflict) || claimed != nil && !errors.Is(claimed, fleet.ErrConflict) {
			f.Fatalf("swap: %v, claim: %v", err, claimed)
		}
		f.settle(d, fleet.TaskSucceeded)
	}
}

func testTakeOver(f *fixture) {
	_, _, err := f.s.TakeOver(f.ctx, fleet.NewSandboxID(time.Now()), "a", "b")
	f.is(err, fleet.ErrNotFound, "absent")
	for _, st := range []fleet.SandboxState{fleet.SandboxStarting, fleet.SandboxReady, fleet.SandboxDraining, fleet.SandboxFailed} {
		sb := f.owned("p", "a")
		sb.State, sb.Order = st, "an order"
		if err := f.s.PutSandbox(f.ctx, sb); err != nil {
			f.Fatal(err)
		}
		for _, from := range []string{"b", ""} {
			_, _, err := f.s.TakeOver(f.ctx, sb.Spec.ID, from, "b")
			f.is(err, fleet.ErrConflict, fmt.Sprintf("%s, from %q", st, from))
		}
		f.same("left alone", sb, f.sandbox(sb.Spec.ID))
		got, t := f.takeOver(sb.Spec.ID, "a", "b")
		sb.Owner = "b"
		f.same(string(st), sb, got)
		f.same("no task", fleet.Task{}, t)
		_, _, err := f.s.TakeOver(f.ctx, sb.Spec.ID, "a", "c")
		f.is(err, fleet.ErrConflict, "again from the former owner")
	}
	gone := f.owned("p", "a")
	gone.State, gone.GoneAt = fleet.SandboxGone, time.Now().UTC()
	if err := f.s.PutSandbox(f.ctx, gone); err != nil {
		f.Fatal(err)
	}
	_, _, err = f.s.TakeOver(f.ctx, gone.Spec.ID, "a", "b")
	f.is(err, fleet.ErrConflict, "gone")
	// To and from the control plane itself.
	sb := f.ready("p")
	f.takeOver(sb.Spec.ID, "", "a")
	if got, _ := f.takeOver(sb.Spec.ID, "a", ""); got.Owner != "" {
		f.Errorf("owner %q", got.Owner)
	}
	// A task that has ended is in nothing any more.
	d, sb := f.inside("p", "a")
	f.settle(d, fleet.TaskSucceeded)
	if got, t := f.takeOver(sb.Spec.ID, "a", "b"); t.ID != "" || got.Fence != d.Lease.Fence || got.RunFence != 0 || got.State != fleet.SandboxDraining {
		f.Errorf("after the end: %+v, %+v", got, t)
	}
	if t := f.task(d.Task.ID); t.Fence != d.Lease.Fence {
		f.Errorf("the fence of an ended task was raised: %+v", t)
	}
	// Nor is one that runs elsewhere.
	d, sb = f.inside("p", "a")
	if _, err := f.s.Retry(f.ctx, d.Task.ID, d.Lease.Fence, time.Now(), "lost"); err != nil {
		f.Fatal(err)
	}
	again, _ := f.claim("p")
	if got, t := f.takeOver(sb.Spec.ID, "a", "b"); t.ID != "" || got.Fence != d.Lease.Fence {
		f.Errorf("after a retry: %+v, %+v", got, t)
	}
	f.settle(again, fleet.TaskSucceeded)
}

// testTakeOverRunning: from the take-over on nothing of the former owner counts.
func testTakeOverRunning(f *fixture) {
	for _, at := range []fleet.TaskState{fleet.TaskClaimed, fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting} {
		d, sb := f.inside("p", "a")
		id, old := d.Task.ID, d.Lease
		if err := f.s.Change(f.ctx, id, old.Fence, fleet.Change{State: at, StartedAt: time.Now(), Phases: &fleet.Phases{Queue: 1}}); err != nil {
			f.Fatal(err)
		}
		want := f.task(id)
		_, _, err := f.s.TakeOver(f.ctx, sb.Spec.ID, "b", "b")
		f.is(err, fleet.ErrConflict, "not the owner")
		got, t := f.takeOver(sb.Spec.ID, "a", "b")
		want.Fence++
		f.same("task", want, t)
		held := sb.Fence
		sb.Owner, sb.RunFence, sb.Fence = "b", held, held+1
		f.same("sandbox", sb, got)
		if got.HeldFence() != held {
			f.Errorf("its runner holds fence %d, want %d", got.HeldFence(), held)
		}

		_, err = f.q.Extend(f.ctx, old, visibility)
		f.is(err, fleet.ErrFenced, "extend")
		f.is(f.s.Change(f.ctx, id, old.Fence, fleet.Change{State: fleet.TaskCollecting}), fleet.ErrFenced, "change")
		_, err = f.s.Settle(f.ctx, id, old.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()})
		f.is(err, fleet.ErrFenced, "settle")
		_, err = f.s.Retry(f.ctx, id, old.Fence, time.Now(), "lost")
		f.is(err, fleet.ErrFenced, "retry")
		f.is(f.q.Nack(f.ctx, old, 0, ""), fleet.ErrFenced, "nack")
		f.is(f.q.DeadLetter(f.ctx, old, ""), fleet.ErrFenced, "dead-letter")
		f.is(f.q.Ack(f.ctx, old), fleet.ErrFenced, "ack")
		_, err = f.s.ClaimSandbox(f.ctx, old, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "a"})
		f.is(err, fleet.ErrFenced, "claim")
		stale := f.sandbox(sb.Spec.ID)
		stale.Owner, stale.Fence, stale.RunFence = "a", held, 0
		f.is(f.s.SwapSandbox(f.ctx, stale, fleet.SandboxClaimed, "a"), fleet.ErrConflict, "swap")
		f.is(f.s.PutSandbox(f.ctx, stale), fleet.ErrConflict, "put")
		f.same("task", want, f.task(id))
		f.same("sandbox", sb, f.sandbox(sb.Spec.ID))
		f.counts(0, 0, 1, 0)

		// A second take-over still knows what the runner was given.
		got, t = f.takeOver(sb.Spec.ID, "b", "c")
		if got.HeldFence() != held || got.Fence != held+2 || t.Fence != held+2 || t.Attempt != old.Attempt {
			f.Errorf("taken over again: %+v, %+v", got, t)
		}
		time.Sleep(2 * visibility) // the claim still outlasts the lease
		f.none("p")
		now := fleet.Lease{Task: id, Attempt: old.Attempt, Fence: t.Fence}
		if _, err := f.q.Extend(f.ctx, now, visibility); err != nil {
			f.Error(err)
		}
		if err := f.s.Change(f.ctx, id, now.Fence, fleet.Change{State: fleet.TaskCollecting}); err != nil {
			f.Error(err)
		}
		f.reopenTaken()
		f.settle(fleet.Delivery{Lease: now}, fleet.TaskSucceeded)
		_, err = f.s.Settle(f.ctx, id, now.Fence, fleet.Settlement{State: fleet.TaskSucceeded})
		f.is(err, fleet.ErrFenced, "second completion")
		if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxDraining || box.Owner != "c" || box.HeldFence() != held {
			f.Errorf("after the settlement: %+v", box)
		}
		f.counts(0, 0, 0, 0)
	}

	// The next attempt has a fence above all.
	d, sb := f.inside("p", "a")
	_, t := f.takeOver(sb.Spec.ID, "a", "b")
	if _, err := f.s.Retry(f.ctx, t.ID, t.Fence, time.Now(), "lost"); err != nil {
		f.Fatal(err)
	}
	if next := f.lease("p"); next.Task.ID != d.Task.ID || next.Lease.Fence <= t.Fence || next.Lease.Attempt != 2 {
		f.Errorf("leased again: %+v", next.Lease)
	}
}

// reopenTaken goes on with the store as it is after a restart.
func (f *fixture) reopenTaken() {
	if f.Reopen == nil {
		return
	}
	f.Subject = f.Reopen(f.T)
	f.s, f.q = f.Store, f.Queue
}

// testTakeOverRace: of many who take over at once one wins, and the former
// owner's completion counts or the new one's, never both.
func testTakeOverRace(f *fixture) {
	for i := range 6 {
		d, sb := f.inside("p", "a")
		type outcome struct {
			t   fleet.Task
			err error
		}
		outcomes, settled := make(chan outcome), make(chan error)
		for n := range 4 {
			go func() {
				_, t, err := f.s.TakeOver(f.ctx, sb.Spec.ID, "a", fmt.Sprint("heir ", n))
				outcomes <- outcome{t, err}
			}()
		}
		go func() {
			if i%2 == 0 {
				settled <- fleet.ErrFenced // nobody does
				return
			}
			_, err := f.s.Settle(f.ctx, d.Task.ID, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()})
			settled <- err
		}()
		var won []fleet.Task
		for range 4 {
			if o := <-outcomes; o.err == nil {
				won = append(won, o.t)
			} else {
				f.is(o.err, fleet.ErrConflict, "lost the race")
			}
		}
		if len(won) != 1 {
			f.Fatalf("%d take-overs won", len(won))
		}
		err := <-settled
		if (err == nil) == (won[0].ID != "") {
			f.Fatalf("settled by the former owner: %v, and taken over: %+v", err, won[0])
		}
		if err != nil {
			f.is(err, fleet.ErrFenced, "settled by the former owner")
			if won[0].Fence != d.Lease.Fence+1 {
				f.Errorf("fence %d after %d", won[0].Fence, d.Lease.Fence)
			}
			f.settle(fleet.Delivery{Lease: fleet.Lease{Task: d.Task.ID, Fence: won[0].Fence}}, fleet.TaskSucceeded)
		}
	}
}

// testForeign: a sandbox is claimed for its owner only.
func testForeign(f *fixture) {
	for _, tt := range []struct{ owner, claimer string }{{"a", "b"}, {"a", ""}, {"", "a"}} {
		f.submit(plain("p"))
		sb := f.owned("p", tt.owner)
		asked := 0
		claim := fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: tt.claimer}
		got, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: visibility, Consumer: tt.claimer,
			Claim: func(fleet.Task) (fleet.Claim, bool) { asked++; return claim, true }})
		if err != nil || len(got) != 1 || asked != 1 {
			f.Fatalf("leased %d tasks after asking %d times, %v", len(got), asked, err)
		}
		d := got[0]
		if d.Task.State != fleet.TaskQueued || d.Task.Sandbox != "" {
			f.Errorf("of %q, for %q: delivered %+v", tt.owner, tt.claimer, d.Task)
		}
		f.same("task", d.Task, f.task(d.Task.ID))
		_, err = f.s.ClaimSandbox(f.ctx, d.Lease, claim)
		f.is(err, fleet.ErrConflict, fmt.Sprintf("of %q, for %q", tt.owner, tt.claimer))
		f.same("left alone", sb, f.sandbox(sb.Spec.ID))
		claim.Owner = tt.owner
		if _, err = f.s.ClaimSandbox(f.ctx, d.Lease, claim); err != nil {
			f.Error(err)
		}
		claim.Owner = tt.claimer
		_, err = f.s.ClaimSandbox(f.ctx, d.Lease, claim)
		f.is(err, fleet.ErrConflict, "claimed already, and by another")
		f.settle(d, fleet.TaskSucceeded)
	}
	// Taken over before the claim: its former owner has it no more.
	f.submit(plain("p"))
	sb := f.owned("p", "a")
	f.takeOver(sb.Spec.ID, "a", "b")
	for owner, state := range map[string]fleet.TaskState{"a": fleet.TaskQueued, "b": fleet.TaskClaimed} {
		f.submit(plain("p"))
		got, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: visibility, Claim: func(fleet.Task) (fleet.Claim, bool) {
			return fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: owner}, true
		}})
		if err != nil || len(got) != 1 || got[0].Task.State != state {
			f.Errorf("leased by %s: %+v, %v", owner, got, err)
		}
	}
	if box := f.sandbox(sb.Spec.ID); box.State != fleet.SandboxClaimed || box.Owner != "b" {
		f.Errorf("claimed: %+v", box)
	}
}
