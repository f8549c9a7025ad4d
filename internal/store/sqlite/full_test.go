package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestFullDisk fills the disk under a working database: every write is
// refused as ErrFull, what was accepted stays, reading goes on, and writing
// goes on once there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("muster-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	db := open(t, filepath.Join(dir, "muster.db"), Options{BackupEvery: -1})
	ctx, q := t.Context(), db.Queue()
	lease := fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute}
	task := fleet.Task{Spec: fleet.TaskSpec{Pool: "p", Prompt: strings.Repeat("x", 3000)}}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Submit(ctx, []fleet.Task{task}); err != nil {
		t.Fatal(err)
	}
	held, err := q.Lease(ctx, lease)
	if err != nil || len(held) != 1 {
		t.Fatal(err)
	}
	accepted := 0
	for err == nil && accepted < 10_000 {
		if _, err = db.Submit(ctx, []fleet.Task{task}); err == nil {
			accepted++
		}
	}
	if !errors.Is(err, fleet.ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("after %d tasks: %v", accepted, err)
	}
	check := func(backlog, inFlight int) {
		t.Helper()
		st, err := q.Stats(ctx)
		if err != nil || st.Backlog != backlog || st.InFlight != inFlight {
			t.Fatalf("stats %+v, %v; want %d waiting, %d in flight", st, err, backlog, inFlight)
		}
	}
	check(accepted, 1)
	// Whatever else is tried either works or is refused as full, and leaves
	// memory and file in agreement.
	backlog, inFlight := accepted, 1
	for range 50 {
		got, err := q.Lease(ctx, lease)
		if err != nil && !errors.Is(err, fleet.ErrFull) {
			t.Fatalf("lease: %v", err)
		}
		backlog, inFlight = backlog-len(got), inFlight+len(got)
		check(backlog, inFlight)
	}
	_, err = db.Settle(ctx, held[0].Lease.Task, held[0].Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, Result: fleet.Result{Message: strings.Repeat("y", 8000)}})
	if err != nil && !errors.Is(err, fleet.ErrFull) {
		t.Fatalf("settle: %v", err)
	}
	full := err != nil
	if _, err := db.Task(ctx, held[0].Lease.Task); err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	if _, err := db.Backup(ctx); !errors.Is(err, fleet.ErrFull) {
		t.Errorf("copy on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if full {
		if _, err := db.Settle(ctx, held[0].Lease.Task, held[0].Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded}); err != nil {
			t.Fatalf("settle once there is space: %v", err)
		}
	}
	if _, err := db.Submit(ctx, []fleet.Task{task}); err != nil {
		t.Fatalf("submit once there is space: %v", err)
	}
	check(backlog+1, inFlight-1)
	recount(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	recount(t, open(t, filepath.Join(dir, "muster.db"), Options{BackupEvery: -1}))
}
