package operator

import (
	"context"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"muster.dev/muster/internal/fleet"
	kubetest "muster.dev/muster/test/kube"
)

// world is where fake runners are.
type world struct {
	mu      sync.Mutex
	started []Fleet
	runners []*fakeRunner
	broken  error // of the next starts

	refuse func(Fleet) error
	kept   map[string][]fleet.Revision // by name
	lost   error                       // of reading them
}

func (w *world) check(f Fleet) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse == nil {
		return nil
	}
	return w.refuse(f)
}

func (w *world) past(_ context.Context, k Key) ([]fleet.Revision, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept[k.Name], w.lost
}

func (w *world) start(_ context.Context, f Fleet) (Runner, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started = append(w.started, f)
	if w.broken != nil {
		return nil, w.broken
	}
	r := &fakeRunner{f: f, report: Report{Ready: true, Desired: 2, Standby: 2, Endpoint: "/fleets/x"}, fail: make(chan error, 1)}
	w.runners = append(w.runners, r)
	return r, nil
}

// newest is the runner that was made last, nil where there is none.
func (w *world) newest() *fakeRunner {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.runners) == 0 {
		return nil
	}
	return w.runners[len(w.runners)-1]
}

func (w *world) starts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.started)
}

// fakeRunner is a Runner that remembers.
type fakeRunner struct {
	mu       sync.Mutex
	f        Fleet
	updates  int
	report   Report
	patience time.Duration
	drained  bool
	closed   bool
	fail     chan error
	hold     chan struct{} // drains wait for it
}

func (r *fakeRunner) do(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *fakeRunner) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.fail:
		return err
	}
}

func (r *fakeRunner) Update(f Fleet) error {
	r.do(func() { r.f = f; r.updates++ })
	return nil
}

func (r *fakeRunner) Restarts(f Fleet) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Spec.MustBeRestarted(f.Spec)
}

func (r *fakeRunner) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.report
	r.report.Events = nil
	return out
}

func (r *fakeRunner) Drain(ctx context.Context, patience time.Duration) error {
	r.do(func() { r.patience = patience })
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.do(func() { r.drained = true })
	return nil
}

func (r *fakeRunner) Close() { r.do(func() { r.closed = true }) }

// setUp runs an operator for a namespace of its own.
func setUp(t *testing.T, c *kubetest.Cluster, config *rest.Config, ns string) (*world, *Operator) {
	t.Helper()
	return setUpIn(t, c, config, ns, Plane{})
}

// setUpIn is setUp for a control plane in the cluster.
func setUpIn(t *testing.T, c *kubetest.Cluster, config *rest.Config, ns string, p Plane) (*world, *Operator) {
	t.Helper()
	w := &world{}
	return w, w.operate(t, c, config, ns, p)
}

// operate runs an operator whose runners are of this world until the test ends.
func (w *world) operate(t *testing.T, c *kubetest.Cluster, config *rest.Config, ns string, p Plane) *Operator {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	op, err := New(Options{
		Client: client, Dynamic: dyn, Namespace: ns, Plane: p, Start: w.start, Check: w.check, Past: w.past, Every: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- op.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		// So that the namespace can go.
		list, err := c.Dynamic.Resource(Resource).Namespace(ns).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return
		}
		for i := range list.Items {
			patch := []byte(`{"metadata": {"finalizers": null}}`)
			_, _ = c.Dynamic.Resource(Resource).Namespace(ns).Patch(context.Background(), list.Items[i].GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
		}
	})
	return op
}
