package postgres

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// of makes a waiting sandbox of an owner.
func of(t testing.TB, db *DB, owner string) fleet.Sandbox {
	t.Helper()
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Pool: "p", Node: "n1"}, State: fleet.SandboxReady, Owner: owner}
	if err := db.PutSandbox(context.Background(), sb); err != nil {
		t.Fatal(err)
	}
	return sb
}

// testPushSandboxes: whatever a process does to a record wakes another.
func testPushSandboxes(t *testing.T, s *servers.Postgres) {
	for _, tt := range []struct {
		name string
		poll bool
		soon time.Duration
	}{{"push", false, 500 * time.Millisecond}, {"poll", true, 5 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			a, b := pair(t, s, Options{Poll: tt.poll})
			boxes, release := b.WakeSandboxes()
			defer release()
			events, releaseEvents := b.WakeEvents()
			defer releaseEvents()
			if !tt.poll {
				listening(t, b)
			}
			submit(t, a, task("p", "x"), task("p", "x"))
			time.Sleep(2 * tick) // the clocks have looked
			drain(boxes)
			drain(events)
			var all []time.Duration // one may be late on a busy machine; not most
			wakes := func(what string, do func() error) {
				t.Helper()
				start := time.Now()
				if err := do(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if !within(boxes, 10*time.Second) {
					t.Fatalf("not woken by another's %s", what)
				}
				all = append(all, time.Since(start))
				drain(boxes)
			}
			var sb fleet.Sandbox
			var d fleet.Delivery
			wakes("put", func() error { sb = of(t, a, "a"); return nil })
			wakes("swap", func() error { return a.SwapSandbox(ctx, sb, fleet.SandboxReady, "a") })
			wakes("lease with a claim", func() error {
				got, err := a.Queue().Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute, Claim: func(fleet.Task) (fleet.Claim, bool) {
					return fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "a"}, true
				}})
				if err != nil || len(got) != 1 || got[0].Task.State != fleet.TaskClaimed {
					t.Fatalf("leased %+v, %v", got, err)
				}
				d = got[0]
				return nil
			})
			wakes("take-over", func() error {
				_, running, err := a.TakeOver(ctx, sb.Spec.ID, "a", "b")
				d.Lease.Fence = running.Fence
				return err
			})
			wakes("settlement", func() error {
				_, err := a.Settle(ctx, d.Task.ID, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()})
				return err
			})
			wakes("put", func() error { sb = of(t, a, "a"); return nil })
			d = lease(t, a, "p", 1)[0]
			wakes("claim", func() error {
				_, err := a.ClaimSandbox(ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "a"})
				return err
			})
			wakes("retry", func() error { _, err := a.Retry(ctx, d.Task.ID, d.Lease.Fence, time.Now(), ""); return err })
			if within(events, 50*time.Millisecond) {
				t.Error("readers of events woken by records of sandboxes")
			}
			slices.Sort(all)
			if half := all[len(all)/2]; half > tt.soon {
				t.Errorf("woken by another's writes after %s", all)
			}
			time.Sleep(2 * tick) // the clocks have looked, and told again of what was pushed
			drain(boxes)
			if _, err := a.AppendEvents(ctx, []fleet.Event{{Kind: "hold"}}); err != nil {
				t.Fatal(err)
			}
			if !within(events, 10*time.Second) || within(boxes, 50*time.Millisecond) {
				t.Error("readers of records of sandboxes woken by events, or those of events not")
			}
		})
	}
}

// testTakeOverFrom: what a consumer's process claimed is the heir's, though the
// consumer lives, closes its store, or the leader is followed by another.
func testTakeOverFrom(t *testing.T, s *servers.Postgres) {
	ctx := t.Context()
	leader, owner := pair(t, s, Options{})
	lead(t, leader)
	heir := open(t, s, Options{Schema: leader.channel()})
	submit(t, leader, task("p", "x"))
	sb := of(t, leader, "owner")
	d := lease(t, owner, "p", 1)[0]
	if _, err := owner.ClaimSandbox(ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "owner"}); err != nil {
		t.Fatal(err)
	}
	box, running, err := leader.TakeOver(ctx, sb.Spec.ID, "owner", "heir")
	if err != nil || running.Fence != d.Lease.Fence+1 || box.HeldFence() != d.Lease.Fence {
		t.Fatalf("taken over: %+v, %+v, %v", box, running, err)
	}
	if n := query[int](t, leader, "SELECT count(*) FROM \""+leader.channel()+"\".tasks WHERE id = $1 AND place = 3 AND lease_until = 0 AND fence = $2", string(running.ID), running.Fence); n != 1 {
		t.Error("its task is not where claimed tasks are")
	}
	if _, err := owner.Settle(ctx, d.Task.ID, d.Lease.Fence, fleet.Settlement{State: fleet.TaskLost, EndedAt: time.Now()}); !errors.Is(err, fleet.ErrFenced) || errors.Is(err, ErrDeposed) {
		t.Errorf("settled by the former owner: %v", err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	lead(t, heir) // as a leader that follows
	if st := statsOf(t, heir); st.InFlight != 1 || st.Backlog != 0 {
		t.Errorf("stats %+v", st)
	}
	if _, err := heir.Settle(ctx, d.Task.ID, running.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()}); err != nil {
		t.Error(err)
	}
	recount(t, heir)
}

// testTakeOverClaimed: of a take-over and a claim by the former owner that meet,
// both are seen by both, whichever is first.
func testTakeOverClaimed(t *testing.T, s *servers.Postgres) {
	leader, owner := pair(t, s, Options{})
	lead(t, leader)
	first := map[bool]int{}
	for i := range 40 {
		submit(t, leader, task("p", "x"))
		sb := of(t, leader, "owner")
		leased, named := make(chan fleet.Delivery), make(chan struct{})
		go func() {
			got, err := owner.Queue().Lease(context.Background(), fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute, Claim: func(fleet.Task) (fleet.Claim, bool) {
				close(named)
				return fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "owner"}, true
			}})
			if err != nil || len(got) != 1 {
				t.Errorf("leased %v, %v", got, err)
				got = make([]fleet.Delivery, 1)
			}
			leased <- got[0]
		}()
		if i%2 == 0 {
			<-named // the claim is chosen and not written
		}
		box, running, err := leader.TakeOver(context.Background(), sb.Spec.ID, "owner", "heir")
		d := <-leased
		if err != nil || box.Owner != "heir" {
			t.Fatalf("taken over: %+v, %v", box, err)
		}
		claimed := d.Task.State == fleet.TaskClaimed
		first[claimed]++
		if claimed != (running.ID != "") || claimed && (running.Fence != d.Lease.Fence+1 || box.Fence != running.Fence) {
			t.Fatalf("leased %+v, and taken over %+v with %+v", d, box, running)
		}
		fence := max(d.Lease.Fence, running.Fence)
		if _, err := leader.Settle(context.Background(), d.Task.ID, fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("claimed first: %d, taken over first: %d", first[true], first[false])
	recount(t, leader)
}

// testAges: a process whose clock is wrong neither seems dead nor sees others so.
func testAges(t *testing.T, s *servers.Postgres) {
	schema := fresh()
	right := open(t, s, Options{Schema: schema})
	wrong := open(t, s, Options{Schema: schema, Clock: func() time.Time { return time.Now().Add(-time.Hour) }})
	for name, db := range map[string]*DB{"right": right, "wrong": wrong} {
		if err := db.PutConsumer(t.Context(), fleet.Consumer{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, db := range []*DB{right, wrong} {
		all, err := db.Consumers(t.Context())
		if err != nil || len(all) != 2 {
			t.Fatalf("consumers %+v, %v", all, err)
		}
		for _, c := range all {
			if c.Age < 0 || c.Age > time.Minute {
				t.Errorf("%s is %s old", c.Name, c.Age)
			}
		}
	}
}
