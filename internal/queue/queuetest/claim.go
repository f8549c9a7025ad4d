package queuetest

import (
	"errors"
	"time"

	"muster.dev/muster/internal/fleet"
)

// testClaim leases and claims in one step.
func testClaim(f *fixture) {
	asked := 0
	at := time.Now()
	lease := func(id fleet.SandboxID, n int) []fleet.Delivery {
		f.Helper()
		got, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": n}, Visibility: visibility,
			Claim: func(t fleet.Task) (fleet.Claim, bool) {
				asked++
				if t.State != fleet.TaskQueued || t.Fence == 0 {
					f.Errorf("asked for a sandbox for %s with fence %d", t.State, t.Fence)
				}
				return fleet.Claim{Sandbox: id, Launch: fleet.LaunchWarm, At: at}, id != ""
			}})
		if err != nil || len(got) != n {
			f.Fatalf("leased %d tasks of %d: %v", len(got), n, err)
		}
		return got
	}
	if f.Records == nil {
		f.names("one")
		if d := lease("s1", 1); asked != 0 || d[0].Task.State != fleet.TaskQueued {
			f.Errorf("asked %d times by a queue that has no sandboxes, and delivered %s", asked, d[0].Task.State)
		}
		return
	}
	box := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(at), Pool: "p", Node: "n"}, State: fleet.SandboxReady}
	if err := f.Records.PutSandbox(f.ctx, box); err != nil {
		f.Fatal(err)
	}
	f.names("none", "unknown", "first", "second")
	for i, id := range []fleet.SandboxID{"", fleet.NewSandboxID(at)} {
		if d := lease(id, 1); d[0].Task.State != fleet.TaskQueued || asked != i+1 {
			f.Errorf("without a sandbox to claim: delivered %s after asking %d times", d[0].Task.State, asked)
		}
	}
	// Two tasks for one sandbox: the first has it.
	got := lease(box.Spec.ID, 2)
	first, second := got[0], got[1]
	if t := first.Task; t.State != fleet.TaskClaimed || t.Sandbox != box.Spec.ID || t.Node != "n" ||
		t.Launch != fleet.LaunchWarm || !t.ClaimedAt.Equal(at) || t.Fence != first.Lease.Fence {
		f.Errorf("claimed %+v", t)
	}
	if second.Task.State != fleet.TaskQueued {
		f.Errorf("the second task was delivered %s", second.Task.State)
	}
	if s, err := f.Records.Sandbox(f.ctx, box.Spec.ID); err != nil || s.State != fleet.SandboxClaimed || s.Task != first.Task.ID || s.Fence != first.Lease.Fence {
		f.Errorf("the sandbox is %s by %s fence %d, %v", s.State, s.Task, s.Fence, err)
	}
	if _, err := f.Records.ClaimSandbox(f.ctx, second.Lease, fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: at}); !errors.Is(err, fleet.ErrConflict) {
		f.Errorf("claim of a claimed sandbox: %v", err)
	}
	if _, err := f.Records.ClaimSandbox(f.ctx, first.Lease, fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: at}); err != nil {
		f.Errorf("claim again by the same lease: %v", err)
	}
	// A task that holds a sandbox keeps it whatever the clock says.
	time.Sleep(2 * visibility)
	if _, err := f.q.Extend(f.ctx, first.Lease, visibility); err != nil {
		f.Errorf("extend: %v", err)
	}
	if err := f.Settle(f.ctx, first); err != nil {
		f.Errorf("settle: %v", err)
	}
	if _, err := f.q.Extend(f.ctx, second.Lease, visibility); !errors.Is(err, fleet.ErrFenced) {
		f.Errorf("extend of a lease without a claim that ended: %v", err)
	}
}
