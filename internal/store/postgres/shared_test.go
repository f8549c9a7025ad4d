package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func task(pool fleet.PoolKey, tenant fleet.TenantID) fleet.Task {
	return fleet.Task{Spec: fleet.TaskSpec{Pool: pool, Tenant: tenant, Template: "t", Command: []string{"true"}}}
}

func submit(t testing.TB, db *DB, tasks ...fleet.Task) []fleet.Task {
	t.Helper()
	out, err := db.Submit(context.Background(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func lease(t testing.TB, db *DB, pool fleet.PoolKey, n int) []fleet.Delivery {
	t.Helper()
	d, err := db.Queue().Lease(context.Background(), fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{pool: n}, Visibility: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ready(t testing.TB, db *DB) fleet.SandboxID {
	t.Helper()
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Pool: "p", Node: "n1"}, State: fleet.SandboxReady}
	if err := db.PutSandbox(context.Background(), sb); err != nil {
		t.Fatal(err)
	}
	return sb.Spec.ID
}

func statsOf(t testing.TB, db *DB) fleet.QueueStats {
	t.Helper()
	st, err := db.Queue().Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// within waits for a wake-up.
func within(c <-chan struct{}, d time.Duration) bool {
	select {
	case <-c:
		return true
	case <-time.After(d):
		return false
	}
}

func drain(c <-chan struct{}) {
	for within(c, 50*time.Millisecond) {
	}
}

// pair opens a store twice, as two processes do.
func pair(t testing.TB, s *servers.Postgres, o Options) (a, b *DB) {
	t.Helper()
	o.Schema = fresh()
	return open(t, s, o), open(t, s, o)
}

// testSharedQueue has consumers of two processes work off one queue: each task
// is leased once, a tenant's cap holds over both, and the counts stay exact.
func testSharedQueue(t *testing.T, s *servers.Postgres) {
	const tasks, most = 120, 5
	a, b := pair(t, s, Options{Tenants: map[fleet.TenantID]fleet.Share{"capped": {MaxRunning: most}}})
	var all []fleet.Task
	for i := range tasks {
		all = append(all, task("p", []fleet.TenantID{"capped", "free"}[i%2]))
	}
	submit(t, a, all...)
	var mu sync.Mutex
	seen, running := map[fleet.TaskID]int{}, 0
	var wg sync.WaitGroup
	for _, db := range []*DB{a, b, a, b} {
		wg.Go(func() {
			for range 500 {
				got := lease(t, db, "p", 3)
				mu.Lock()
				for _, d := range got {
					seen[d.Task.ID]++
					if d.Task.Spec.Tenant == "capped" {
						running++
					}
				}
				over, done := running > most, len(seen) == tasks
				mu.Unlock()
				if over {
					t.Error("more of the capped tenant than it may run")
				}
				for _, d := range got {
					mu.Lock()
					if d.Task.Spec.Tenant == "capped" {
						running-- // before it is settled: never too many
					}
					mu.Unlock()
					if _, err := db.Settle(context.Background(), d.Task.ID, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()}); err != nil {
						t.Error(err)
					}
				}
				if done && len(got) == 0 {
					return
				}
			}
			t.Error("the queue is not worked off")
		})
	}
	wg.Wait()
	if len(seen) != tasks {
		t.Errorf("%d of %d tasks were leased", len(seen), tasks)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("task %s was leased %d times", id, n)
		}
	}
	for _, db := range []*DB{a, b} {
		if st := statsOf(t, db); st.Backlog != 0 || st.InFlight != 0 || st.Arrived != tasks {
			t.Errorf("stats %+v", st)
		}
	}
	recount(t, a)
}

// recount checks the counts against the tasks, before and after folding.
func recount(t testing.TB, db *DB) {
	t.Helper()
	const differ = `SELECT count(*) FROM (SELECT pool, tenant, priority, sum(due), sum(delayed), sum(held), sum(dead) FROM tally GROUP BY 1, 2, 3) AS c (pool, tenant, priority, due, delayed, held, dead)
		FULL JOIN (SELECT pool, tenant, priority, count(*) FILTER (WHERE place = 0) AS due, count(*) FILTER (WHERE place = 1) AS delayed,
		count(*) FILTER (WHERE place IN (2, 3)) AS held, count(*) FILTER (WHERE dead) AS dead FROM tasks GROUP BY 1, 2, 3) AS n USING (pool, tenant, priority)
		WHERE (coalesce(c.due, 0), coalesce(c.delayed, 0), coalesce(c.held, 0), coalesce(c.dead, 0)) <>
		(coalesce(n.due, 0), coalesce(n.delayed, 0), coalesce(n.held, 0), coalesce(n.dead, 0))`
	for range 2 {
		if n := query[int](t, db, differ); n != 0 {
			t.Errorf("%d counts are wrong", n)
		}
		if err := db.fold(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if rows, kinds := query[int](t, db, "SELECT count(*) FROM tally"), query[int](t, db, "SELECT count(DISTINCT (pool, tenant, priority)) FROM tally"); rows != kinds {
		t.Errorf("%d rows for %d counts after folding", rows, kinds)
	}
}

func testSharedSubmission(t *testing.T, s *servers.Postgres) {
	a, b := pair(t, s, Options{MaxBacklog: 50})
	var mu sync.Mutex
	ids, full := map[string]map[fleet.TaskID]bool{}, 0
	var wg sync.WaitGroup
	for i, db := range []*DB{a, b, a, b} {
		wg.Go(func() {
			for n := range 40 {
				in := task("p", "x")
				key := fmt.Sprint("key ", n)
				if i > 1 {
					key = ""
				}
				in.Spec.IdempotencyKey = key
				out, err := db.Submit(context.Background(), []fleet.Task{in})
				mu.Lock()
				switch {
				case errors.Is(err, fleet.ErrFull):
					full++
				case err != nil:
					t.Error(err)
				case key != "":
					if ids[key] == nil {
						ids[key] = map[fleet.TaskID]bool{}
					}
					ids[key][out[0].ID] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for key, of := range ids {
		if len(of) != 1 {
			t.Errorf("%s made %d tasks", key, len(of))
		}
	}
	if st := statsOf(t, a); st.Backlog != 50 || full == 0 {
		t.Errorf("%d wait, want 50; %d were refused", st.Backlog, full)
	}
	recount(t, b)
}

// testPush wakes another process by NOTIFY, and without it.
func testPush(t *testing.T, s *servers.Postgres) {
	for _, tt := range []struct {
		name string
		poll bool
		soon time.Duration
	}{{"push", false, 500 * time.Millisecond}, {"poll", true, 5 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t, s, Options{Poll: tt.poll})
			events, release := b.WakeEvents()
			defer release()
			if !tt.poll {
				listening(t, b)
			}
			time.Sleep(2 * tick) // the clocks have looked
			drain(b.Queue().Wake())
			drain(events)
			start := time.Now()
			submit(t, a, task("p", "x"))
			if !within(b.Queue().Wake(), 10*time.Second) {
				t.Fatal("not woken by another's submission")
			}
			if took := time.Since(start); took > tt.soon {
				t.Errorf("woken after %s", took)
			}
			if within(events, 50*time.Millisecond) {
				t.Error("readers of events woken by a submission")
			}
			if _, err := a.AppendEvents(t.Context(), []fleet.Event{{Kind: "hold"}}); err != nil {
				t.Fatal(err)
			}
			if !within(events, 10*time.Second) {
				t.Error("not woken by another's event")
			}
			// A lease of a process that ends comes back at once.
			drain(b.Queue().Wake())
			if got := lease(t, a, "p", 1); len(got) != 1 {
				t.Fatalf("leased %v", got)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if !within(b.Queue().Wake(), 10*time.Second) || len(lease(t, b, "p", 1)) != 1 {
				t.Error("the lease of a process that has ended did not come back")
			}
		})
	}
}

// listening waits until a store hears notifications.
func listening(t testing.TB, db *DB) {
	t.Helper()
	for range 500 {
		if query[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND query LIKE '%\"' || $1 || '\"%'", db.channel()) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nobody listens")
}

// testEventsInOrder: whoever reads on after the last event it saw misses none,
// though several processes append.
func testEventsInOrder(t *testing.T, s *servers.Postgres) {
	a, b := pair(t, s, Options{})
	const each = 100
	var wg sync.WaitGroup
	for _, db := range []*DB{a, b, a, b} {
		wg.Go(func() {
			for range each {
				if _, err := db.AppendEvents(context.Background(), []fleet.Event{{Kind: "x"}, {Kind: "y"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seqs []int64
	for after, over := int64(0), false; ; {
		select {
		case <-done:
			over = true
		default:
		}
		ev, err := b.Events(t.Context(), fleet.EventFilter{After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ev {
			seqs, after = append(seqs, e.Seq), e.Seq
		}
		if over && len(ev) == 0 {
			break
		}
	}
	if len(seqs) != 8*each || !slices.IsSorted(seqs) {
		t.Errorf("a reader saw %d of %d events", len(seqs), 8*each)
	}
}

// testDoubt: a lease whose commit was not answered is undone before the next.
func testDoubt(t *testing.T, s *servers.Postgres) {
	db := open(t, s, Options{Schema: fresh()})
	submit(t, db, task("p", "x"))
	box := ready(t, db)
	claim := func(fleet.Task) (fleet.Claim, bool) {
		return fleet.Claim{Sandbox: box, Launch: fleet.LaunchWarm, At: time.Now()}, true
	}
	request := fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute, Claim: claim}
	got, err := db.Queue().Lease(t.Context(), request)
	if err != nil || len(got) != 1 || got[0].Task.State != fleet.TaskClaimed {
		t.Fatalf("leased %+v, %v", got, err)
	}
	db.doubts = []doubt{{got[0].Task.ID, got[0].Lease.Fence, box}}
	again, err := db.Queue().Lease(t.Context(), request)
	if err != nil || len(again) != 1 || again[0].Task.State != fleet.TaskClaimed || again[0].Lease.Fence != got[0].Lease.Fence+1 {
		t.Fatalf("leased again %+v, %v", again, err)
	}
	if len(db.doubts) != 0 {
		t.Errorf("still in doubt: %v", db.doubts)
	}
	recount(t, db)
}

// testManySlots leases more than one transaction does, in order.
func testManySlots(t *testing.T, s *servers.Postgres) {
	db := open(t, s, Options{Schema: fresh()})
	var in []fleet.Task
	for i := range 300 {
		x := task("p", fleet.TenantID(fmt.Sprint("t", i%7)))
		x.Spec.Priority = i % 3
		in = append(in, x)
	}
	submit(t, db, in...)
	got := lease(t, db, "p", 250)
	if len(got) != 250 {
		t.Fatalf("leased %d, want 250", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i].Task.Spec.Priority > got[i-1].Task.Spec.Priority {
			t.Fatalf("priority %d after %d", got[i].Task.Spec.Priority, got[i-1].Task.Spec.Priority)
		}
	}
	if st := statsOf(t, db); st.Backlog != 50 || st.InFlight != 250 {
		t.Errorf("stats %+v", st)
	}
}
