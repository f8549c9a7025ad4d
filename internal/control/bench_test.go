package control

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/sqlite"
)

// ended counts completions as the store accepts them.
type ended struct {
	fleet.Store
	n    atomic.Int64
	want int64
	done chan struct{}
}

func (s *ended) Settle(ctx context.Context, id fleet.TaskID, fence int64, st fleet.Settlement) (fleet.Task, error) {
	t, err := s.Store.Settle(ctx, id, fence, st)
	if err == nil && s.n.Add(1) == s.want {
		close(s.done)
	}
	return t, err
}

// BenchmarkCompletions runs tasks that end at once through queue, loop,
// dispatch, archive and the durable store; only the sandboxes are fakes. The
// aim is 1,000 completions a second in one process.
func BenchmarkCompletions(b *testing.B) {
	dir := b.TempDir()
	db, err := sqlite.Open(b.Context(), filepath.Join(dir, "muster.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	a, err := archive.Open(filepath.Join(dir, "tasks"), archive.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	boxes := fake.New(fake.Options{})
	defer boxes.Close()
	store := &ended{Store: db, want: int64(b.N), done: make(chan struct{})}
	e, err := New(Config{
		Store: store, Queue: db.Queue(), Archive: a, Sandboxes: boxes, Nodes: newNode(2000),
		Spec: Spec{Templates: []fleet.Template{template("default")}, Policy: plan.Policy{Min: 300, Max: 1000}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = e.Run(ctx) }()
	for e.registry.Slots()["default"] < 300 {
		time.Sleep(time.Millisecond)
	}
	tasks := make([]fleet.Task, b.N)
	for i := range tasks {
		tasks[i].Spec = fleet.TaskSpec{Tenant: "default", Template: "default", Pool: "default", Command: []string{"true"},
			Resources: template("default").Resources, Retries: fleet.RetryPolicy{Max: 3}}
	}
	b.ResetTimer()
	start := time.Now()
	for len(tasks) > 0 {
		n := min(500, len(tasks))
		if _, err := db.Submit(ctx, tasks[:n]); err != nil {
			b.Fatal(err)
		}
		tasks = tasks[n:]
	}
	<-store.done
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "tasks/s")
	b.StopTimer()
	cancel()
	<-stopped
}
