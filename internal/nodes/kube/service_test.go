package kube

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ktesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
)

// TestCordonByHand: it stays as it is, whatever the plan does, and the node is
// nobody's to give back.
func TestCordonByHand(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		n := start(t, c.options())
		c.change("a", func(n *corev1.Node) { n.Spec.Unschedulable = true })
		sleep(time.Second)
		if x := listed(t, n)["a"]; x.State != fleet.NodeDraining || x.Message != "cordoned by hand" {
			t.Errorf("%+v", x)
		}
		do(t, n.Cordon(t.Context(), "a"))
		if err := n.Uncordon(t.Context(), "a"); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("uncordon: %v, want ErrConflict", err)
		}
		if err := n.Release(t.Context(), "a"); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("release: %v, want ErrConflict", err)
		}
		x, err := c.client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		do(t, err)
		if _, marked := x.Annotations[annotationCordon]; marked || !x.Spec.Unschedulable {
			t.Errorf("the node was written: %+v, %v", x.Spec, x.Annotations)
		}
		c.change("a", func(n *corev1.Node) { n.Spec.Unschedulable = false })
		sleep(time.Second)
		if x := listed(t, n)["a"]; x.State != fleet.NodeReady {
			t.Errorf("opened by hand: %+v", x)
		}
	})
}

// TestCapacity: what belongs to the node and what others run there is not for
// sandboxes; the fleet's own sandboxes are counted by others.
func TestCapacity(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		c.node("other", func(n *corev1.Node) { n.Labels = nil })
		c.pod("daemon", "a", ownedBy("DaemonSet"))
		c.pod("foreign", "a")
		c.pod("mine", "a", sandboxOf("coding"))
		c.pod("theirs", "a", sandboxOf("another"))
		c.pod("over", "a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		n := start(t, c.options())
		all := listed(t, n)
		x := all["a"]
		if want := int64(8000 - 3*500 - holdSize.cpu); x.MilliCPU != want || len(all) != 1 {
			t.Errorf("%d thousandths of a core, want %d; %d nodes", x.MilliCPU, want, len(all))
		}
		if want := int64(32<<30 - 3<<30 - holdSize.memory); x.MemoryBytes != want || x.Slots != 8 {
			t.Errorf("%d bytes and %d slots, want %d and 8", x.MemoryBytes, x.Slots, want)
		}
	})
}

// TestSameNameElsewhere: a fleet of the same name in another namespace is another
// one, on shared nodes and on nodes of its own.
func TestSameNameElsewhere(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		c.node("theirs", func(n *corev1.Node) { n.Labels = nil })
		c.pod("mine", "a", sandboxOf("coding"))
		c.pod("s1", "a", sandboxOf("coding"), inNamespace("team-b"))
		c.pod("s2", "theirs", sandboxOf("coding"), inNamespace("team-b"))
		n := start(t, c.options())
		if x, want := listed(t, n)["a"], int64(8000-500-holdSize.cpu); x.MilliCPU != want {
			t.Errorf("%d thousandths of a core, want %d: the other fleet's sandbox takes its part", x.MilliCPU, want)
		}
		if got, err := n.Trespasses(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("the other fleet's sandboxes are its own: %+v, %v", got, err)
		}
		o := c.options()
		o.Namespace = "team-b"
		theirs := start(t, o)
		if x, want := listed(t, theirs)["a"], int64(8000-500-2*holdSize.cpu); x.MilliCPU > 8000-500 || x.MilliCPU < want {
			t.Errorf("theirs: %d thousandths of a core, want about %d", x.MilliCPU, want)
		}
		if got, err := theirs.Trespasses(t.Context()); err != nil || len(got) != 1 || got[0].Kind != fleet.TrespassOutside || got[0].Workload != "sandbox s2" {
			t.Errorf("theirs, on a node that is not of its selector: %+v, %v", got, err)
		}
	})
}

// TestReleaseOfABusyNode: it is refused by what the API server says, and the
// node stays in service.
func TestReleaseOfABusyNode(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		n := start(t, c.options())
		c.pod("s1", "a", sandboxOf("another")) // of any fleet
		if err := n.Release(t.Context(), "a"); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "s1") {
			t.Errorf("%v, want ErrConflict naming the sandbox", err)
		}
		sleep(time.Second)
		if x := listed(t, n)["a"]; x.State != fleet.NodeReady {
			t.Errorf("%+v", x)
		}
		do(t, c.client.CoreV1().Pods(ns).Delete(t.Context(), "s1", metav1.DeleteOptions{}))
		do(t, n.Release(t.Context(), "a"))
		if _, holding := c.seats(); holding != 0 {
			t.Errorf("%d holds after the release", holding)
		}
	})
}

// TestTakenBack: a node that was given back and is still there comes before a
// new one.
func TestTakenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		c.node("b")
		n := start(t, c.options())
		do(t, n.Release(t.Context(), "a"))
		do(t, n.Scale(t.Context(), 3))
		if got := states(t, n); got[fleet.NodeReady] != 2 || got[fleet.NodeBooting] != 1 {
			t.Errorf("%v, want a taken back and one more asked for", got)
		}
		sleep(served)
		if got := states(t, n); got[fleet.NodeReady] != 3 || c.brought != 1 {
			t.Errorf("%v, %d brought", got, c.brought)
		}
	})
}

// TestNothingIsReadAsNothing: before the first reading, and while the API server
// is away or refuses us, there is an error and never an empty list.
func TestNothingIsReadAsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		n, err := New(c.options())
		do(t, err)
		if l, err := n.List(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("before anything was read: %v, %v", l, err)
		}
		refused := apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no"))
		c.client.PrependReactor("list", "pods", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, refused })
		n = start(t, c.options())
		l, err := n.List(t.Context())
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(fmt.Sprint(err), "list pods") {
			t.Errorf("without the permission: %v, %v", l, err)
		}
		if _, err := n.Trespasses(t.Context()); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("trespasses without the permission: %v", err)
		}
		if err := n.Scale(t.Context(), 5); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("scale without the permission: %v", err)
		}
	})
}

// TestQuota: a quota of the namespace is a bound and not a fault of ours, and
// what could be made is kept.
func TestQuota(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := start(t, c.options())
		left := 2
		c.client.PrependReactor("create", "pods", func(ktesting.Action) (bool, runtime.Object, error) {
			if left--; left >= 0 {
				return false, nil, nil
			}
			return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "x", errors.New("exceeded quota: pods"))
		})
		if err := n.Scale(t.Context(), 5); !errors.Is(err, fleet.ErrFull) {
			t.Errorf("%v, want ErrFull", err)
		}
		if got := states(t, n); got[fleet.NodeBooting] != 2 {
			t.Errorf("%v, want the two that could be made", got)
		}
	})
}

// TestTrespasses: what is neither ours nor the node's is named, and so is a
// sandbox elsewhere and a node that is open to all.
func TestTrespasses(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		c.node("b", func(n *corev1.Node) { n.Spec.Taints = nil })
		c.node("elsewhere", func(n *corev1.Node) { n.Labels = nil })
		c.pod("daemon", "a", ownedBy("DaemonSet"))
		c.pod("static", "a", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
		c.pod("s1", "a", sandboxOf("coding"))
		c.pod("web", "a", ownedBy("ReplicaSet"))
		c.pod("s2", "elsewhere", sandboxOf("coding"))
		c.pod("s3", "gone", sandboxOf("coding")) // its node was removed, and it will be
		n := start(t, c.options())
		got, err := n.Trespasses(t.Context())
		do(t, err)
		want := []fleet.Trespass{
			{Kind: fleet.TrespassForeign, Node: "a", Workload: "pod agents/web of ReplicaSet x"},
			{Kind: fleet.TrespassOpen, Node: "b", Workload: "it lacks the taint muster.dev/dedicated"},
			{Kind: fleet.TrespassOutside, Node: "elsewhere", Workload: "sandbox s2"},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// TestChanged: whoever listens is woken when a node becomes ready, and not by
// sandboxes.
func TestChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.node("a")
		n := start(t, c.options())
		<-n.Changed()
		c.pod("s1", "a", sandboxOf("coding"))
		sleep(time.Minute)
		select {
		case <-n.Changed():
			t.Error("woken by a sandbox")
		default:
		}
		do(t, n.Scale(t.Context(), 2))
		sleep(served)
		select {
		case <-n.Changed():
		default:
			t.Error("not woken by a node")
		}
	})
}
