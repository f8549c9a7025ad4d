package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// typical is a task as large as tasks are.
func typical(i int) fleet.Task {
	return fleet.Task{Spec: fleet.TaskSpec{
		Name: "fix-issue", Tenant: fleet.TenantID(fmt.Sprint("team-", i%20)), Template: "default", Pool: fleet.PoolKey(fmt.Sprint("pool-", i%5)),
		Labels: map[string]string{"team": "payments", "project": "ledger"}, Prompt: strings.Repeat("Look at the failing test and mend it. ", 12),
		Command: []string{"claude", "-p", "--output-format", "json"}, Env: map[string]string{"CI": "1"}, Image: "host",
		Timeouts: fleet.Timeouts{Queue: time.Hour, Run: time.Hour}, Priority: i % 3,
	}}
}

// benchOpen is a store on a server that syncs to its disk, as one should.
func benchOpen(b *testing.B) *DB {
	s := servers.StartPostgres(b, servers.PostgresSetup{Settings: []string{"fsync=on", "full_page_writes=on"}})
	db := open(b, s, Options{})
	lead(b, db)
	return db
}

// BenchmarkSubmit is one caller after another: the latency of a submission.
func BenchmarkSubmit(b *testing.B) {
	db := benchOpen(b)
	for i := 0; b.Loop(); i++ {
		submit(b, db, typical(i))
	}
}

// BenchmarkSubmitConcurrent is 64 callers at once, who share transactions.
func BenchmarkSubmitConcurrent(b *testing.B) {
	db := benchOpen(b)
	var i atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			submit(b, db, typical(int(i.Add(1))))
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkClaim is a lease with the claim in it, one after another.
func BenchmarkClaim(b *testing.B) {
	db := benchOpen(b)
	for b.Loop() {
		b.StopTimer()
		submit(b, db, task("p", "x"))
		box := ready(b, db)
		b.StartTimer()
		got, err := db.Queue().Lease(context.Background(), fleet.LeaseRequest{
			Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute,
			Claim: func(fleet.Task) (fleet.Claim, bool) {
				return fleet.Claim{Sandbox: box, Launch: fleet.LaunchWarm, At: time.Now()}, true
			},
		})
		if err != nil || len(got) != 1 || got[0].Task.State != fleet.TaskClaimed {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkCompletions is all that a task writes in its life: submission, lease
// and claim, three phases, settlement, four records of its sandbox, three
// events; 64 tasks at a time, leased by one dispatcher.
func BenchmarkCompletions(b *testing.B) {
	db := benchOpen(b)
	d := dispatcher{db: db, ready: make(chan *run), waiting: map[fleet.PoolKey]*run{}}
	ctx, stop := context.WithCancel(context.Background())
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg, dispatching sync.WaitGroup
	dispatching.Go(func() { d.work(ctx, b) })
	for w := range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := d.life(ctx, w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	stop()
	dispatching.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// run is a task that waits for its delivery.
type run struct {
	box  fleet.SandboxID
	pool fleet.PoolKey
	got  chan fleet.Lease
}

// dispatcher leases for all runs that wait.
type dispatcher struct {
	db      *DB
	ready   chan *run
	waiting map[fleet.PoolKey]*run
}

func (d *dispatcher) work(ctx context.Context, b *testing.B) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-d.ready:
			d.waiting[r.pool] = r
		}
		for more := true; more; {
			select {
			case r := <-d.ready:
				d.waiting[r.pool] = r
			default:
				more = false
			}
		}
		slots := map[fleet.PoolKey]int{}
		for pool := range d.waiting {
			slots[pool] = 1
		}
		got, err := d.db.Queue().Lease(ctx, fleet.LeaseRequest{
			Slots: slots, Visibility: time.Hour,
			Claim: func(t fleet.Task) (fleet.Claim, bool) {
				return fleet.Claim{Sandbox: d.waiting[t.Spec.Pool].box, Launch: fleet.LaunchWarm, At: time.Now()}, true
			},
		})
		if err != nil {
			b.Error(err)
			return
		}
		for _, x := range got {
			d.waiting[x.Task.Spec.Pool].got <- x.Lease
			delete(d.waiting, x.Task.Spec.Pool)
		}
	}
}

func (d *dispatcher) life(ctx context.Context, w int) error {
	db, now := d.db, time.Now()
	in := typical(w)
	in.Spec.Pool = fleet.PoolKey(fmt.Sprint("pool-", w))
	if _, err := db.Submit(ctx, []fleet.Task{in}); err != nil {
		return err
	}
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(now), Pool: in.Spec.Pool, Template: "default"}, State: fleet.SandboxStarting, CreatedAt: now}
	for _, st := range []fleet.SandboxState{fleet.SandboxStarting, fleet.SandboxReady} {
		sb.State = st
		if err := db.PutSandbox(ctx, sb); err != nil {
			return err
		}
	}
	r := &run{box: sb.Spec.ID, pool: in.Spec.Pool, got: make(chan fleet.Lease, 1)}
	d.ready <- r
	l := <-r.got
	for _, st := range []fleet.TaskState{fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting} {
		if err := db.Change(ctx, l.Task, l.Fence, fleet.Change{State: st}); err != nil {
			return err
		}
	}
	ev := []fleet.Event{{At: now, Kind: "task_claimed", Task: l.Task}, {At: now, Kind: "task_settled", Task: l.Task}, {At: now, Kind: "sandbox_gone", Sandbox: sb.Spec.ID}}
	if _, err := db.AppendEvents(ctx, ev); err != nil {
		return err
	}
	if _, err := db.Settle(ctx, l.Task, l.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: now}); err != nil {
		return err
	}
	sb.State, sb.GoneAt = fleet.SandboxGone, now
	return db.PutSandbox(ctx, sb)
}
