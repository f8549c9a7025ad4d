package scaler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/scaler"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

func TestADeploymentFollowsThePlan(t *testing.T) {
	l := newLab(t, deployment, nil)
	l.nodes()
	l.deployment(2)
	l.run()
	l.within(30*time.Second, "2 ready", l.ready(2))
	began := time.Now()
	l.want(50)
	l.within(10*time.Second, "50 replicas asked for", func() bool { return l.s.Status().Replicas == 50 })
	written := time.Since(began)
	l.within(time.Minute, "50 ready", l.ready(50))
	t.Logf("50 replicas written after %s, ready after %s", written.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	// Six are busy: they stay, by name, whatever is wanted.
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

// rack makes one of them.
func (l *lab) rack() dynamic.ResourceInterface {
	l.t.Helper()
	client := l.c.Dynamic.Resource(schema.GroupVersionResource{Group: "scaler.muster.dev", Version: "v1", Resource: "racks"})
	rack := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "scaler.muster.dev/v1", "kind": "Rack", "metadata": map[string]any{"name": "r"}, "spec": map[string]any{"machines": int64(2)},
	}}
	if _, err := client.Create(l.t.Context(), rack, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
	return client
}

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
	client := l.rack()
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

// BenchmarkTargetToReplicas measures from a new target to the write, on a
// resource that nobody acts on.
func BenchmarkTargetToReplicas(b *testing.B) {
	l := newLab(b, scaler.Target{APIVersion: "scaler.muster.dev/v1", Kind: "Rack", Name: "r"}, func(o *scaler.Options, _ *lab) {
		c := rest.CopyConfig(o.Config)
		c.QPS, c.Burst = 200, 400 // as in production
		o.Config = c
	})
	l.c.InstallCRDs(b, []byte(racks))
	l.rack()
	l.run()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	n := 2
	for b.Loop() {
		n++
		l.want(n)
		for l.s.Status().Replicas != n {
			<-tick.C
		}
	}
}
