package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"

	kubetest "muster.dev/muster/test/kube"
)

// chartAccount is a kubeconfig of an account with the very rights that the
// chart gives the control plane by default, for the world's namespace.
func (w *world) chartAccount() string {
	w.t.Helper()
	b, err := os.ReadFile("../../deploy/manifests/muster.yaml")
	if err != nil {
		w.t.Fatal(err)
	}
	var local, global []rbacv1.PolicyRule
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096); ; {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
			Rules    []rbacv1.PolicyRule
		}
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			w.t.Fatal(err)
		}
		switch {
		case o.Kind == "Role":
			local = append(local, o.Rules...)
		case o.Kind == "ClusterRole" && o.Metadata.Name == "muster-muster":
			global = append(global, o.Rules...)
		}
	}
	if len(local) == 0 || len(global) == 0 {
		w.t.Fatalf("the manifests have %d rules of the namespace and %d of the cluster", len(local), len(global))
	}
	w.grant("muster", local, global)
	return w.kubeconfigOf("muster")
}

// Where agent-sandbox is installed, warm sandboxes are members of its pools,
// each task takes one by a claim, and nothing of it is left. Its controller is
// the real one, and the control plane has the rights of the chart alone.
func TestAgentSandbox(t *testing.T) { // not beside others: they would choose it, too
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 2, Max: 2}})
	kubetest.AgentSandbox(t, w.c)
	t.Cleanup(func() { w.c.RemoveAgentSandbox(t) })
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 3, max: 12}}"))
	p := w.plane("serve", w.chartAccount()).start()
	p.ready("agents")
	pools := schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxwarmpools"}
	claims := schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxclaims"}
	count := func(r schema.GroupVersionResource) (n int) {
		l, err := w.c.Dynamic.Resource(r).Namespace(w.ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Items)
	}
	w.until(2*time.Minute, "the pool is there", func() error {
		if n := count(pools); n != 1 {
			return fmt.Errorf("%d pools", n)
		}
		return nil
	})
	p.submit("agents", "claimed", 8, "sleep 1")
	most := 0
	w.until(2*time.Minute, "tasks have claims", func() error {
		if most = max(most, count(claims)); most < 2 {
			return fmt.Errorf("at most %d claims at once", most)
		}
		return nil
	})
	boxes := map[string]bool{}
	for _, v := range p.succeed("agents", 8, 3*time.Minute) {
		if boxes[string(v.Sandbox)] || v.Attempt != 1 {
			t.Errorf("task %s: sandbox %q, attempt %d", v.Name, v.Sandbox, v.Attempt)
		}
		boxes[string(v.Sandbox)] = true
	}
	w.remove("agents")
	w.until(time.Minute, "nothing of agent-sandbox is left", func() error {
		if a, b := count(pools), count(claims); a+b > 0 {
			return fmt.Errorf("%d pools and %d claims", a, b)
		}
		return nil
	})
	w.nothingLeft()
}

// Where the cluster serves CapacityBuffer, nodes are brought by one, and given
// back. The control plane has the rights of the chart alone.
func TestCapacityBuffer(t *testing.T) { // not beside others: they would choose it, too
	w := setUp(t, options{group: kubetest.GroupOptions{Buffers: true, Boot: 5 * time.Second, ScaleDown: 2 * time.Second}})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 0, max: 40}}"))
	p := w.plane("serve", w.chartAccount()).start()
	p.ready("agents")
	p.submit("agents", "buffered", 12, "sleep 1")
	buffers := schema.GroupVersionResource{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Resource: "capacitybuffers"}
	api := w.c.Dynamic.Resource(buffers).Namespace(w.ns)
	w.until(time.Minute, "a buffer asks for nodes", func() error {
		l, err := api.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(l.Items) == 0 {
			return fmt.Errorf("no buffer, %w", err)
		}
		if n, _, _ := unstructured.NestedInt64(l.Items[0].Object, "spec", "replicas"); n < 1 {
			return fmt.Errorf("%d replicas", n)
		}
		return nil
	})
	p.succeed("agents", 12, 3*time.Minute)
	if w.group.Requested() < 2 {
		t.Errorf("%d nodes were asked for, for 12 tasks at 8 a node", w.group.Requested())
	}
	w.remove("agents")
	w.nothingLeft()
	l, err := api.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) > 0 {
		t.Errorf("%d buffers are left, %v", len(l.Items), err)
	}
}
