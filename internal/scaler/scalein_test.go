package scaler

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/kube"
)

func busyIf(b bool) map[string]string {
	if b {
		return map[string]string{AnnotationBusy: "true"}
	}
	return map[string]string{AnnotationBusy: "false"}
}

func TestIdlePodsGoFirstAndNoCostsAreLeft(t *testing.T) {
	w := newWorld(t, "Deployment", 6, nil)
	for n := range 6 {
		a := busyIf(n%2 == 0)
		a[kube.AnnotationDeletionCost] = []string{"", "-7"}[n%2]
		w.pod(n, a)
	}
	out := w.must(4)
	if w.replicas != 6 || out.again != stepEvery {
		t.Fatalf("%d replicas at once: the marks have to settle", w.replicas)
	}
	w.settle(4)
	pods := w.pods()
	if len(pods) != 4 {
		t.Fatalf("%d pods, want 4", len(pods))
	}
	w.settle(4)
	for name, p := range w.pods() {
		want := []string{"", "-7"}[number(name)%2]
		if got := p.Annotations[kube.AnnotationDeletionCost]; got != want || p.Annotations[AnnotationLeaving] != "" || p.Annotations[AnnotationCostBefore] != "" {
			t.Errorf("%s: cost %q, want %q; %v", name, got, want, p.Annotations)
		}
	}
	// Less than what is busy is never asked for.
	if out := w.settle(0); w.replicas != 3 || out.busy != 3 || !strings.Contains(out.held, "3 of 3 workers are busy") {
		t.Errorf("%d replicas, %+v", w.replicas, out)
	}
}

// Whatever is busy, ready and marked: no busy pod is ended, and what is idle is
// parted with as far as the order of the controller lets us.
func TestNoBusyPodIsEverEnded(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		kind := rapid.SampledFrom([]string{"Deployment", "StatefulSet"}).Draw(r, "kind")
		n := rapid.IntRange(1, 8).Draw(r, "pods")
		w := newWorld(t, kind, n, nil)
		working, plain := 0, true
		for i := range n {
			b, ready := rapid.Bool().Draw(r, "busy"), rapid.Bool().Draw(r, "ready")
			if b {
				working++
			}
			if plain = plain && ready; ready {
				w.pod(i, busyIf(b))
			} else {
				w.pod(i, busyIf(b), notReady)
			}
		}
		for range 3 {
			want := rapid.IntRange(0, n).Draw(r, "want")
			w.settle(min(want, w.replicas))
			if kind == "Deployment" && plain && w.replicas > max(want, working) && want <= w.replicas {
				r.Fatalf("%d replicas stay, want %d, %d busy", w.replicas, want, working)
			}
		}
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

func TestABusyPodThatIsNotReadyHoldsTheReadyOnes(t *testing.T) {
	w := newWorld(t, "Deployment", 3, nil)
	w.pod(0, busyIf(true), notReady)
	w.pod(1, busyIf(false))
	w.pod(2, busyIf(false))
	if out := w.settle(1); w.replicas != 3 || out.held == "" {
		t.Errorf("%d replicas: the controller would end the one that is not ready first", w.replicas)
	}
}

func TestAMarkedPodThatTakesWorkIsSpared(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	a := serve(t)
	b := serve(t)
	b.set(true)
	w.pod(0, map[string]string{AnnotationBusyPort: a.port, AnnotationDrain: "true"})
	w.pod(1, map[string]string{AnnotationBusyPort: b.port})
	w.must(1)
	if w.pods()["workers-0"].Annotations[kube.AnnotationDeletionCost] != leavingCost {
		t.Fatal("the idle one is not marked")
	}
	a.set(true)
	w.pause(2 * markSettles)
	if out := w.must(1); w.replicas != 2 || out.busy != 2 {
		t.Errorf("%d replicas, %+v", w.replicas, out)
	}
	if p := w.pods()["workers-0"]; p.Annotations[kube.AnnotationDeletionCost] != "" || a.refuses() {
		t.Errorf("marks stay on one that works: %v, refuses: %t", p.Annotations, a.refuses())
	}
}

func TestADrainedWorkerTakesNoMoreUntilItIsLetGoOn(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	for n := range 2 {
		w.pod(n, busyIf(false))
	}
	a := serve(t)
	if err := w.kube.CoreV1().Pods("agents").Delete(t.Context(), "workers-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.pod(0, map[string]string{AnnotationBusyPort: a.port, AnnotationDrain: "true"})
	w.must(1)
	w.pause(stepEvery)
	w.must(1)
	if !a.refuses() {
		t.Fatal("the marked one was not told to take no more")
	}
	// Demand returns before the replicas were lowered.
	w.must(2)
	if a.refuses() || w.replicas != 2 || w.pods()["workers-0"].Annotations[AnnotationLeaving] != "" {
		t.Error("it still refuses work, or is still marked")
	}
}

func TestAnswersThatAreNoneCountAsBusy(t *testing.T) {
	for _, body := range []string{"{}", "idle", `{"busy":"no"}`, `{"busy":true,"until":"2026-03-02T09:00:05Z"}`} {
		w := newWorld(t, "Deployment", 1, nil)
		a := serve(t)
		a.body = body
		w.pod(0, map[string]string{AnnotationBusyPort: a.port})
		if out := w.settle(0); w.replicas != 1 || out.busy != 1 {
			t.Errorf("%s: %d replicas, %d busy", body, w.replicas, out.busy)
		}
	}
	for _, an := range []map[string]string{{AnnotationBusyPort: "99999"}, {AnnotationBusyPort: "1"}, {AnnotationBusy: "perhaps"}, {AnnotationBusy: "2026-03-02T09:00:05Z"}} {
		w := newWorld(t, "Deployment", 1, nil)
		w.pod(0, an)
		if out := w.settle(0); w.replicas != 1 || out.busy != 1 {
			t.Errorf("%v: %d replicas, %d busy", an, w.replicas, out.busy)
		}
	}
}

func TestBusyUntilEnds(t *testing.T) {
	w := newWorld(t, "Deployment", 1, nil)
	w.pod(0, map[string]string{AnnotationBusy: "2026-03-02T09:00:05Z"})
	if out := w.settle(0); out.again != 5*time.Second {
		t.Errorf("looks again in %s, want when it may be idle", out.again)
	}
	w.pause(5 * time.Second)
	if w.settle(0); w.replicas != 0 {
		t.Errorf("%d replicas, want 0", w.replicas)
	}
}

func TestWhoDoesNotReport(t *testing.T) {
	for _, c := range []struct {
		r     Reports
		stays int
	}{{ReportsOptional, 1}, {ReportsRequired, 3}, {ReportsOff, 1}} {
		w := newWorld(t, "Deployment", 3, func(o *Options) { o.Reports = c.r })
		for n := range 3 {
			w.pod(n, nil)
		}
		if w.settle(1); w.replicas != c.stays {
			t.Errorf("%s: %d replicas, want %d", c.r, w.replicas, c.stays)
		}
	}
	// Whoever says that it is idle goes before one that says nothing.
	w := newWorld(t, "Deployment", 2, nil)
	w.pod(0, nil)
	w.pod(1, busyIf(false))
	w.settle(1)
	if w.pods()["workers-0"] == nil {
		t.Error("the silent one went first")
	}
}

func TestPodsThatRunNothingAreIdle(t *testing.T) {
	w := newWorld(t, "Deployment", 2, func(o *Options) { o.Reports = ReportsRequired })
	w.pod(0, nil, notReady, func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })
	w.pod(1, map[string]string{AnnotationBusyPort: "1"}, notReady, func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
	})
	if w.settle(0); w.replicas != 0 {
		t.Errorf("%d replicas, want 0", w.replicas)
	}
}

func TestStatefulSetGoesAsFarAsItsTailIsIdle(t *testing.T) {
	w := newWorld(t, "StatefulSet", 6, nil)
	for n := range 6 {
		w.pod(n, busyIf(n == 3))
	}
	if out := w.settle(1); w.replicas != 4 || !strings.Contains(out.held, "1 of 4 workers are busy") {
		t.Errorf("%d replicas, held %q; want 4, for ordinal 3 is busy", w.replicas, out.held)
	}
	if p := w.pods()["workers-0"]; p.Annotations[kube.AnnotationDeletionCost] != "" {
		t.Error("a cost means nothing to a StatefulSet")
	}
}

func TestStatefulSetCountsFromItsFirstOrdinal(t *testing.T) {
	w := newWorld(t, "StatefulSet", 4, nil)
	if err := w.kube.Tracker().Update(appsv1.SchemeGroupVersion.WithResource("statefulsets"), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "agents", Name: "workers"}, Spec: appsv1.StatefulSetSpec{Ordinals: &appsv1.StatefulSetOrdinals{Start: 10}},
	}, "agents"); err != nil {
		t.Fatal(err)
	}
	// Ordinal 12 is missing: counting pods instead of ordinals would end 11.
	w.pod(10, busyIf(false))
	w.pod(11, busyIf(true))
	w.pod(13, busyIf(false))
	if w.settle(0); w.replicas != 2 {
		t.Errorf("%d replicas, want 2", w.replicas)
	}
}

func TestAControllerWhoseOrderIsUnknown(t *testing.T) {
	w := newWorld(t, "CloneSet", 3, nil)
	for n := range 3 {
		w.pod(n, busyIf(n == 0))
	}
	if out := w.settle(2); w.replicas != 3 || !strings.Contains(out.held, "does not say which would go") {
		t.Errorf("%d replicas, held %q", w.replicas, out.held)
	}
}

func TestARolloutIsWaitedFor(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.pod(0, busyIf(false))
	w.pod(1, busyIf(false), func(p *corev1.Pod) { p.OwnerReferences[0].UID = "rs2" })
	if out := w.settle(1); w.replicas != 2 || !strings.Contains(out.held, "rolled out") {
		t.Errorf("%d replicas, held %q", w.replicas, out.held)
	}
}

// A process that died between marking and writing leaves nothing behind.
func TestMarksOfAFormerProcessAreTakenAway(t *testing.T) {
	w := newWorld(t, "Deployment", 2, nil)
	w.pod(0, busyIf(false))
	w.pod(1, busyIf(true))
	w.must(1)
	again := newScaler(w.s.o, w.s.c)
	again.began = w.now
	w.s = again
	w.must(2)
	for name, p := range w.pods() {
		if p.Annotations[AnnotationLeaving] != "" || p.Annotations[kube.AnnotationDeletionCost] != "" {
			t.Errorf("%s: %v", name, p.Annotations)
		}
	}
}
