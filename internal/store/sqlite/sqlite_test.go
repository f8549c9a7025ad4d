package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// TestDurable checks that what was promised to be durable is answered after a
// sync, and what was not without: killing the process cannot show it.
func TestDurable(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	var mode string
	if err := db.readers.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %s, %v", mode, err)
	}
	made := map[string]bool{}
	db.onCall = func(c *call) { made[c.name] = made[c.name] || c.how == durable }
	fill(t, db)
	if _, err := db.Cancel(t.Context(), mustTasks(t, db, fleet.TaskQueued)[0].ID, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"submit": true, "settle": true, "cancel": true, "put schedule": true,
		"lease": false, "claim sandbox": false, "put sandbox": false, "append events": false, "append decision": false, "put setting": false}
	for name, is := range want {
		if got, called := made[name]; !called || got != is {
			t.Errorf("%s: durable %v, called %v", name, got, called)
		}
	}
}

// TestWorkBeforeSync holds the sync of a submission back: its task is leased
// meanwhile, and the submission is answered after the sync only, also when it
// repeats one under the same key.
func TestWorkBeforeSync(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	ctx := t.Context()
	hold, reached := make(chan struct{}), make(chan struct{}, 10)
	whole := db.syncer.sync
	db.syncer.sync = func() error { reached <- struct{}{}; <-hold; return whole() }
	task := fleet.Task{Spec: fleet.TaskSpec{Pool: "p", IdempotencyKey: "k"}}
	answers := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := db.Submit(ctx, []fleet.Task{task})
			answers <- err
		}()
	}
	<-reached
	got, err := db.Queue().Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 2}, Visibility: time.Minute})
	if err != nil || len(got) != 1 {
		t.Fatalf("leased %d tasks, %v", len(got), err)
	}
	if len(answers) > 0 {
		t.Fatal("answered before it was on the disk")
	}
	close(hold)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestSyncFails lets a sync fail: the log is moved into the file before
// anything is called durable, and what cannot be moved is not.
func TestSyncFails(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	ctx := t.Context()
	fails := 0
	db.syncer.sync = func() error { fails++; return unix.EIO }
	if _, err := db.Submit(ctx, []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p"}}}); err != nil {
		t.Fatalf("submit: %v", err)
	}
	if st, err := os.Stat(db.path + "-wal"); err != nil || st.Size() != 0 || fails != 1 {
		t.Errorf("a log of %d bytes is left after %d failures: %v", st.Size(), fails, err)
	}
	// A reader that holds the log in place: no way to make certain.
	reader, err := db.readers.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow("SELECT count(*) FROM tasks").Scan(&n); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, err := db.mover.conn.Exec("PRAGMA busy_timeout=1"); err != nil {
		t.Fatal(err)
	}
	_, err = db.Submit(ctx, []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p"}}})
	if !errors.Is(err, fleet.ErrUnavailable) || !errors.Is(err, unix.EIO) {
		t.Fatalf("submit with a log that cannot be synced: %v", err)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Submit(ctx, []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p"}}}); err != nil || fails != 2 {
		t.Fatalf("submit after %d failures: %v", fails, err)
	}
	recount(t, db)
}

// TestLogIsMoved writes without a pause: the log is moved into the file beside
// the writer and begun anew, so that it grows no more while writing goes on.
func TestLogIsMoved(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	value, written := make([]byte, 32<<10), int64(0)
	for written < 4<<30 {
		for i := range 256 {
			for at := 0; at < len(value); at += 512 {
				value[at] = byte(i) // a page that stays as it is would not be written
			}
			if err := db.PutSetting(t.Context(), "s", value); err != nil {
				t.Fatal(err)
			}
			written += int64(len(value))
		}
		if st, err := os.Stat(db.path + "-wal"); err == nil && written > 3*st.Size() {
			return
		}
	}
	t.Error("the log grows with what is written")
}

func mustTasks(t *testing.T, db *DB, s fleet.TaskState) []fleet.Task {
	t.Helper()
	out, err := db.Tasks(t.Context(), fleet.TaskFilter{States: []fleet.TaskState{s}})
	if err != nil || len(out) == 0 {
		t.Fatalf("tasks %s: %v, %v", s, out, err)
	}
	return out
}

// TestShared runs good and bad calls at once, which share transactions: each
// succeeds or fails for itself.
func TestShared(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	ctx := t.Context()
	key := func(prompt string) fleet.Task {
		return fleet.Task{Spec: fleet.TaskSpec{Pool: "p", IdempotencyKey: "k", Prompt: prompt}}
	}
	if _, err := db.Submit(ctx, []fleet.Task{key("first")}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			plain := fleet.Task{Spec: fleet.TaskSpec{Pool: "p"}}
			switch i % 3 {
			case 0:
				if _, err := db.Submit(ctx, []fleet.Task{plain}); err != nil {
					t.Error(err)
				}
			case 1: // fails after its first task was written
				if _, err := db.Submit(ctx, []fleet.Task{plain, key("other")}); !errors.Is(err, fleet.ErrConflict) {
					t.Error(err)
				}
			case 2:
				done, cancel := context.WithCancel(ctx)
				if rand.IntN(2) == 0 {
					cancel()
				}
				if _, err := db.Submit(done, []fleet.Task{key("first")}); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if st, err := db.Queue().Stats(ctx); err != nil || st.Backlog != 1+67 || st.Arrived != 68 {
		t.Errorf("stats %+v, %v", st, err)
	}
	recount(t, db)
}

// TestBrokenPromise makes calls fail after they changed the line in memory,
// alone and beside others: it is read anew from the file.
func TestBrokenPromise(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
	ctx, q := t.Context(), db.Queue()
	var wg sync.WaitGroup
	broken := errors.New("broken on purpose")
	for range 100 {
		wg.Go(func() {
			if _, err := db.Submit(ctx, make([]fleet.Task, 2)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var mine []fleet.Delivery
			if err := db.write(ctx, "lease", prompt, func(tx *tx) error {
				var err error
				if mine, err = (queue{db}).lease(tx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"": 1}, Visibility: time.Hour}); err != nil {
					return err
				}
				return broken
			}); !errors.Is(err, broken) {
				t.Error(err, mine)
			}
		})
		wg.Go(func() {
			got, err := q.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"": 1}, Visibility: time.Hour})
			if err != nil {
				t.Error(err)
			}
			for _, d := range got {
				if _, err := q.Extend(ctx, d.Lease, time.Hour); err != nil {
					t.Error("a lease that was given out is lost: ", err)
				}
			}
		})
	}
	wg.Wait()
	recount(t, db)
}

func TestThinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1})
		put := func(changed bool) int64 {
			t.Helper()
			seq, err := db.AppendDecision(t.Context(), fleet.DecisionRecord{At: time.Now(), Changed: changed, Plan: []byte("p")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			return seq
		}
		first := put(false)
		for range 9 {
			if seq := put(false); seq != first {
				t.Fatalf("an unchanged decision was stored as %d", seq)
			}
		}
		if seq := put(false); seq != first+1 {
			t.Fatalf("after ten seconds: %d", seq)
		}
		if seq := put(true); seq != first+2 {
			t.Fatalf("a changed decision: %d", seq)
		}
		if seq := put(true); seq != first+3 {
			t.Fatalf("a second one: %d", seq)
		}
		if seq := put(false); seq != first+3 {
			t.Fatalf("unchanged after changed: %d", seq)
		}
	})
}

func TestRetention(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1, Events: 100, Decisions: 50, ThinDecisions: -1})
	ctx := t.Context()
	for i := range 30 {
		if _, err := db.AppendEvents(ctx, make([]fleet.Event, 50)); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := db.AppendDecision(ctx, fleet.DecisionRecord{At: time.Now()}, fmt.Appendf(nil, `{"min":%d}`, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ev, err := db.Events(ctx, fleet.EventFilter{Limit: 10_000})
	if err != nil || len(ev) < 100 || len(ev) > 100+256 || ev[len(ev)-1].Seq != 1500 {
		t.Errorf("%d events are kept, %v", len(ev), err)
	}
	d, err := db.Decisions(ctx, fleet.DecisionFilter{Limit: 10_000})
	if err != nil || len(d) < 50 || len(d) > 50+256 || d[len(d)-1].Seq != 600 {
		t.Errorf("%d decisions are kept, %v", len(d), err)
	}
	for _, x := range d {
		if _, err := db.Policy(ctx, x.Policy); err != nil {
			t.Fatalf("the policy of decision %d: %v", x.Seq, err)
		}
	}
	if _, err := db.Policy(ctx, fleet.PolicyDigest([]byte(`{"min":0}`))); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("a policy that no decision is under any more is kept: %v", err)
	}
}

// TestClockSetBack sets the clock back and forth under delayed tasks.
func TestClockSetBack(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	set := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{BackupEvery: -1, Clock: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})
	for i := range 10 {
		task := fleet.Task{Spec: fleet.TaskSpec{Pool: "p", NotBefore: now.Add(time.Duration(i) * time.Hour)}}
		if _, err := db.Submit(t.Context(), []fleet.Task{task}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(backlog, delayed int) {
		t.Helper()
		st, err := db.Queue().Stats(t.Context())
		if err != nil || st.Backlog != backlog || st.Delayed != delayed {
			t.Fatalf("stats %+v, %v; want %d due, %d delayed", st, err, backlog, delayed)
		}
	}
	check(1, 9)
	set(24 * 365 * time.Hour) // by mistake
	check(10, 0)
	set(-24 * 365 * time.Hour)
	check(1, 9)
	set(time.Hour + time.Minute)
	check(2, 8)
	set(-time.Second)
	for _, task := range mustTasks(t, db, fleet.TaskQueued) {
		if _, err := db.Cancel(t.Context(), task.ID, "", now); err != nil {
			t.Fatal(err)
		}
	}
	check(0, 0)
	if n := len(db.line.delayed) + len(db.line.pools["p"].rows); n > 10 {
		t.Errorf("%d entries are left", n)
	}
}

// TestCancelledAreForgotten cancels a long queue: its memory goes too.
func TestCancelledAreForgotten(t *testing.T) {
	l := newLine(nil)
	l.horizon = 50_000
	const n = 100_000
	for i := range int64(n) {
		l.join(spot{due: i, seq: i}, "p", rowKey{})
	}
	for _, i := range rand.Perm(n) {
		if i%100 != 0 {
			l.leave(spot{due: int64(i), seq: int64(i)}, "p", rowKey{})
		}
	}
	p := l.pools["p"]
	if l.waiting != n/100 || p.backlog+p.delayed != n/100 || p.delayed != n/200-1 {
		t.Errorf("%d wait; %d due, %d delayed", l.waiting, p.backlog, p.delayed)
	}
	if entries := len(l.delayed) + len(p.rows[rowKey{}].due) + len(l.removed); entries > 5000 {
		t.Errorf("%d entries are left of %d", entries, n/100)
	}
	l.horizon = 0
	l.advance(time.Unix(0, n))
	last := int64(-1)
	for range n / 100 {
		s := l.take(l.next(map[fleet.PoolKey]int{"p": 1}))
		if s.seq <= last || s.seq%100 != 0 {
			t.Fatalf("took %d after %d", s.seq, last)
		}
		last = s.seq
	}
}

// TestManyRows has more tenants and priorities than a fleet will: the cost of
// a lease grows with them, not with the tasks.
func TestManyRows(t *testing.T) {
	l := newLine(nil)
	seq := int64(0)
	for tenant := range 50 {
		for priority := range 20 {
			for range 5 {
				seq++
				l.join(spot{due: 0, seq: seq}, "p", rowKey{fleet.TenantID(fmt.Sprint(tenant)), priority})
			}
		}
	}
	l.advance(time.Unix(1, 0))
	served := map[fleet.TenantID]int{}
	for i := range 50 {
		r := l.next(map[fleet.PoolKey]int{"p": 1})
		if r.key.priority != 19 {
			t.Fatalf("priority %d at place %d", r.key.priority, i)
		}
		tenant, p := r.key.tenant, r.pool
		s := l.take(r)
		l.keep(&hold{seq: s.seq, id: fleet.TaskID(fmt.Sprint(s.seq)), tenant: tenant, pool: p, state: fleet.TaskQueued})
		served[tenant]++
	}
	if len(served) != 50 {
		t.Errorf("50 leases served %d tenants of 50", len(served))
	}
}
