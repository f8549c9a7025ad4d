package cluster_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/doctor/cluster"
	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

func found(t *testing.T, r doctor.Report, check string, level doctor.Level, part string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check && f.Level == level && strings.Contains(f.Found, part) {
			return
		}
	}
	t.Errorf("no finding %s %s %q in:", check, level, part)
	for _, f := range r.Findings {
		t.Logf("  %s %s: %s", f.Level, f.Check, f.Found)
	}
}

// definition is as much of the Fleet's as doctor looks at; the real one has
// tests of its own.
const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.muster.dev}
spec:
  group: muster.dev
  scope: Namespaced
  names: {kind: Fleet, plural: fleets}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// TestRealCluster asks a real API server, before and after what is missing was
// put there, as administrator and as somebody without rights.
func TestRealCluster(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	ctx := t.Context()
	needs := cluster.Needs{
		Fleet: "coding", NodeSelector: map[string]string{"pool": "doctor"}, Headroom: "placeholder", SeatClass: "doctor-seat", Sandboxes: 3,
	}
	o := cluster.Options{Client: c.Client, Dynamic: c.Dynamic, Namespace: ns, Needs: needs}

	r := cluster.Examine(ctx, o)
	found(t, r, "api-server", doctor.OK, "v1.37")
	found(t, r, "priority-class", doctor.Fail, "doctor-seat")
	found(t, r, "nodes", doctor.OK, "none has the labels pool=doctor now")
	found(t, r, "control-plane", doctor.Warn, "not installed")
	found(t, r, "rights.sandboxes", doctor.OK, "you may make all")
	found(t, r, "quota", doctor.OK, "none in "+ns)

	c.InstallCRDs(t, []byte(definition))
	seat := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "doctor-seat"}, Value: -5}
	if _, err := c.Client.SchedulingV1().PriorityClasses().Create(ctx, seat, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Client.SchedulingV1().PriorityClasses().Delete(context.Background(), "doctor-seat", metav1.DeleteOptions{})
	})
	c.NodeGroup(t, kubetest.GroupOptions{
		Name: "doctor", Labels: map[string]string{"pool": "doctor"}, MilliCPU: 4000, Memory: 8 << 30, Pods: 20, Min: 1, Max: 1, Boot: time.Millisecond,
		Taints: []corev1.Taint{{Key: kube.TaintDedicated, Value: "agents", Effect: corev1.TaintEffectNoSchedule}},
	})
	eventually(t, func() bool {
		r = cluster.Examine(ctx, o)
		return has(r, "nodes", "1 for agents, 1 ready")
	})
	found(t, r, "fleets", doctor.OK, "muster.dev/v1alpha1")
	found(t, r, "priority-class", doctor.OK, "doctor-seat -5")
	found(t, r, "nodes", doctor.OK, "1 for agents, 1 ready")
	found(t, r, "dedicated", doctor.OK, "nothing but agents")

	powerless(t, c, ns, o)
}

// powerless asks as, and about, an account that has next to no rights.
func powerless(t *testing.T, c *kubetest.Cluster, ns string, o cluster.Options) {
	t.Helper()
	ctx := t.Context()
	config := c.ServiceAccountConfig(t, ns, "nobody")
	var err error
	o.Account = ns + "/nobody"
	r := cluster.Examine(ctx, o)
	found(t, r, "rights.sandboxes", doctor.Fail, ns+"/nobody may not: create networkpolicies.networking.k8s.io, create pods")

	meta := metav1.ObjectMeta{Name: "some", Namespace: ns}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch", "create", "patch"}}}}
	if _, err := c.Client.RbacV1().Roles(ns).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "some"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "nobody", Namespace: ns}},
	}
	if _, err := c.Client.RbacV1().RoleBindings(ns).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if o.Client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if o.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	o.Account = ""
	eventually(t, func() bool { // the authorizer sees the binding a moment later
		r = cluster.Examine(ctx, o)
		return has(r, "rights.sandboxes", "you may not: create networkpolicies.networking.k8s.io, delete pods, ")
	})
	found(t, r, "nodes", doctor.Warn, "you may not read nodes")
	found(t, r, "quota", doctor.Warn, "you may not read resource quotas")
	found(t, r, "priority-class", doctor.Warn, "you may not read priority classes")
}

func has(r doctor.Report, check, part string) bool {
	for _, f := range r.Findings {
		if f.Check == check && strings.Contains(f.Found, part) {
			return true
		}
	}
	return false
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Error("not so after a minute; what is, follows")
			return
		}
		time.Sleep(50 * time.Millisecond) // a real server: polled, with a deadline
	}
}
