package scaler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

func TestWant(t *testing.T) {
	pools := []fleet.PoolTargets{{Pool: "a", Desired: 10, InFlight: 3}, {Pool: "b", Desired: 2, InFlight: 5}}
	for name, c := range map[string]struct {
		o    Options
		want int
	}{
		"all pools, what runs counts": {Options{PerReplica: 1}, 15},
		"one pool":                    {Options{PerReplica: 1, Pool: "a"}, 10},
		"several to a replica":        {Options{PerReplica: 4}, 4},
		"min":                         {Options{PerReplica: 1, Min: 20}, 20},
		"max":                         {Options{PerReplica: 1, Max: 12}, 12},
		"nodes":                       {Options{PerReplica: 1, Drives: Nodes}, 7},
	} {
		if got := c.o.want(&fleet.Targets{Pools: pools, Nodes: 7}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestOptionsNameTheField(t *testing.T) {
	good := Options{Namespace: "n", Targets: func() fleet.Targets { return fleet.Targets{} }, Target: Target{"apps/v1", "Deployment", "d"}}
	for field, spoil := range map[string]func(*Options){
		"target.name":       func(o *Options) { o.Target.Name = "" },
		"target.kind":       func(o *Options) { o.Target.Kind = "" },
		"target.apiVersion": func(o *Options) { o.Target.APIVersion = "a/b/c" },
		"min":               func(o *Options) { o.Min = -1 },
		"max":               func(o *Options) { o.Min, o.Max = 5, 3 },
		"perReplica":        func(o *Options) { o.PerReplica = -2 },
		"drives":            func(o *Options) { o.Drives = "cars" },
		"reports":           func(o *Options) { o.Reports = "maybe" },
	} {
		o := good
		spoil(&o)
		var fe *fleet.FieldError
		if err := o.complete(); !errors.As(err, &fe) || fe.Field != field || fe.Right == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := good.complete(); err != nil {
		t.Error(err)
	}
}

func TestScaleOutIsOneWrite(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.must(50)
	w.must(50)
	if !slices.Equal(w.writes, []int{50}) {
		t.Errorf("written: %v, want 50 once", w.writes)
	}
}

func TestConflictIsReadAgain(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.conflict = func() { w.replicas = 7 }
	w.must(10)
	if w.replicas != 10 {
		t.Errorf("%d replicas, want 10", w.replicas)
	}
	// Somebody was faster, and it is enough already.
	w.conflict = func() { w.replicas = 30 }
	if out := w.must(20); w.replicas != 30 || out.replicas != 30 {
		t.Errorf("%d replicas, want the 30 that are there", w.replicas)
	}
}

func TestAnotherAutoscalerHasTheTarget(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "keda-hpa-w", Namespace: "agents", OwnerReferences: []metav1.OwnerReference{{Kind: "ScaledObject", Name: "w"}}},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "workers"}},
	}
	w.put(h)
	out := w.must(50)
	const says = "HorizontalPodAutoscaler keda-hpa-w of KEDA's ScaledObject w"
	if len(w.writes) > 0 || !strings.Contains(out.held, says) {
		t.Errorf("written %v, held %q", w.writes, out.held)
	}
	w.must(50)
	if e := w.events(); len(e) != 1 || !strings.Contains(e[0], "AnotherWriter") || !strings.Contains(e[0], says) {
		t.Errorf("events: %q, want one", e)
	}
	// It is gone: on we go.
	if err := w.kube.AutoscalingV2().HorizontalPodAutoscalers("agents").Delete(t.Context(), h.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.pause(5 * time.Second)
	if w.must(50); w.replicas != 50 {
		t.Errorf("%d replicas, want 50", w.replicas)
	}
}

func TestReplicasOfOthersAreBroughtBackAndTold(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.must(5)
	w.replicas, w.manager = 3, "kubectl-scale"
	w.must(5)
	if e := w.events(); w.replicas != 5 || len(e) != 1 || !strings.Contains(e[0], `"kubectl-scale" set the replicas of Deployment/workers to 3`) {
		t.Errorf("%d replicas, events %q", w.replicas, e)
	}
}

func TestErrorsHaveAKindAndAMend(t *testing.T) {
	gr := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, c := range map[string]struct {
		err  error
		kind error
		says string
	}{
		"denied":  {apierrors.NewForbidden(gr, "workers", errors.New("no")), fleet.ErrDenied, `needs verb "get" on resource "deployments/scale" of API group "apps"`},
		"missing": {apierrors.NewNotFound(gr, "workers"), fleet.ErrNotFound, "Deployment/workers in namespace agents"},
		"outage":  {errors.New("connection refused"), fleet.ErrUnavailable, "connection refused"},
		"storm":   {apierrors.NewTooManyRequests("slow down", 1), fleet.ErrUnavailable, "slow down"},
	} {
		w := newWorld(t, "Deployment", 8, nil)
		w.fail = c.err
		_, err := w.pass(0)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if len(w.writes) > 0 {
			t.Errorf("%s: %v written", name, w.writes)
		}
	}
	w := newWorld(t, "Rocket", 8, func(o *Options) { o.Target.APIVersion = "space.example.com/v1" })
	if _, err := w.pass(0); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "is its definition installed?") {
		t.Error(err)
	}
}

// What one may not see of others is no reason to write: rule 7.
func TestRivalsThatCannotBeSeen(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.kube.PrependReactor("list", "horizontalpodautoscalers", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "horizontalpodautoscalers"}, "", errors.New("no"))
	})
	if _, err := w.pass(9); !errors.Is(err, fleet.ErrDenied) || len(w.writes) > 0 {
		t.Errorf("%v; written %v", err, w.writes)
	}
}

func TestScaleOutThoughPodsCannotBeSeen(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.kube.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	})
	if _, err := w.pass(9); !errors.Is(err, fleet.ErrDenied) || w.replicas != 9 {
		t.Errorf("%v; %d replicas, want 9 all the same", err, w.replicas)
	}
	if _, err := w.pass(1); !errors.Is(err, fleet.ErrDenied) || w.replicas != 9 {
		t.Errorf("%v; %d replicas: nobody knows who is busy", err, w.replicas)
	}
}

// Run on a virtual clock: unknown targets, an outage, and both ends of a burst.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "Deployment", 4, func(o *Options) { o.Settle = 30 * time.Second; o.Clock = time.Now })
		done := make(chan error, 1)
		go func() { done <- w.s.Run(t.Context()) }()
		set := func(n int, signals string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.targets = fleet.Targets{At: time.Now(), Signals: signals, Pools: []fleet.PoolTargets{{Desired: n}}}
		}
		expect := func(after time.Duration, n int, held string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			st := w.s.Status()
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.replicas != n || !strings.Contains(st.Held, held) {
				t.Errorf("%d replicas, held %q; want %d, held %q; status %+v", w.replicas, st.Held, n, held, st)
			}
		}
		expect(10*time.Second, 4, "nothing was decided yet")
		set(20, "")
		expect(30*time.Millisecond, 20, "")
		expect(time.Minute, 20, "the last decision is")
		set(2, "redis: unavailable")
		expect(6*time.Second, 20, "signals are not to be trusted")
		w.mu.Lock()
		w.fail = errors.New("connection refused")
		w.mu.Unlock()
		set(40, "")
		expect(20*time.Second, 20, "")
		if err := w.s.Status().Err; !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("status: %v", err)
		}
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		expect(6*time.Second, 40, "")
		set(0, "")
		expect(6*time.Second, 0, "")
		if n := w.s.Status().Writes; n != 3 {
			t.Errorf("%d writes, want 3", n)
		}
	})
}

func TestNothingIsScaledInRightAfterTheStart(t *testing.T) {
	w := newWorld(t, "Deployment", 10, func(o *Options) { o.Settle = 30 * time.Second })
	if out := w.must(1); w.replicas != 10 || out.again != 30*time.Second {
		t.Errorf("%d replicas, again in %s", w.replicas, out.again)
	}
	w.pause(30 * time.Second)
	if w.must(1); w.replicas != 1 {
		t.Errorf("%d replicas, want 1", w.replicas)
	}
}

func TestASteadyFleetWritesNothing(t *testing.T) {
	w := newWorld(t, "Deployment", 3, nil)
	for n := range 3 {
		w.pod(n, map[string]string{AnnotationBusy: "false", kube.AnnotationDeletionCost: "5"})
	}
	w.must(3)
	w.kube.ClearActions()
	for range 20 {
		w.must(3)
		w.pause(5 * time.Second)
	}
	for _, a := range w.kube.Actions() {
		if a.GetVerb() != "list" || a.GetResource().Resource == "pods" {
			t.Errorf("%s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
	if len(w.writes) > 0 || w.pods()["workers-0"].Annotations[kube.AnnotationDeletionCost] != "5" {
		t.Errorf("written: %v", w.writes)
	}
}

var notReady = func(p *corev1.Pod) { p.Status.Conditions = nil }
