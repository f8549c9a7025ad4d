package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
		if why := n.BootFailure(id); !strings.Contains(why, "not ready") {
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
