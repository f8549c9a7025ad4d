package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ktesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

func inBubble(t *testing.T, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) { f(t, newCluster(t)) })
}

func listed(t *testing.T, n *Nodes) map[fleet.NodeID]fleet.Node {
	t.Helper()
	l, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[fleet.NodeID]fleet.Node{}
	for _, x := range l {
		out[x.ID] = x
	}
	return out
}

func states(t *testing.T, n *Nodes) map[fleet.NodeState]int {
	t.Helper()
	out := map[fleet.NodeState]int{}
	for _, x := range listed(t, n) {
		out[x.State]++
	}
	return out
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seats are the pods of ours that only ask for a node, and those that hold one.
func (c *cluster) seats() (asking, holding int) {
	l, err := c.client.CoreV1().Pods(ns).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range l.Items {
		if p := podOf(&l.Items[i]); p.role == kube.RoleSeat && p.hold != nil {
			holding++
		} else if p.role == kube.RoleSeat {
			asking++
		}
	}
	return asking, holding
}

// TestBootIsMeasured: a node is listed under its own name once it is in service,
// and remembers when it was asked for, also for whoever leads next.
func TestBootIsMeasured(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomBuffer} {
		t.Run(string(h), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				o := c.options()
				o.Headroom = h
				n := start(t, o)
				do(t, n.Scale(t.Context(), 2))
				booting := listed(t, n)
				sleep(bootTime / 2)
				if got := listed(t, n); len(got) != 2 {
					t.Errorf("%d nodes are listed while two boot and have registered: %+v", len(got), got)
				}
				sleep(bootTime)
				next := start(t, o)
				for _, who := range []*Nodes{n, next} {
					for _, x := range listed(t, who) {
						was, ok := booting[x.BootID]
						took := x.ReadyAt.Sub(x.RequestedAt)
						if !ok || x.State != fleet.NodeReady || took < bootTime || took > served || x.RequestedAt.Sub(was.RequestedAt).Abs() > time.Second {
							t.Errorf("%+v, want one of %v, ready %s after it was asked for", x, booting, bootTime)
						}
					}
				}
				if c.brought != 2 {
					t.Errorf("%d nodes were brought, want 2", c.brought)
				}
				if asking, holding := c.seats(); asking != 0 || holding != 2 {
					t.Errorf("%d pods ask for nodes and %d hold one", asking, holding)
				}
			})
		})
	}
}

// TestWhatBootsOutlivesUs: another process takes over what was asked for and
// asks for nothing again.
func TestWhatBootsOutlivesUs(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomBuffer} {
		t.Run(string(h), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				o := c.options()
				o.Headroom = h
				first, err := New(o)
				do(t, err)
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); first.Run(ctx) }()
				sleep(time.Second)
				do(t, first.Scale(t.Context(), 3))
				before := listed(t, first)
				stop()
				<-done
				sleep(10 * time.Second)
				n := start(t, o)
				for id := range before {
					if x, ok := listed(t, n)[id]; !ok || x.State != fleet.NodeBooting {
						t.Errorf("boot %s is %+v for the next process", id, x)
					}
				}
				do(t, n.Scale(t.Context(), 3))
				sleep(served)
				if got := states(t, n); got[fleet.NodeReady] != 3 || len(got) != 1 || c.brought != 3 {
					t.Errorf("%v, %d brought, want 3 ready and brought", got, c.brought)
				}
			})
		})
	}
}

// TestStockOut: what cannot be had is given up with the autoscaler's word, and
// nothing is asked for again by itself.
func TestStockOut(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomBuffer} {
		t.Run(string(h), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.stock = 0
				o := c.options()
				o.Headroom = h
				n := start(t, o)
				do(t, n.Scale(t.Context(), 4))
				asked := listed(t, n)
				sleep(time.Minute)
				if got := listed(t, n); len(got) != 0 {
					t.Errorf("a minute into a stock-out these are still listed: %+v", got)
				}
				for id := range asked {
					if why := n.BootFailure(id); !strings.Contains(why, "max node group size reached") {
						t.Errorf("boot %s failed because of %q", id, why)
					}
				}
				if asking, _ := c.seats(); asking != 0 || replicas(t, c) != 0 {
					t.Errorf("%d pods and %d replicas still ask", asking, replicas(t, c))
				}
				c.mu.Lock()
				c.stock = -1
				c.mu.Unlock()
				do(t, n.Scale(t.Context(), 1))
				sleep(served)
				if got := states(t, n); got[fleet.NodeReady] != 1 {
					t.Errorf("once there is stock: %v", got)
				}
			})
		})
	}
}

func replicas(t *testing.T, c *cluster) int64 {
	t.Helper()
	l, err := c.dynamic.Resource(buffers).Namespace(ns).List(t.Context(), metav1.ListOptions{})
	do(t, err)
	if len(l.Items) == 0 {
		return 0
	}
	return l.Items[0].Object["spec"].(map[string]any)["replicas"].(int64)
}

// TestPatience: a boot that takes too long without a word is a failure, too.
func TestPatience(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		o := c.options()
		o.Patience = 30 * time.Second
		n := start(t, o)
		do(t, n.Scale(t.Context(), 1))
		var id fleet.NodeID
		for id = range listed(t, n) {
		}
		sleep(40 * time.Second)
		if got := listed(t, n)[id]; got.ID != "" {
			t.Errorf("still listed: %+v", got)
		}
		if why := n.BootFailure(id); !strings.Contains(why, "30s") && !strings.Contains(why, "3") || !strings.Contains(why, "not ready") {
			t.Errorf("the failure says %q", why)
		}
	})
}

// TestGivenUpIsNoFailure: what the plan takes back, and what a node came for,
// did not fail.
func TestGivenUpIsNoFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := start(t, c.options())
		do(t, n.Scale(t.Context(), 2))
		ids := listed(t, n)
		do(t, n.Scale(t.Context(), 1))
		sleep(2 * bootTime)
		for id := range ids {
			if why := n.BootFailure(id); why != "" {
				t.Errorf("boot %s: %s", id, why)
			}
		}
		if got := states(t, n); got[fleet.NodeReady]+got[fleet.NodeBooting] < 1 {
			t.Errorf("%v", got)
		}
	})
}

// TestSeatRemovedByAnother: it counts as failed and is not made again unasked.
func TestSeatRemovedByAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.stock = 0
		n := start(t, c.options())
		do(t, n.Scale(t.Context(), 1))
		for id := range listed(t, n) {
			do(t, c.client.CoreV1().Pods(ns).Delete(t.Context(), string(id), metav1.DeleteOptions{}))
			sleep(time.Minute)
			if why := n.BootFailure(id); !strings.Contains(why, "removed by somebody else") {
				t.Errorf("%q", why)
			}
		}
		if asking, _ := c.seats(); asking != 0 || len(listed(t, n)) != 0 {
			t.Errorf("%d pods ask for nodes again", asking)
		}
	})
}

// TestNodeLost: a node that goes away is not asked for again by itself, and its
// hold goes with it.
func TestNodeLost(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := start(t, c.options())
		do(t, n.Scale(t.Context(), 2))
		sleep(served)
		c.change("machine-001", func(n *corev1.Node) {
			setReady(n, false)
			n.Status.Conditions[0].Reason = "NodeStatusUnknown"
		})
		sleep(time.Second)
		if x := listed(t, n)["machine-001"]; x.State != fleet.NodeDraining || !strings.Contains(x.Message, "NodeStatusUnknown") {
			t.Errorf("not ready any more: %+v", x)
		}
		do(t, c.client.CoreV1().Nodes().Delete(t.Context(), "machine-001", metav1.DeleteOptions{}))
		sleep(time.Minute)
		if got := states(t, n); got[fleet.NodeReady] != 1 || len(got) != 1 || c.brought != 2 {
			t.Errorf("%v, %d brought", got, c.brought)
		}
		if asking, holding := c.seats(); asking != 0 || holding != 1 {
			t.Errorf("%d pods ask for nodes and %d hold one", asking, holding)
		}
	})
}

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

func TestOptionsAreChecked(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		for field, change := range map[string]func(*Options){
			"nodes.selector": func(o *Options) { o.Selector = nil },
			"nodes.image":    func(o *Options) { o.Image = "" },
			"nodes.slot":     func(o *Options) { o.Slot = fleet.Resources{} },
			"nodes.patience": func(o *Options) { o.Patience = 24 * time.Hour },
			"nodes.nodePool": func(o *Options) { o.Headroom = HeadroomKarpenter },
			"nodes.headroom": func(o *Options) { o.Headroom = "magic" },
		} {
			o := c.options()
			change(&o)
			_, err := New(o)
			var fe *fleet.FieldError
			if !errors.As(err, &fe) || fe.Field != field || fe.Right == "" {
				t.Errorf("%s: %v", field, err)
			}
		}
	})
}
