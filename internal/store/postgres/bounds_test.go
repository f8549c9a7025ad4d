package postgres

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// testBounds: the journal keeps so many records, and thins decisions out.
func testBounds(t *testing.T, s *servers.Postgres) {
	db := open(t, s, Options{Schema: fresh(), Events: 300, Decisions: 100, ThinDecisions: time.Hour})
	batch := make([]fleet.Event, 100)
	for range 12 {
		if _, err := db.AppendEvents(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	ev, err := db.Events(t.Context(), fleet.EventFilter{Limit: 10_000})
	if err != nil || len(ev) < 300 || len(ev) > 300+2*portion || ev[len(ev)-1].Seq != 1200 {
		t.Errorf("%d events, %v", len(ev), err)
	}
	decide := func(changed bool, policy string) int64 {
		t.Helper()
		seq, err := db.AppendDecision(t.Context(), fleet.DecisionRecord{At: time.Now(), Changed: changed, Observation: []byte("{}"), Plan: []byte("{}"), State: []byte("{}")}, []byte(policy))
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	first := decide(true, "first")
	if again := decide(false, "first"); again != first {
		t.Errorf("an unchanged decision was stored as %d, after %d", again, first)
	}
	for range 400 {
		decide(true, "second")
	}
	all, err := db.Decisions(t.Context(), fleet.DecisionFilter{Limit: 10_000})
	if err != nil || len(all) < 100 || len(all) > 100+2*portion {
		t.Errorf("%d decisions, %v", len(all), err)
	}
	if _, err := db.Policy(t.Context(), fleet.PolicyDigest([]byte("second"))); err != nil {
		t.Error(err)
	}
	if all[0].Seq > first {
		if _, err := db.Policy(t.Context(), fleet.PolicyDigest([]byte("first"))); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("a policy of decisions that are gone: %v", err)
		}
	}
}

// testFullDisk fills the disk of a tablespace. Nothing half-done is kept, and
// calls succeed once there is space.
func testFullDisk(t *testing.T, s *servers.Postgres) {
	dir, err := os.MkdirTemp("", "muster-full-") //nolint:usetesting // the parents of t.TempDir are closed to the server
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=12m,mode=0777"); err != nil {
		t.Skipf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	db := open(t, s, Options{Schema: fresh()})
	owner, err := os.Stat(query[string](t, db, "SHOW data_directory"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(owner.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
		t.Fatal(err)
	}
	admin(t, s, "CREATE TABLESPACE small LOCATION '"+dir+"'")
	schema := db.server.Schema()
	admin(t, s, "ALTER TABLE "+schema+".specs SET TABLESPACE small")
	t.Cleanup(func() {
		admin(t, s, "ALTER TABLE "+schema+".specs SET TABLESPACE pg_default")
		admin(t, s, "DROP TABLESPACE small")
	})
	stored := 0
	for i := range 200 {
		var in []fleet.Task
		for range 20 {
			x := task("p", "x")
			x.Spec.Prompt = noise(i, 8<<10)
			in = append(in, x)
		}
		_, err = db.Submit(t.Context(), in)
		if err != nil {
			break
		}
		stored += len(in)
	}
	if !errors.Is(err, fleet.ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("after %d tasks: %v", stored, err)
	}
	if st := statsOf(t, db); st.Backlog != stored || st.Arrived != int64(stored) {
		t.Errorf("%d were accepted, stats %+v", stored, st)
	}
	if got := lease(t, db, "p", 3); len(got) != 3 {
		t.Errorf("leased %d from a full disk", len(got))
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	submit(t, db, task("p", "x"))
	recount(t, db)
}

// noise does not compress.
func noise(seed, n int) string {
	var b strings.Builder
	x := uint64(seed)*2654435761 + 1 //nolint:gosec // any number
	for b.Len() < n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(&b, "%x", x)
	}
	return b.String()[:n]
}

// testLargeQueue: Stats and Lease cost the same in a long queue as in a short
// one, as the server plans them: neither reads the tasks.
func testLargeQueue(t *testing.T, s *servers.Postgres) {
	if os.Getenv("MUSTER_SLOW_TESTS") == "" {
		t.Skip("100,000 tasks: set MUSTER_SLOW_TESTS=1")
	}
	db := open(t, s, Options{Schema: fresh(), Patience: time.Minute})
	const tasks = 100_000
	for at := 0; at < tasks; at += 5000 {
		in := make([]fleet.Task, 5000)
		for i := range in {
			in[i] = typical(at + i)
		}
		submit(t, db, in...)
	}
	admin(t, s, "ANALYZE "+db.server.Schema()+".tasks")
	quick := func(what string, most time.Duration, f func()) {
		t.Helper()
		best := time.Hour
		for range 10 {
			start := time.Now()
			f()
			best = min(best, time.Since(start))
		}
		t.Logf("%s: %s", what, best)
		if best > most {
			t.Errorf("%s takes %s with %d tasks, want at most %s", what, best, tasks, most)
		}
	}
	quick("stats", 100*time.Millisecond, func() {
		if st := statsOf(t, db); st.Backlog < tasks-1000 {
			t.Fatalf("stats %+v", st)
		}
	})
	quick("lease", 100*time.Millisecond, func() {
		if got := lease(t, db, "pool-1", 1); len(got) != 1 {
			t.Fatalf("leased %v", got)
		}
	})
	quick("list", 100*time.Millisecond, func() {
		got, err := db.Tasks(t.Context(), fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskQueued}, Labels: map[string]string{"team": "payments"}})
		if err != nil || len(got) != 100 {
			t.Fatal(len(got), err)
		}
	})
	recount(t, db)
}
