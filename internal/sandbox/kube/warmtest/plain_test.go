package warmtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

func TestPlainConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Harness { return harness(t, false) })
}

// TestPlainPodsAreAdmittedAsRestricted has the API server itself check the
// pods against the strictest of its levels.
func TestPlainPodsAreAdmittedAsRestricted(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	ns, err := s.cluster.Client.CoreV1().Namespaces().Get(t.Context(), s.namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if _, err := s.cluster.Client.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := s.opened(t, "coders", false)
	spec := specOf()
	iso, err := a.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", iso)
	if pod := s.pod(t, spec.ID); iso.Node == "" || string(iso.Node) != pod.Spec.NodeName {
		t.Errorf("node %q, the pod is on %q", iso.Node, pod.Spec.NodeName)
	}
	if err := a.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
}

func TestPlainImageThatCannotBePulled(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", false)
	spec := specOf()
	spec.Image, spec.Startup = "registry.example/no-such-image:1", time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := a.Create(ctx, spec)
	var r *fleet.ReasonError
	if !errors.As(err, &r) || r.Reason != fleet.ReasonImage {
		t.Errorf("create: %v", err)
	}
	t.Log(err)
	if n := len(s.pods(t, "coders")); n != 0 {
		t.Errorf("%d pods are left", n)
	}
}

func TestPlainWithoutRoom(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", false)
	spec := specOf()
	spec.Resources.MilliCPU, spec.Startup = 1_000_000, 3*time.Second
	_, err := a.Create(t.Context(), spec)
	var r *fleet.ReasonError
	if !errors.As(err, &r) || r.Reason != fleet.ReasonTimeoutStartup || !strings.Contains(err.Error(), "nodes are available") {
		t.Errorf("create: %v", err)
	}
	t.Log(err)
}

// TestPlainWhileTheAPIServerIsAway stops the real one under a running task.
func TestPlainWhileTheAPIServerIsAway(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", false)
	spec := specOf()
	if _, err := a.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.cluster.StopAPIServer()
	back := false
	defer func() {
		if !back {
			s.cluster.StartAPIServer()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if ids, err := a.List(ctx); err == nil {
		t.Errorf("list: %v", ids)
	}
	r := sandboxtest.NewRecorder()
	task := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", "echo hello"}, LogBytes: 1 << 20}
	if err := a.Claim(t.Context(), spec.ID, task, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Report(t); p.ExitCode != 0 {
		t.Errorf("report %+v", p)
	}
	s.cluster.StartAPIServer()
	back = true
	eventually(t, "the pod is listed again", func() bool {
		ids, err := a.List(t.Context())
		return err == nil && slices.Equal(ids, []fleet.SandboxID{spec.ID})
	})
	if err := a.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	other := specOf()
	if _, err := a.Create(t.Context(), other); err != nil { // the watch sees again
		t.Fatal(err)
	}
	if err := a.Destroy(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
}

// rights are all that the adapter needs.
var rights = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "get", "list", "watch", "patch", "delete"}},
	{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: []string{"create", "patch"}},
	{APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"pods"}, Verbs: []string{"list"}},
}

// TestPlainNeedsTheseRights runs the adapter with exactly its rights, and
// without one of them.
func TestPlainNeedsTheseRights(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	open := func(name string, rules []rbacv1.PolicyRule) *kube.Sandboxes {
		t.Helper()
		return openedWith(t, s.as(t, name, rules, false))
	}
	a := open("enough", rights)
	spec := specOf()
	if _, err := a.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := a.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"create", "watch"} {
		less := slices.Clone(rights)
		less[0].Verbs = slices.DeleteFunc(slices.Clone(less[0].Verbs), func(v string) bool { return v == verb })
		began := time.Now()
		_, err := open("no-"+verb, less).Create(t.Context(), specOf())
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), verb) || time.Since(began) > 20*time.Second {
			t.Errorf("without %s, after %v: %v", verb, time.Since(began), err)
		}
		t.Log(err)
	}
}
