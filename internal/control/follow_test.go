package control

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	vnodes "muster.dev/muster/internal/nodes/virtual"
	"muster.dev/muster/internal/plan"
	vboxes "muster.dev/muster/internal/sandbox/virtual"
	"muster.dev/muster/internal/store/memory"
)

// others is a queue that others work off, as the test says.
type others struct {
	fleet.Queue // nothing is ever leased
	wake        chan struct{}
	mu          sync.Mutex
	st          fleet.QueueStats
	err         error
}

func (q *others) Wake() <-chan struct{} { return q.wake }
func (q *others) Stats(context.Context) (fleet.QueueStats, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.st, q.err
}

func (q *others) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
}

func (q *others) set(backlog, inFlight int, arrived int64) {
	now := time.Now()
	d := fleet.PoolDemand{Pool: "default", Backlog: backlog, InFlight: inFlight, Arrived: arrived}
	if backlog > 0 {
		d.Oldest = now
	}
	q.mu.Lock()
	q.st = fleet.QueueStats{AsOf: now, Backlog: backlog, InFlight: inFlight, Arrived: arrived, Pools: []fleet.PoolDemand{d}, Oldest: d.Oldest}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// following runs a loop that follows a queue; workers is what others have.
func following(t *testing.T, workers func() (int, bool), f func(*Engine, *others)) {
	synctest.Test(t, func(t *testing.T) {
		q := &others{wake: make(chan struct{}, 1)}
		q.set(0, 0, 0)
		store := memory.New(memory.Options{})
		tmpl := fleet.Template{Name: "default", Revision: "1", Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30}}
		spec := Spec{Name: "f", Templates: []fleet.Template{tmpl}}
		spec.Policy.Max = 100
		spec.Policy.Nodes.Scalable, spec.Policy.Nodes.Slots, spec.Policy.Nodes.BootLead = true, 4, 10*time.Second
		spec.Policy.Nodes.NoFill = true
		spec.Policy.PriorLead = fleet.Lead{P50: time.Second, P95: time.Second, P99: time.Second}
		e, err := New(Config{
			Store: store, Queue: q, Sandboxes: vboxes.New(time.Second), Spec: spec, Follow: true, Workers: workers,
			Nodes: vnodes.New(vnodes.Options{Node: fleet.Node{MilliCPU: 4000, MemoryBytes: 4 << 30, DiskBytes: 1 << 40, Slots: 4}, Boot: 10 * time.Second}),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(e, q)
	})
}

func wanted(e *Engine) int {
	n := 0
	for _, p := range e.Targets().Pools {
		n += p.Desired
	}
	return n
}

func TestFollowsWhatOthersWorkOff(t *testing.T) {
	following(t, nil, func(e *Engine, q *others) {
		time.Sleep(2 * time.Second)
		if n := wanted(e); n != 0 {
			t.Errorf("%d wanted for an empty queue", n)
		}
		q.set(10, 0, 10)
		time.Sleep(time.Second)
		// Those, a stock for another burst, and nodes of four that hold them.
		if n, nodes := wanted(e), e.Targets().Nodes; n < 10 || n > 40 || 4*nodes < n {
			t.Errorf("for 10 that wait: %d sandboxes and %d nodes of 4 wanted, want 10 to 40 and room for them", n, nodes)
		}
		// Others have taken all: a backlog of zero is not idle.
		q.set(0, 10, 10)
		for range 60 {
			q.set(0, 10, 10)
			time.Sleep(10 * time.Second)
			if n := wanted(e); n < 10 {
				t.Fatalf("%d wanted while 10 tasks run", n)
			}
		}
		q.set(0, 2, 10)
		for range 60 {
			q.set(0, 2, 10)
			time.Sleep(10 * time.Second)
		}
		if n := wanted(e); n < 2 || n >= 10 {
			t.Errorf("%d wanted for 2 that run", n)
		}
		// The queue cannot be read: what is there stays.
		before := wanted(e)
		q.fail(fmt.Errorf("connection refused: %w", fleet.ErrUnavailable))
		time.Sleep(20 * time.Minute)
		if tg := e.Targets(); wanted(e) < before || tg.Signals == "" {
			t.Errorf("after 20 minutes without a reading %d wanted (%q), before %d", wanted(e), tg.Signals, before)
		}
	})
}

func TestShadowComparesOverTime(t *testing.T) {
	following(t, func() (int, bool) { return 20, true }, func(e *Engine, q *others) {
		for i := range 1800 { // half an hour, five tasks run, one waits a second in each ten
			q.set(i%10/9, 5, int64(i/10))
			time.Sleep(time.Second)
		}
		s, err := e.Shadow(t.Context(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		h := s.Sum
		near := func(what string, got, want, by float64) {
			if math.Abs(got-want) > by {
				t.Errorf("%s: %.0f, want %.0f±%.0f", what, got, want, by)
			}
		}
		near("observed", h.Seconds, 1800, 5)
		near("workers", h.Workers, 20*1800, 200)
		near("waited", h.ActualWaiting, 180, 20)
		if h.KnownSandboxes < 5*1700 || h.KnownSandboxes > 12*1800 {
			t.Errorf("ours: %.0f sandbox-seconds for five tasks at a time over half an hour", h.KnownSandboxes)
		}
		if s.Slots != 4 || len(s.Hours) != 1 || h.Arrived != 179 {
			t.Errorf("%+v", s)
		}
	})
}

func TestShadowOfAFleetThatRunsItsTasks(t *testing.T) {
	e := &Engine{}
	if _, err := e.Shadow(t.Context(), time.Time{}); err == nil {
		t.Error("there is nothing to compare, and no error")
	}
}

func TestEvaluateDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &others{wake: make(chan struct{}, 1)}
		q.set(7, 0, 7)
		store := memory.New(memory.Options{})
		defer store.Close()
		boxes := vboxes.New(0)
		spec := Spec{Name: "f", Templates: []fleet.Template{{Name: "default", Revision: "1"}}, Policy: plan.Policy{Max: 100}}
		nodes := vnodes.New(vnodes.Options{Node: fleet.Node{MilliCPU: 4000, MemoryBytes: 4 << 30, DiskBytes: 1 << 40, Slots: 50}})
		if err := nodes.Scale(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		e, err := New(Config{Store: store, Queue: q, Sandboxes: boxes, Spec: spec, Follow: true, Nodes: nodes})
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Evaluate(t.Context())
		if err != nil || len(got.Actions) != 1 || len(got.View.Pools) != 1 || got.View.Pools[0].Desired != 7 {
			t.Errorf("%+v, %v", got, err)
		}
		if ids, err := boxes.List(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("sandboxes %v, %v", ids, err)
		}
		if d, err := store.Decisions(t.Context(), fleet.DecisionFilter{}); err != nil || len(d) != 0 {
			t.Errorf("journaled %v, %v", d, err)
		}
	})
}
