package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

// everywhere are the rights that the chart gives with fleets.allNamespaces: a
// ClusterRole with what is otherwise the Role of one namespace.
func everywhere() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule("muster.dev", "fleets", "get", "list", "watch", "update"), rule("muster.dev", "fleets/status", "patch"),
		rule("", "pods", "get", "list", "watch", "create", "patch", "delete"),
		rule("networking.k8s.io", "networkpolicies", "list", "create", "patch", "delete"),
		rule("", "events", "list", "create", "patch"), rule("", "secrets", "get"),
		rule("autoscaling.x-k8s.io", "capacitybuffers", "get", "list", "create", "patch", "delete"),
		rule("", "podtemplates", "get", "list", "create", "update", "delete"),
		rule("authentication.k8s.io", "tokenreviews", "create"), rule("node.k8s.io", "runtimeclasses", "list"),
		rule("", "nodes", "list", "watch", "patch"),
	}
}

// One control plane runs the fleets of all namespaces: two of one name, each with
// tasks, pods, nodes, metrics and an end of its own. It is not parallel: the fleets
// of other scenarios would be its, too.
func TestAllNamespaces(t *testing.T) {
	a := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	b := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	a.grant("muster", []rbacv1.PolicyRule{rule("coordination.k8s.io", "leases", "get", "create", "update")}, everywhere())
	for _, w := range []*world{a, b} {
		w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 1, max: 4}}"))
	}
	p := a.plane("serve", a.kubeconfigOf("muster"), "--namespace", "all").start()
	q := p.in(b)
	p.ready("agents")
	q.ready("agents")
	p.submit("agents", "one", 3, "sleep 1")
	q.submit("agents", "two", 2, "sleep 1")
	for _, v := range p.succeed("agents", 3, 3*time.Minute) {
		if !strings.HasPrefix(v.Name, "one-") {
			t.Errorf("task %s is the other fleet's", v.Name)
		}
	}
	for _, v := range q.succeed("agents", 2, 3*time.Minute) {
		if !strings.HasPrefix(v.Name, "two-") {
			t.Errorf("task %s is the other fleet's", v.Name)
		}
	}
	// Neither takes the other's sandboxes for its own that run in the wrong place.
	for _, one := range []*plane{p, q} {
		if told := one.events("agents", "dedication_breach"); len(told) > 0 {
			t.Errorf("in %s: %v", one.w.ns, told)
		}
		if status, reason, message := one.w.condition("agents", "Degraded"); status == "True" {
			t.Errorf("in %s: %s: %s", one.w.ns, reason, message)
		}
	}
	metrics := p.root(t, "/metrics", http.StatusOK)
	all := p.root(t, "/fleets", http.StatusOK)
	for _, w := range []*world{a, b} {
		if !strings.Contains(metrics, fmt.Sprintf(`fleet="agents",namespace=%q`, w.ns)) {
			t.Errorf("no metrics of namespace %s", w.ns)
		}
		if !strings.Contains(all, w.ns) {
			t.Errorf("the list of fleets lacks namespace %s: %s", w.ns, all)
		}
	}
	if said := p.root(t, "/v1/fleet", http.StatusNotFound); !strings.Contains(said, "/fleets/") {
		t.Errorf("the root says nothing of where the fleets are: %s", said)
	}
	// One is deleted: nothing of it is left, and the other does not notice.
	before := b.sandboxes()
	if len(before) == 0 {
		t.Error("the fleet that stays has no sandboxes")
	}
	a.remove("agents")
	a.nothingLeft()
	if now := b.sandboxes(); !slices.ContainsFunc(before, func(name string) bool { return slices.Contains(now, name) }) {
		t.Errorf("the sandboxes of the other fleet have gone, too: %v, now %v", before, now)
	}
	q.submit("agents", "late", 1, "true")
	q.succeed("agents", 3, time.Minute)
	b.remove("agents")
	b.nothingLeft()
}

// in is the same process, asked for the fleets of another namespace.
func (p *plane) in(w *world) *plane {
	return &plane{w: w, name: p.name, base: p.base, token: p.token, log: p.log}
}

// root reads a path that belongs to no fleet.
func (p *plane) root(t *testing.T, path string, want int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != want {
		t.Errorf("GET %s: %d %s %v, want %d", path, r.StatusCode, body, err, want)
	}
	return string(body)
}

// sandboxes are the names of the pods of sandboxes in the namespace.
func (w *world) sandboxes() (names []string) {
	w.t.Helper()
	list, err := w.c.Client.CoreV1().Pods(w.ns).List(w.t.Context(), metav1.ListOptions{LabelSelector: kube.LabelRole + "=" + kube.RoleSandbox})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names
}
