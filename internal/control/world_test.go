package control

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

const mib = 1 << 20

// oneNode is a fixed host.
type oneNode struct {
	mu   sync.Mutex
	node fleet.Node
	err  error
}

func newNode(slots int) *oneNode {
	return &oneNode{node: fleet.Node{ID: "local", State: fleet.NodeReady, MilliCPU: 1e6, MemoryBytes: 1 << 40, DiskBytes: 1 << 44, Slots: slots}}
}

func (n *oneNode) List(context.Context) ([]fleet.Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return []fleet.Node{n.node}, n.err
}
func (n *oneNode) Scale(context.Context, int) error             { return fleet.ErrInvalid }
func (n *oneNode) Cordon(context.Context, fleet.NodeID) error   { return nil }
func (n *oneNode) Uncordon(context.Context, fleet.NodeID) error { return nil }
func (n *oneNode) Release(context.Context, fleet.NodeID) error  { return nil }

// world is a store, a machine and a queue that outlive engines.
type world struct {
	t       *testing.T
	store   *memory.Store
	boxes   *fake.Sandboxes
	nodes   *oneNode
	elastic fleet.Nodes // in place of nodes, where set
	archive *archive.Archive
	spec    Spec
	fault   func() error
	clock   func() time.Time
	// consumers run the tasks; see crew_test.go.
	consumers bool
	purse     fleet.Purse // may be nil
	meter     fleet.Meter

	engine *Engine
	stop   context.CancelFunc
	done   chan struct{}
}

func template(name string) fleet.Template {
	return fleet.Template{
		Name: name, Runtime: fleet.RuntimeFake, Image: "host", Revision: "r1",
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 512 * mib, Pids: 64, DiskBytes: mib, Files: 64, LogBytes: mib},
		Timeouts:  fleet.Timeouts{Startup: time.Minute, Run: time.Hour, Queue: 24 * time.Hour},
	}
}

func newWorld(t *testing.T, o fake.Options) *world {
	t.Helper()
	a, err := archive.Open(t.TempDir(), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, store: memory.New(memory.Options{}), boxes: fake.New(o), nodes: newNode(1000), archive: a,
		spec: Spec{Name: "test", Templates: []fleet.Template{template("default")}, Policy: plan.Policy{Max: 500}},
	}
	return w
}

// up starts an engine on the world.
func (w *world) up() { w.upOn(w.store, w.store.Queue()) }

// upOn starts an engine that sees the store through decorators.
func (w *world) upOn(store fleet.Store, queue fleet.Queue) {
	w.t.Helper()
	var nodes fleet.Nodes = w.nodes
	if w.elastic != nil {
		nodes = w.elastic
	}
	e, err := New(Config{
		Store: store, Queue: queue, Archive: w.archive, Sandboxes: w.boxes, Nodes: nodes, Spec: w.spec, fault: w.fault, Clock: w.clock, Consumers: w.consumers, Purse: w.purse, Meter: w.meter,
		Variant: func(t fleet.Template, s fleet.TaskSpec) fleet.Template {
			t.Resources, t.Revision = s.Resources, t.Revision+"v"
			return t
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.engine, w.stop, w.done = e, cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		if err := e.Run(ctx); err != nil && !errors.Is(err, errKilled) && !errors.Is(err, context.Canceled) {
			w.t.Errorf("run: %v", err)
		}
	}()
}

// kill ends the engine as kill -9 would: it is cut off from the sandboxes and,
// by its mortal store, from everything else.
func (w *world) kill() {
	next := w.boxes.Reopen()
	w.stop()
	<-w.done
	w.boxes = next
}

// down stops the engine as a crash of the process would: nothing is cleaned up.
func (w *world) down() {
	w.boxes = w.boxes.Reopen()
	w.stop()
	<-w.done
}

// end stops everything for good.
func (w *world) end() {
	w.stop()
	<-w.done
	_ = w.boxes.Close()
	for _, s := range w.boxes.Specs() {
		_ = w.boxes.Reopen().Destroy(context.Background(), s.ID)
	}
	_ = w.store.Close()
	_ = w.archive.Close()
}

func (w *world) submit(n int, change ...func(*fleet.Task)) []fleet.Task {
	w.t.Helper()
	tasks := make([]fleet.Task, n)
	for i := range tasks {
		tp := w.spec.Templates[0]
		tasks[i].Spec = fleet.TaskSpec{
			Tenant: "default", Template: tp.Name, Pool: fleet.PoolKey(tp.Name), Command: []string{"true"}, Image: "host",
			Resources: tp.Resources, Timeouts: tp.Timeouts, Retries: fleet.RetryPolicy{Max: 3, Backoff: time.Second},
		}
		for _, c := range change {
			c(&tasks[i])
		}
	}
	out, err := w.store.Submit(context.Background(), tasks)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) task(id fleet.TaskID) fleet.Task {
	w.t.Helper()
	t, err := w.store.Task(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func (w *world) events(kinds ...string) []fleet.Event {
	w.t.Helper()
	ev, err := w.store.Events(context.Background(), fleet.EventFilter{Kinds: kinds, Limit: 10000})
	if err != nil {
		w.t.Fatal(err)
	}
	return ev
}

// sleep lets virtual time pass and everything due in it happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func lead(d time.Duration) func(fleet.SandboxSpec) time.Duration {
	return func(fleet.SandboxSpec) time.Duration { return d }
}

// busy runs for d.
func busy(d time.Duration) fake.Script {
	return func(ctx context.Context, r *fake.Run) fleet.RunReport {
		r.Running()
		r.Print(fleet.StreamStdout, "working\n")
		if err := r.Sleep(ctx, d); err != nil {
			return fleet.RunReport{ExitCode: -1, Signal: "SIGTERM"}
		}
		return fleet.RunReport{}
	}
}
