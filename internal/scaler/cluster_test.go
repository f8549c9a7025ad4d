package scaler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
	"muster.dev/muster/internal/scaler"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// lab is a namespace of a real cluster with a scaler in it.
type lab struct {
	t  testing.TB
	c  *kubetest.Cluster
	ns string
	s  *scaler.Scaler

	mu sync.Mutex
	n  int
}

// pool is the label of the nodes of these tests.
const pool = "scaler-test"

func newLab(t testing.TB, target scaler.Target, with func(*scaler.Options, *lab)) *lab {
	t.Helper()
	c := kubetest.Start(t)
	l := &lab{t: t, c: c, ns: c.Namespace(t), n: 2}
	o := scaler.Options{
		Config: c.Config, Namespace: l.ns, Fleet: "f", Target: target, Settle: -1, Resync: 500 * time.Millisecond,
		Targets: func() fleet.Targets {
			l.mu.Lock()
			defer l.mu.Unlock()
			return fleet.Targets{At: time.Now(), Pools: []fleet.PoolTargets{{Pool: "p", Desired: l.n}}}
		},
	}
	if with != nil {
		with(&o, l)
	}
	s, err := scaler.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l.s = s
	return l
}

// run starts the scaler; it ends with the test.
func (l *lab) run() {
	ctx, stop := context.WithCancel(l.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.s.Run(ctx) }()
	l.t.Cleanup(func() { stop(); <-done })
}

func (l *lab) want(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n = n
}

// within polls until a condition holds.
func (l *lab) within(d time.Duration, what string, f func() bool) {
	l.t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			l.t.Fatalf("not within %s: %s; status %+v", d, what, l.s.Status())
		case <-tick.C:
		}
	}
}

// template is of pods that kwok runs on nodes of these tests.
func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "agents"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"pool": pool},
			Containers: []corev1.Container{{Name: "agent", Image: "agent", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
			}}},
		},
	}
}

func (l *lab) nodes() {
	l.c.NodeGroup(l.t, kubetest.GroupOptions{Name: pool, Labels: map[string]string{"pool": pool}, MilliCPU: 8000, Memory: 32 << 30, Pods: 110, Min: 2, Max: 2})
}

func (l *lab) deployment(replicas int32) {
	l.t.Helper()
	_, err := l.c.Client.AppsV1().Deployments(l.ns).Create(l.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: template(),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agents"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
}

// pods are those that are there to stay, with whether they are ready.
func (l *lab) pods() map[string]bool {
	l.t.Helper()
	list, err := l.c.Client.CoreV1().Pods(l.ns).List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]bool{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil {
			out[p.Name] = false
			for _, c := range p.Status.Conditions {
				out[p.Name] = out[p.Name] || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}
		}
	}
	return out
}

func (l *lab) ready(n int) func() bool {
	return func() bool {
		pods, up := l.pods(), 0
		for _, ready := range pods {
			if ready {
				up++
			}
		}
		return up == n && len(pods) == n
	}
}

func (l *lab) say(pod, busy string) {
	l.t.Helper()
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{scaler.AnnotationBusy: busy}}})
	if _, err := l.c.Client.CoreV1().Pods(l.ns).Patch(l.t.Context(), pod, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// event tells whether an event says something.
func (l *lab) event(says string) func() bool {
	return func() bool {
		list, err := l.c.Client.CoreV1().Events(l.ns).List(l.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for i := range list.Items {
			if strings.Contains(list.Items[i].Message, says) {
				return true
			}
		}
		return false
	}
}

var deployment = scaler.Target{APIVersion: "apps/v1", Kind: "Deployment", Name: "workers"}

func TestADeploymentFollowsThePlan(t *testing.T) {
	l := newLab(t, deployment, nil)
	l.nodes()
	l.deployment(2)
	l.run()
	l.within(30*time.Second, "2 ready", l.ready(2))
	began := time.Now()
	l.want(20)
	l.within(10*time.Second, "20 replicas asked for", func() bool { return l.s.Status().Replicas == 20 })
	written := time.Since(began)
	l.within(time.Minute, "20 ready", l.ready(20))
	t.Logf("20 replicas written after %s, ready after %s", written.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	// Every third is busy: they stay, by name, whatever is wanted.
	busy := map[string]bool{}
	for name := range l.pods() {
		if len(busy) < 6 {
			busy[name] = true
		}
	}
	for name := range l.pods() {
		l.say(name, fmt.Sprint(busy[name]))
	}
	l.want(1)
	l.within(time.Minute, "6 pods left", l.ready(6))
	for name := range l.pods() {
		if !busy[name] {
			t.Errorf("idle pod %s is left, so a busy one was ended", name)
		}
	}
	l.within(10*time.Second, "no marks left", l.unmarked)
	for name := range busy {
		l.say(name, "false")
	}
	l.within(time.Minute, "1 pod left", l.ready(1))
	l.want(0)
	l.within(time.Minute, "none left", l.ready(0))
}

// unmarked says that no pod has a cost or a mark.
func (l *lab) unmarked() bool {
	list, err := l.c.Client.CoreV1().Pods(l.ns).List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		return false
	}
	for i := range list.Items {
		a := list.Items[i].Annotations
		if list.Items[i].DeletionTimestamp == nil && (a[scaler.AnnotationLeaving] != "" || a[kube.AnnotationDeletionCost] != "") {
			return false
		}
	}
	return true
}

func TestAStatefulSetGoesFromItsTail(t *testing.T) {
	l := newLab(t, scaler.Target{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "workers"}, nil)
	l.nodes()
	n := int32(2)
	_, err := l.c.Client.AppsV1().StatefulSets(l.ns).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec: appsv1.StatefulSetSpec{Replicas: &n, Template: template(), PodManagementPolicy: appsv1.ParallelPodManagement,
			Ordinals: &appsv1.StatefulSetOrdinals{Start: 5}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agents"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.want(6) // ordinals 5 to 10
	l.run()
	l.within(time.Minute, "6 ready", l.ready(6))
	for name := range l.pods() {
		l.say(name, fmt.Sprint(name == "workers-7"))
	}
	l.want(0)
	l.within(time.Minute, "workers-5 to workers-7 left", l.ready(3))
	if _, ok := l.pods()["workers-7"]; !ok {
		t.Errorf("the busy one is gone: %v", l.pods())
	}
	l.say("workers-7", "false")
	l.within(time.Minute, "none left", l.ready(0))
}

func TestAnAutoscalerWithTheSameTarget(t *testing.T) {
	l := newLab(t, deployment, nil)
	l.deployment(2)
	hpas := l.c.Client.AutoscalingV2().HorizontalPodAutoscalers(l.ns)
	_, err := hpas.Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 9, ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "workers"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.want(7)
	l.run()
	l.within(20*time.Second, "an event", l.event("Deployment/workers is also driven by HorizontalPodAutoscaler mine"))
	l.within(20*time.Second, "held", func() bool {
		st := l.s.Status()
		return st.Writes == 0 && strings.Contains(st.Held, "one writer")
	})
	if err := hpas.Delete(t.Context(), "mine", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	l.within(20*time.Second, "7 replicas asked for", func() bool { return l.s.Status().Replicas == 7 })
	// And a person with kubectl.
	patch := []byte(`{"spec":{"replicas":3}}`)
	if _, err := l.c.Client.AppsV1().Deployments(l.ns).Patch(t.Context(), "workers", types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "somebody"}, "scale"); err != nil {
		t.Fatal(err)
	}
	l.within(20*time.Second, "an event", l.event(`"somebody" set the replicas of Deployment/workers to 3`))
	l.within(20*time.Second, "7 replicas again", func() bool {
		d, err := l.c.Client.AppsV1().Deployments(l.ns).Get(t.Context(), "workers", metav1.GetOptions{})
		return err == nil && *d.Spec.Replicas == 7
	})
}

const racks = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: racks.scaler.muster.dev}
spec:
  group: scaler.muster.dev
  scope: Cluster
  names: {kind: Rack, listKind: RackList, plural: racks, singular: rack}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {
        spec: {type: object, properties: {machines: {type: integer}}},
        status: {type: object, properties: {machines: {type: integer}}}}}}
      subresources: {status: {}, scale: {specReplicasPath: .spec.machines, statusReplicasPath: .status.machines}}
`

// A resource of one's own, without a namespace and without a selector, whose
// replicas have another name: as node pools are.
func TestAResourceOfOnesOwn(t *testing.T) {
	l := newLab(t, scaler.Target{APIVersion: "scaler.muster.dev/v1", Kind: "Rack", Name: "r"}, nil)
	l.run()
	l.within(20*time.Second, "said that the kind is not there", func() bool {
		err := l.s.Status().Err
		return errors.Is(err, fleet.ErrNotFound) && strings.Contains(err.Error(), "is its definition installed?")
	})
	l.c.InstallCRDs(t, []byte(racks))
	client := l.c.Dynamic.Resource(schema.GroupVersionResource{Group: "scaler.muster.dev", Version: "v1", Resource: "racks"})
	rack := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "scaler.muster.dev/v1", "kind": "Rack", "metadata": map[string]any{"name": "r"}, "spec": map[string]any{"machines": int64(4)},
	}}
	if _, err := client.Create(t.Context(), rack, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{9, 3, 0} {
		l.want(n)
		l.within(20*time.Second, fmt.Sprintf("%d machines", n), func() bool {
			r, err := client.Get(t.Context(), "r", metav1.GetOptions{})
			if err != nil {
				return false
			}
			got, _, _ := unstructured.NestedInt64(r.Object, "spec", "machines")
			return got == int64(n)
		})
	}
}

func TestARoleThatIsTooSmall(t *testing.T) {
	l := newLab(t, deployment, func(o *scaler.Options, l *lab) {
		o.Config = l.c.ServiceAccountConfig(l.t, l.ns, "muster")
	})
	l.deployment(2)
	l.want(5)
	l.run()
	denied := func(verb, resource string) {
		t.Helper()
		l.within(20*time.Second, "told of "+resource, func() bool {
			err := l.s.Status().Err
			return errors.Is(err, fleet.ErrDenied) && strings.Contains(err.Error(), fmt.Sprintf("needs verb %q on resource %q", verb, resource))
		})
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "muster"}}
	grant := func(group, resource string, verbs ...string) {
		t.Helper()
		role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs})
		// Roles may be created by an update.
		if _, err := l.c.Client.RbacV1().Roles(l.ns).Update(t.Context(), role.DeepCopy(), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.c.Client.RbacV1().RoleBindings(l.ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "muster"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "muster"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "muster", Namespace: l.ns}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// One after the other, until the table of docs/kubernetes-scaler.md is granted.
	denied("list", "horizontalpodautoscalers")
	grant("autoscaling", "horizontalpodautoscalers", "list")
	denied("get", "deployments/scale")
	grant("apps", "deployments/scale", "get", "update")
	l.within(20*time.Second, "5 replicas", func() bool { return l.s.Status().Replicas == 5 }) // more is no matter of pods
	denied("list", "pods")
	grant("", "pods", "list", "patch")
	grant("", "events", "create")
	l.within(20*time.Second, "all granted", func() bool { return l.s.Status().Err == nil })
}

func TestTheAPIServerIsGoneForAWhile(t *testing.T) {
	l := newLab(t, deployment, nil)
	l.deployment(2)
	l.want(8)
	l.run()
	l.within(20*time.Second, "8 replicas", func() bool { return l.s.Status().Replicas == 8 })
	l.c.StopAPIServer()
	l.want(30)
	l.within(30*time.Second, "an outage in the status", func() bool { return errors.Is(l.s.Status().Err, fleet.ErrUnavailable) })
	if n := l.s.Status().Replicas; n != 8 {
		t.Errorf("%d replicas in the status, want the 8 last seen", n)
	}
	l.c.StartAPIServer()
	l.within(time.Minute, "30 replicas", func() bool { return l.s.Status().Replicas == 30 })
}

// BenchmarkTargetToReplicas measures from a new target to the write.
func BenchmarkTargetToReplicas(b *testing.B) {
	l := newLab(b, deployment, func(o *scaler.Options, l *lab) {
		c := rest.CopyConfig(o.Config)
		c.QPS, c.Burst = 200, 400 // as in production
		o.Config, o.Reports = c, scaler.ReportsOff
	})
	l.deployment(0)
	l.run()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	n := 1000
	for b.Loop() {
		n ^= 1
		l.want(n)
		for l.s.Status().Replicas != n {
			<-tick.C
		}
	}
}
