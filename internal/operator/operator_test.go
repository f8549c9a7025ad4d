package operator

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	kubetest "muster.dev/muster/test/kube"
)

// statusIn reads a fleet's status.
func statusIn(ctx context.Context, c *kubetest.Cluster, ns, name string) (v1alpha1.FleetStatus, string) {
	u, err := c.Dynamic.Resource(Resource).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return v1alpha1.FleetStatus{}, ""
	}
	return statusOf(u.Object["status"]), u.GetResourceVersion()
}

func condition(s v1alpha1.FleetStatus, kind string) v1alpha1.Condition {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return v1alpha1.Condition{}
}

func patch(t *testing.T, c *kubetest.Cluster, ns, name string, spec map[string]any) {
	t.Helper()
	b, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Dynamic.Resource(Resource).Namespace(ns).Patch(t.Context(), name, types.MergePatchType, b, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestLife: a fleet is started, changed, restarted, survives an invalid change,
// and is drained when it is deleted.
func TestLife(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	w, _ := setUp(t, c, c.Config, ns)
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "agents", template), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status says Ready", 20*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryReady && s.Ready == 2 && s.Desired == 2 && s.ObservedGeneration == 1 &&
			condition(s, v1alpha1.ConditionReady).Status == "True" && condition(s, v1alpha1.ConditionDegraded).Status == "False"
	})
	r := w.newest()
	if r.f.Spec.Spec.Nodes.Provider != v1alpha1.ProviderKubernetes || r.f.UID == "" {
		t.Errorf("%+v", r.f)
	}

	patch(t, c, ns, "agents", map[string]any{"capacity": map[string]any{"sandboxes": map[string]any{"max": 7}}})
	eventually(t, "the runner has taken the change over", 10*time.Second, func(context.Context) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.updates == 1 && r.f.Spec.Spec.Capacity.Sandboxes.Max == 7
	})
	patch(t, c, ns, "agents", map[string]any{"queue": map[string]any{"visibility": "1m"}})
	eventually(t, "the runner was made anew", 10*time.Second, func(context.Context) bool { return w.starts() == 2 && w.newest() != r })
	r = w.newest()

	// What only the control plane can tell is wrong.
	patch(t, c, ns, "agents", map[string]any{"capacity": map[string]any{"floors": []any{map[string]any{"cron": "0 25 * * *", "for": "1h", "min": 1}}}})
	eventually(t, "the condition says what is wrong", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		d := condition(s, v1alpha1.ConditionDegraded)
		return d.Reason == "InvalidSpec" && strings.Contains(d.Message, "spec.capacity.floors[0].cron") && strings.Contains(d.Message, "the last good spec goes on") &&
			s.Summary == summaryInvalid && condition(s, v1alpha1.ConditionReady).Status == "True"
	})
	if w.newest() != r || r.closed {
		t.Error("an invalid change ended what ran")
	}
	patch(t, c, ns, "agents", map[string]any{"capacity": map[string]any{"floors": nil}})
	eventually(t, "it is mended", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryReady && condition(s, v1alpha1.ConditionDegraded).Status == "False"
	})

	r.do(func() { r.hold = make(chan struct{}) })
	annotate := []byte(`{"metadata": {"annotations": {"` + v1alpha1.AnnotationDrainTimeout + `": "1h"}}}`)
	if _, err := fleets.Patch(t.Context(), "agents", types.MergePatchType, annotate, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := fleets.Delete(t.Context(), "agents", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is being drained", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryStopping && condition(s, v1alpha1.ConditionProgressing).Reason == "Draining"
	})
	if u, err := fleets.Get(t.Context(), "agents", metav1.GetOptions{}); err != nil || !slices.Contains(u.GetFinalizers(), v1alpha1.DrainFinalizer) {
		t.Fatalf("it went before it was drained: %v", err)
	}
	close(r.hold)
	eventually(t, "it is gone", 10*time.Second, func(ctx context.Context) bool {
		_, err := fleets.Get(ctx, "agents", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	r.do(func() {
		if !r.drained || !r.closed || r.patience < 50*time.Minute {
			t.Errorf("drained %t with patience %s, closed %t", r.drained, r.patience, r.closed)
		}
	})
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "agents", template), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one of the same name runs again", 10*time.Second, func(context.Context) bool { return w.starts() == 3 })
}

// TestSteadyWritesNothing: a fleet that stays as it is has its object left
// alone, though its sentence changes all the time.
func TestSteadyWritesNothing(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	w, _ := setUp(t, c, c.Config, ns)
	if _, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), fleetOf(t, ns, "steady", template), strict); err != nil {
		t.Fatal(err)
	}
	var version string
	eventually(t, "it is ready", 20*time.Second, func(ctx context.Context) bool {
		var s v1alpha1.FleetStatus
		s, version = statusIn(ctx, c, ns, "steady")
		return s.Summary == summaryReady
	})
	for i := range 20 {
		w.newest().do(func() { w.last().report.Sentence = strings.Repeat("x", i) })
		time.Sleep(50 * time.Millisecond)
	}
	if _, now := statusIn(t.Context(), c, ns, "steady"); now != version {
		t.Errorf("the object went from version %s to %s", version, now)
	}
	w.newest().do(func() { w.last().report.Running = 1 })
	eventually(t, "a change is written", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "steady")
		return s.Running == 1
	})
	w.newest().do(func() {
		w.last().report.Events = []Event{{Reason: "ScaleOut", Message: "2 more"}, {Warning: true, Reason: "BreakerOpen", Message: "no image"}}
	})
	eventually(t, "events are told", 10*time.Second, func(ctx context.Context) bool {
		list, err := c.Client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=steady"})
		if err != nil {
			return false
		}
		var kinds []string
		for _, e := range list.Items {
			kinds = append(kinds, e.Type+" "+e.Reason)
		}
		return slices.Contains(kinds, corev1.EventTypeNormal+" ScaleOut") && slices.Contains(kinds, corev1.EventTypeWarning+" BreakerOpen")
	})
}

// last is newest without the lock, which the caller's runner is not about.
func (w *world) last() *fakeRunner { return w.runners[len(w.runners)-1] }

// TestFailures: a fleet that cannot be started says why and is tried again; one
// that ends by itself is made anew.
func TestFailures(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	w, _ := setUp(t, c, c.Config, ns)
	w.broken = errors.Join(errors.New("the service account may not create pods in namespace x"), fleet.ErrDenied)
	if _, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), fleetOf(t, ns, "broken", template), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the condition names the right", 20*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "broken")
		d := condition(s, v1alpha1.ConditionDegraded)
		return d.Reason == "Forbidden" && strings.Contains(d.Message, "may not create pods") && s.Summary == summaryDegraded
	})
	w.mu.Lock()
	w.broken = nil
	w.mu.Unlock()
	eventually(t, "it is started after all", 20*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "broken")
		return s.Summary == summaryReady
	})
	if n := w.starts(); n > 5 {
		t.Errorf("it was tried %d times", n)
	}
	first := w.newest()
	first.fail <- errors.New("the store is gone")
	eventually(t, "it is made anew", 20*time.Second, func(context.Context) bool { return w.newest() != first })
}

// TestRights: with a Role that lacks a right the log and Ready name verb and
// resource, and nothing is started that could not be given back.
func TestRights(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	config := c.ServiceAccountConfig(t, ns, "muster")
	w, op := setUp(t, c, config, ns)
	eventually(t, "the missing right is named", 20*time.Second, func(context.Context) bool {
		err := op.Ready()
		return errors.Is(err, fleet.ErrDenied) && strings.Contains(err.Error(), "may not list fleets.muster.dev in namespace "+ns)
	})
	grant(t, c, ns, []rbacv1.PolicyRule{{APIGroups: []string{"muster.dev"}, Resources: []string{"fleets"}, Verbs: []string{"get", "list", "watch"}}})
	if _, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), fleetOf(t, ns, "agents", template), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fleets are seen", 60*time.Second, func(context.Context) bool { return op.Ready() == nil && len(op.Keys()) == 1 })
	time.Sleep(500 * time.Millisecond)
	if w.starts() > 0 {
		t.Error("a fleet was started that has no finalizer")
	}
	grant(t, c, ns, []rbacv1.PolicyRule{
		{APIGroups: []string{"muster.dev"}, Resources: []string{"fleets"}, Verbs: []string{"get", "list", "watch", "update"}},
		{APIGroups: []string{"muster.dev"}, Resources: []string{"fleets/status"}, Verbs: []string{"patch"}},
	})
	eventually(t, "it is ready", 20*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryReady
	})
}

// grant gives the service account muster these rights and no others.
func grant(t *testing.T, c *kubetest.Cluster, ns string, rules []rbacv1.PolicyRule) {
	t.Helper()
	roles := c.Client.RbacV1().Roles(ns)
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "muster"}, Rules: rules}
	_, err := roles.Create(t.Context(), role, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Client.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "muster"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "muster"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "muster"}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}
