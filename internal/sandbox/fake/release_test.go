package fake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// TestTwoConsumers: each drives what it holds, and a task goes from one to the
// other.
func TestTwoConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		a := fake.New(fake.Options{Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
			r.Running()
			r.Print(fleet.StreamStdout, "begun\n")
			_ = r.Sleep(ctx, time.Hour)
			r.Print(fleet.StreamStdout, "done\n")
			return fleet.RunReport{}
		}})
		b := a.Beside()
		defer a.Close()
		defer b.Close()
		spec := fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now())}
		if _, err := a.Create(ctx, spec); err != nil {
			t.Fatal(err)
		}
		task := fleet.Assignment{Task: "t1", Fence: 1, LogBytes: 1 << 20}
		if err := b.Claim(ctx, spec.ID, task, newRecorder()); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("claim by who does not hold it: %v", err)
		}
		first, second := newRecorder(), newRecorder()
		if err := a.Claim(ctx, spec.ID, task, first); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, _, alive, err := b.Adopt(ctx, spec); alive || err != nil || time.Since(began) != 8*time.Second {
			t.Errorf("adopt of what another holds: %v, %v after %s", alive, err, time.Since(began))
		}
		if err := b.Release(ctx, spec.ID); err != nil {
			t.Errorf("release by who does not hold it: %v", err)
		}
		time.AfterFunc(time.Second, func() { _ = a.Release(ctx, spec.ID) })
		held, fence, alive, err := b.Adopt(ctx, spec)
		if held != task.Task || fence != 1 || !alive || err != nil {
			t.Fatalf("adopt: %q/%d, %v, %v", held, fence, alive, err)
		}
		if err := b.Claim(ctx, spec.ID, task, second); err != nil {
			t.Fatal(err)
		}
		<-second.done
		if first.LogOffset() != int64(len("begun\n")) || second.LogOffset() != int64(len("begun\ndone\n")) || len(first.done) > 0 {
			t.Errorf("logs %q and %q", first.log, second.log)
		}
	})
}

// TestExitsAreToldToTheHolder alone, and to nobody where nobody holds it.
func TestExitsAreToldToTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		a := fake.New(fake.Options{})
		b := a.Beside()
		defer a.Close()
		defer b.Close()
		var ids []fleet.SandboxID
		for range 3 {
			spec := fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now())}
			if _, err := a.Create(ctx, spec); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, spec.ID)
		}
		_ = a.Release(ctx, ids[0])
		a.Kill(ids[0], fleet.ReasonNodeLost)
		a.Kill(ids[1], fleet.ReasonOOM)
		if err := b.Destroy(ctx, ids[2]); err != nil { // behind the back of who holds it
			t.Fatal(err)
		}
		synctest.Wait()
		if x, y := <-a.Exited(), <-a.Exited(); x.ID != ids[1] || y.ID != ids[2] || len(a.Exited()) > 0 || len(b.Exited()) > 0 {
			t.Errorf("%+v, %+v", x, y)
		}
	})
}

// TestReleaseWhileStarting: the Create fails and leaves nothing.
func TestReleaseWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fake.New(fake.Options{Lead: func(fleet.SandboxSpec) time.Duration { return time.Minute }})
		defer s.Close()
		spec := fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now())}
		time.AfterFunc(time.Second, func() { _ = s.Release(ctx, spec.ID) })
		if _, err := s.Create(ctx, spec); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("create: %v", err)
		}
		if ids, err := s.List(ctx); len(ids) > 0 || err != nil {
			t.Errorf("list: %v, %v", ids, err)
		}
	})
}
