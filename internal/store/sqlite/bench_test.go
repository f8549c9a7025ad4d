package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
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

func benchOpen(b *testing.B) *DB {
	return open(b, filepath.Join(b.TempDir(), "muster.db"), Options{BackupEvery: -1})
}

// BenchmarkSubmit is one caller after another: the latency of a durable
// submission.
func BenchmarkSubmit(b *testing.B) {
	db := benchOpen(b)
	i := 0
	for b.Loop() {
		i++
		if _, err := db.Submit(b.Context(), []fleet.Task{typical(i)}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSubmitConcurrent is 64 callers at once, who share transactions.
func BenchmarkSubmitConcurrent(b *testing.B) {
	db := benchOpen(b)
	var i atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := db.Submit(context.Background(), []fleet.Task{typical(int(i.Add(1)))}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkCycle is the least a completion costs: lease, sandbox record,
// claim, settlement; 32 consumers.
func BenchmarkCycle(b *testing.B) { cycles(b, false) }

// BenchmarkLife is all that one task writes in its life: what BenchmarkCycle
// does, its submission, three phases, three more records of its sandbox, and
// three events.
func BenchmarkLife(b *testing.B) { cycles(b, true) }

func cycles(b *testing.B, whole bool) {
	db := benchOpen(b)
	ctx := context.Background()
	if !whole {
		for at := 0; at < 2*b.N+500; at += 500 {
			tasks := make([]fleet.Task, 500)
			for i := range tasks {
				tasks[i] = typical(at + i)
			}
			if _, err := db.Submit(ctx, tasks); err != nil {
				b.Fatal(err)
			}
		}
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	before := cpu()
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := oneLife(ctx, db, w, whole); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "cpu-µs/task")
}

// cpu is the processor time this process has used: unlike the clock it says
// the same on a busy machine.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func oneLife(ctx context.Context, db *DB, w int, whole bool) error {
	if whole {
		if _, err := db.Submit(ctx, []fleet.Task{typical(w)}); err != nil {
			return err
		}
	}
	now := time.Now()
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(now), Pool: "p"}, State: fleet.SandboxStarting}
	if whole {
		if err := db.PutSandbox(ctx, sb); err != nil {
			return err
		}
	}
	sb.State = fleet.SandboxReady
	if err := db.PutSandbox(ctx, sb); err != nil {
		return err
	}
	slots := map[fleet.PoolKey]int{fleet.PoolKey(fmt.Sprint("pool-", w%5)): 1}
	got, err := db.Queue().Lease(ctx, fleet.LeaseRequest{Slots: slots, Visibility: time.Minute})
	if err != nil || len(got) == 0 {
		return err
	}
	l := got[0].Lease
	if _, err := db.ClaimSandbox(ctx, l, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: now}); err != nil {
		return err
	}
	if whole {
		for _, st := range []fleet.TaskState{fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting} {
			if err := db.Change(ctx, l.Task, l.Fence, fleet.Change{State: st}); err != nil {
				return err
			}
		}
		ev := []fleet.Event{{At: now, Kind: "task_claimed", Task: l.Task}, {At: now, Kind: "task_settled", Task: l.Task}, {At: now, Kind: "sandbox_gone", Sandbox: sb.Spec.ID}}
		if _, err := db.AppendEvents(ctx, ev); err != nil {
			return err
		}
	}
	if _, err := db.Settle(ctx, l.Task, l.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: now}); err != nil {
		return err
	}
	if whole {
		sb.State, sb.GoneAt = fleet.SandboxGone, now
		return db.PutSandbox(ctx, sb)
	}
	return nil
}

// millionEnv names a directory in which the large database is kept from one
// run to the next; making it takes minutes.
const millionEnv = "MUSTER_BENCH_MILLION"

var millionDir string // to be removed at the end

// million is a database with 1,000,000 waiting tasks, made once.
var million = sync.OnceValues(func() (string, error) {
	dir := os.Getenv(millionEnv)
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "muster-million-"); err != nil {
			return "", err
		}
		millionDir = dir
	}
	if path := filepath.Join(dir, "muster.db"); exists(path) {
		return path, nil
	}
	path := filepath.Join(dir, "muster.db")
	db, err := Open(context.Background(), path, Options{BackupEvery: -1})
	if err != nil {
		return "", err
	}
	for at := 0; at < 1_000_000; at += 5000 {
		tasks := make([]fleet.Task, 5000)
		for i := range tasks {
			tasks[i] = typical(at + i)
		}
		if _, err := db.Submit(context.Background(), tasks); err != nil {
			return "", err
		}
	}
	return path, db.Close()
})

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func benchMillion(b *testing.B) *DB {
	b.Helper()
	path, err := million()
	if err != nil {
		b.Fatal(err)
	}
	return open(b, path, Options{BackupEvery: -1})
}

func BenchmarkMillionOpen(b *testing.B) {
	path, err := million()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := Open(b.Context(), path, Options{BackupEvery: -1})
		if err != nil {
			b.Fatal(err)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMillionStats(b *testing.B) {
	q := benchMillion(b).Queue()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for b.Loop() {
		if st, err := q.Stats(b.Context()); err != nil || st.Backlog < 900_000 {
			b.Fatal(st, err)
		}
	}
	b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
}

func BenchmarkMillionLease(b *testing.B) {
	q := benchMillion(b).Queue()
	for b.Loop() {
		got, err := q.Lease(b.Context(), fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"pool-1": 1}, Visibility: time.Hour})
		if err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}

func BenchmarkMillionSubmit(b *testing.B) {
	db := benchMillion(b)
	for b.Loop() {
		if _, err := db.Submit(b.Context(), []fleet.Task{typical(0)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMillionList(b *testing.B) {
	db := benchMillion(b)
	for b.Loop() {
		if got, err := db.Tasks(b.Context(), fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskQueued}, Labels: map[string]string{"team": "payments"}}); err != nil || len(got) != 100 {
			b.Fatal(len(got), err)
		}
	}
}
