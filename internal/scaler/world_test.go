package scaler

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	scalefake "k8s.io/client-go/scale/fake"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// world is an API server with one target, whose controller is played by reap:
// it does what the ones of Kubernetes do, in their order.
type world struct {
	t        *testing.T
	kube     *fake.Clientset
	scales   *scalefake.FakeScaleClient
	s        *Scaler
	kind     string
	selector string

	mu       sync.Mutex
	now      time.Time
	replicas int
	version  int
	manager  string
	conflict func() // runs before the next write, once
	fail     error  // what /scale answers
	writes   []int
	targets  fleet.Targets
	signals  string
}

func newWorld(t *testing.T, kind string, replicas int, with func(*Options)) *world {
	t.Helper()
	w := &world{
		t: t, kube: fake.NewClientset(), scales: &scalefake.FakeScaleClient{}, kind: kind, selector: "app=agents",
		now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), replicas: replicas, version: 1, manager: "kubectl",
	}
	w.scales.AddReactor("get", "*", w.get)
	w.scales.AddReactor("update", "*", w.update)
	o := Options{
		Namespace: "agents", Target: Target{APIVersion: "apps/v1", Kind: kind, Name: "workers"}, Fleet: "f",
		Targets: w.plan, Clock: w.clock, Settle: -1, Resync: 5 * time.Second,
	}
	if with != nil {
		with(&o)
	}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	w.s = newScaler(o, clients{kube: w.kube, scales: w.scales, mapper: mapper{}, meta: w.objects(), web: asker(), resource: &found{}})
	w.s.began = w.now
	if kind == "StatefulSet" {
		w.put(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "agents", Name: "workers"}})
	}
	return w
}

// objects is the target itself, with who has written its replicas.
func (w *world) objects() metadata.Interface {
	c := metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme())
	c.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		now := metav1.NewTime(w.now)
		old := metav1.NewTime(w.now.Add(-time.Hour))
		return true, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "a-label", Time: &now, FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)},
			{Manager: "helm", Time: &old, FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)},
			{Manager: w.manager, Subresource: "scale"},
			{Manager: kube.Owner, Subresource: "scale"},
		}}}, nil
	})
	return c
}

// mapper knows the kinds of package apps, by adding an s.
type mapper struct{ meta.ResettableRESTMapper }

func (mapper) Reset() {}
func (mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if gk.Group != "apps" {
		return nil, &meta.NoKindMatchError{GroupKind: gk, SearchedVersions: versions}
	}
	r, _ := meta.UnsafeGuessKindToResource(gk.WithVersion(versions[0]))
	return &meta.RESTMapping{Resource: r, GroupVersionKind: gk.WithVersion(versions[0])}, nil
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) plan() fleet.Targets {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.targets
}

func (w *world) put(o runtime.Object) {
	w.t.Helper()
	if err := w.kube.Tracker().Add(o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(clienttesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return true, nil, w.fail
	}
	return true, &autoscaling.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "workers", Namespace: "agents", UID: "u", ResourceVersion: strconv.Itoa(w.version)},
		Spec:       autoscaling.ScaleSpec{Replicas: int32(w.replicas)},
		Status:     autoscaling.ScaleStatus{Selector: w.selector},
	}, nil
}

func (w *world) update(a clienttesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return true, nil, w.fail
	}
	if f := w.conflict; f != nil {
		w.conflict = nil
		f()
		w.version++
	}
	sc := a.(clienttesting.UpdateAction).GetObject().(*autoscaling.Scale)
	if sc.ResourceVersion != strconv.Itoa(w.version) {
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, "workers", nil)
	}
	w.replicas, w.manager = int(sc.Spec.Replicas), kube.Owner
	w.version++
	w.writes = append(w.writes, w.replicas)
	return true, sc, nil
}

// pass is one look at a target that n replicas are wanted of.
func (w *world) pass(n int) (outcome, error) {
	w.t.Helper()
	return w.s.pass(w.t.Context(), w.clock(), order{n, w.signals})
}

// must is pass without a failure.
func (w *world) must(n int) outcome {
	w.t.Helper()
	out, err := w.pass(n)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// settle passes until there is nothing more to do at once, as the controller of
// the target carries each step out; ten steps at most.
func (w *world) settle(n int) outcome {
	w.t.Helper()
	for range 10 {
		out := w.must(n)
		w.reap()
		if out.again == 0 || out.again >= busyEvery {
			return out
		}
		w.pause(out.again)
	}
	w.t.Fatal("no end of steps")
	return outcome{}
}

func (w *world) pause(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// pods are those that exist, by name.
func (w *world) pods() map[string]*corev1.Pod {
	list, err := w.kube.CoreV1().Pods("agents").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]*corev1.Pod{}
	for i := range list.Items {
		out[list.Items[i].Name] = &list.Items[i]
	}
	return out
}

// pod adds one that runs and is ready.
func (w *world) pod(n int, annotations map[string]string, with ...func(*corev1.Pod)) string {
	yes, owner := true, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "workers-1", UID: "rs1"}
	switch w.kind {
	case "StatefulSet":
		owner.Kind, owner.Name = w.kind, "workers"
	case "Deployment":
	default:
		owner.APIVersion, owner.Kind = "example.com/v1", w.kind
	}
	owner.Controller = &yes
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("workers-%d", n), Namespace: "agents", Labels: map[string]string{"app": "agents"},
			Annotations: annotations, OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PodSpec{NodeName: "n"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "127.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, f := range with {
		f(p)
	}
	w.put(p)
	return p.Name
}

// reap removes the pods that are too many: not ready before ready, then by
// cost, of a StatefulSet by ordinal. Among equals the busy ones go first, which
// is the worst that can happen.
func (w *world) reap() {
	pods := w.pods()
	names := make([]string, 0, len(pods))
	for name := range pods {
		names = append(names, name)
	}
	cost := func(p *corev1.Pod) int { n, _ := strconv.Atoi(p.Annotations[kube.AnnotationDeletionCost]); return n }
	slices.SortFunc(names, func(x, y string) int {
		a, b := pods[x], pods[y]
		if w.kind == "StatefulSet" {
			return cmp.Compare(number(y), number(x))
		}
		return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(cost(a), cost(b)),
			cmp.Compare(b.Annotations[AnnotationBusy], a.Annotations[AnnotationBusy]))
	})
	w.mu.Lock()
	extra := max(0, len(names)-w.replicas)
	w.mu.Unlock()
	for _, name := range names[:extra] {
		if pods[name].Annotations[AnnotationBusy] == "true" {
			w.t.Errorf("busy pod %s was ended", name)
		}
		if err := w.kube.CoreV1().Pods("agents").Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func number(pod string) int { n, _ := strconv.Atoi(pod[len("workers-"):]); return n }

// agent is a worker that is asked over HTTP.
type agent struct {
	mu      sync.Mutex
	busy    bool
	drained bool
	body    string // instead of the right one
	port    string
}

func serve(t *testing.T) *agent {
	t.Helper()
	a := &agent{}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	_, a.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return a
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "PUT /drain":
		a.drained = true
	case "DELETE /drain":
		a.drained = false
	case "GET /busy":
	default:
		http.NotFound(w, r)
		return
	}
	if a.body != "" {
		_, _ = w.Write([]byte(a.body))
		return
	}
	_, _ = fmt.Fprintf(w, `{"busy":%t}`, a.busy)
}

func (a *agent) set(busy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = busy
}

func (a *agent) refuses() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drained
}

// events are the messages of the events that were recorded.
func (w *world) events() []string {
	list, err := w.kube.CoreV1().Events("agents").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Reason+": "+list.Items[i].Message)
	}
	return out
}
