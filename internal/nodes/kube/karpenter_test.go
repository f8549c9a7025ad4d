package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ktesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
)

// static is a NodePool with replicas, as its /scale shows it.
type static struct {
	c        *cluster
	replicas int64
	writes   int
}

func newStatic(c *cluster) *static {
	s := &static{c: c}
	scale := func() *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": map[string]any{"name": "agents"},
			"spec": map[string]any{"replicas": s.replicas},
		}}
	}
	c.dynamic.PrependReactor("get", "nodepools", func(a ktesting.Action) (bool, runtime.Object, error) {
		return a.GetSubresource() == "scale", scale(), nil
	})
	c.dynamic.PrependReactor("update", "nodepools", func(a ktesting.Action) (bool, runtime.Object, error) {
		u := a.(ktesting.UpdateAction).GetObject().(*unstructured.Unstructured)
		s.replicas, _, _ = unstructured.NestedInt64(u.Object, "spec", "replicas")
		s.writes++
		return true, scale(), nil
	})
	return s
}

func (s *static) claim(name, node string) {
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"nodeName": node}}}
	u.SetAPIVersion("karpenter.sh/v1")
	u.SetKind("NodeClaim")
	u.SetName(name)
	u.SetCreationTimestamp(metav1.Now())
	u.SetLabels(map[string]string{labelNodePool: "agents"})
	if node != "" {
		_ = unstructured.SetNestedField(u.Object, "machine://"+node, "status", "providerID")
	}
	if err := s.c.dynamic.Tracker().Create(nodeClaims, u, ""); err != nil {
		s.c.t.Fatal(err)
	}
}

// TestStaticNodePool: replicas follow what is asked for, given back and refused,
// and nothing else writes them.
func TestStaticNodePool(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		p := newStatic(c)
		p.replicas = 1
		c.node("machine-a")
		p.claim("agents-a", "machine-a")
		o := c.options()
		o.Headroom, o.NodePool = HeadroomKarpenter, "agents"
		n := start(t, o)
		do(t, n.Scale(t.Context(), 3))
		do(t, n.Scale(t.Context(), 3))
		if p.replicas != 3 || p.writes != 1 {
			t.Errorf("%d replicas after %d writes, want 3 after one", p.replicas, p.writes)
		}
		p.claim("agents-b", "")
		if err := n.Release(t.Context(), "machine-a"); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("release while another is launched: %v, want ErrConflict", err)
		}
		sleep(5 * time.Second)
		c.node("machine-b")
		sleep(2 * time.Second)
		if x := listed(t, n)["machine-b"]; x.State != fleet.NodeReady || x.BootID == "" || x.ReadyAt.Sub(x.RequestedAt) < 4*time.Second {
			t.Errorf("%+v", x)
		}
		_, err := c.client.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "default"}, Reason: reasonCapacity, Message: "no machine of this kind is left",
			InvolvedObject: corev1.ObjectReference{Kind: "NodeClaim", Name: "agents-c"}, LastTimestamp: metav1.Now(),
		}, metav1.CreateOptions{})
		do(t, err)
		var waiting fleet.NodeID
		for id, x := range listed(t, n) {
			if x.State == fleet.NodeBooting {
				waiting = id
			}
		}
		sleep(time.Minute)
		if p.replicas != 2 || !strings.Contains(n.BootFailure(waiting), "no machine of this kind") {
			t.Errorf("%d replicas after one was refused: %q", p.replicas, n.BootFailure(waiting))
		}
		do(t, c.dynamic.Tracker().Delete(nodeClaims, "", "agents-b"))
		do(t, n.Release(t.Context(), "machine-a"))
		do(t, n.Release(t.Context(), "machine-a"))
		u, err := c.dynamic.Resource(nodeClaims).Get(t.Context(), "agents-a", metav1.GetOptions{})
		do(t, err)
		if p.replicas != 1 || u.GetAnnotations()[annotationGoFirst] == "" {
			t.Errorf("%d replicas after a release, its claim carries %v", p.replicas, u.GetAnnotations())
		}
	})
}

// TestStaticNodePoolTakenOver: another process finds out what still boots.
func TestStaticNodePoolTakenOver(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		p := newStatic(c)
		p.replicas = 3
		c.node("machine-a")
		p.claim("agents-a", "machine-a")
		sleep(10 * time.Second)
		p.claim("agents-b", "")
		o := c.options()
		o.Headroom, o.NodePool = HeadroomKarpenter, "agents"
		n := start(t, o)
		if got := states(t, n); got[fleet.NodeReady] != 1 || got[fleet.NodeBooting] != 2 || p.writes != 0 {
			t.Errorf("%v after %d writes, want one ready and two that boot", got, p.writes)
		}
	})
}
