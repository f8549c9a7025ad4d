package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

// realBoot is the boot time of the nodes of a real API server.
const realBoot = 3 * time.Second

// real is a fleet of a real control plane.
type real struct {
	t     *testing.T
	c     *kubetest.Cluster
	group *kubetest.NodeGroup
	ns    string
	o     Options
	*Nodes
}

// newReal starts the nodes of a fleet of its own, with none there.
func newReal(t *testing.T, h Headroom, group kubetest.GroupOptions, change ...func(*Options)) *real {
	t.Helper()
	c := kubetest.Start(t)
	ns := c.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	low := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "muster-seat"}, Value: -5}
	if _, err := c.Client.SchedulingV1().PriorityClasses().Create(t.Context(), low, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	c.Kubelet(t, kubetest.KubeletOptions{Namespace: ns})
	group.Name = ns
	group.Labels = map[string]string{"muster.dev/pool": ns}
	group.Taints = []corev1.Taint{{Key: kube.TaintDedicated, Value: ns, Effect: corev1.TaintEffectNoSchedule}}
	group.MilliCPU, group.Memory = 8000, 32<<30
	if group.Boot == 0 {
		group.Boot = realBoot
	}
	r := &real{t: t, c: c, ns: ns, group: c.NodeGroup(t, group)}
	r.o = Options{
		Client: c.Client, Dynamic: c.Dynamic, Fleet: ns, Namespace: ns, Selector: group.Labels, Dedicated: true, Slots: 8,
		Slot: fleet.Resources{MilliCPU: 900, MemoryBytes: 3 << 30}, Headroom: h, Image: "wait", PriorityClass: "muster-seat",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&r.o)
	}
	r.Nodes = r.start()
	return r
}

func (r *real) start() *Nodes {
	r.t.Helper()
	n, err := New(r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
	r.until(30*time.Second, "the first reading", func() error { _, err := n.List(ctx); return err })
	return n
}

// until polls until f is nil.
func (r *real) until(d time.Duration, what string, f func() error) {
	r.t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %s for %s: %v", d, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// have waits until the nodes are these and no others.
func (r *real) have(want map[fleet.NodeState]int) map[fleet.NodeID]fleet.Node {
	r.t.Helper()
	var got map[fleet.NodeID]fleet.Node
	r.until(60*time.Second, fmt.Sprint(want), func() error {
		got = map[fleet.NodeID]fleet.Node{}
		l, err := r.List(context.Background())
		if err != nil {
			return err
		}
		n := map[fleet.NodeState]int{}
		for _, x := range l {
			n[x.State]++
			got[x.ID] = x
		}
		if fmt.Sprint(n) != fmt.Sprint(want) {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	return got
}

// fill puts a sandbox of a size on whichever node the scheduler likes.
func (r *real) fill(name string, milliCPU int64, labels map[string]string, tolerates bool) {
	r.t.Helper()
	spec := r.o.waiting(size{cpu: milliCPU, memory: 1 << 30})
	if tolerates {
		spec.Tolerations = r.o.Tolerations
		if spec.Tolerations == nil {
			spec.Tolerations = []corev1.Toleration{{Key: kube.TaintDedicated, Operator: corev1.TolerationOpExists}}
		}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.ns, Labels: labels}, Spec: spec}
	if _, err := r.c.Client.CoreV1().Pods(r.ns).Create(r.t.Context(), p, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *real) where(name string) string {
	r.t.Helper()
	var node string
	r.until(30*time.Second, name+" to be placed", func() error {
		p, err := r.c.Client.CoreV1().Pods(r.ns).Get(r.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if node = p.Spec.NodeName; node == "" {
			return errors.New("it waits")
		}
		return nil
	})
	return node
}

// TestRealComeAndGo: nodes come as they are asked for, none too many, in either
// mode; they stay while they are wanted, and go once they are given back.
func TestRealComeAndGo(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomAuto} {
		t.Run(string(h), func(t *testing.T) {
			r := newReal(t, h, kubetest.GroupOptions{Max: 20, ScaleDown: 2 * time.Second, Buffers: h == HeadroomAuto})
			if _, ok := r.source.(*buffer); ok != (h == HeadroomAuto) {
				t.Fatalf("%s became %T", h, r.source)
			}
			do(t, r.Scale(t.Context(), 6))
			r.have(map[fleet.NodeState]int{fleet.NodeBooting: 6})
			nodes := r.have(map[fleet.NodeState]int{fleet.NodeReady: 6})
			for _, x := range nodes {
				if took := x.ReadyAt.Sub(x.RequestedAt); x.BootID == "" || took < realBoot-time.Second || took > realBoot+20*time.Second {
					t.Errorf("%+v took %s to boot, want about %s", x, took, realBoot)
				}
			}
			// Full of one node's worth of sandboxes: nothing makes way, none is asked
			// for twice.
			for i := range r.o.Slots {
				r.fill(fmt.Sprintf("s%d", i), r.o.Slot.MilliCPU, map[string]string{kube.LabelOwner: kube.Owner, kube.LabelRole: kube.RoleSandbox, kube.LabelFleet: r.o.Fleet}, true)
			}
			for i := range r.o.Slots {
				r.where(fmt.Sprintf("s%d", i))
			}
			time.Sleep(3 * time.Second) // longer than an empty node that nobody holds would stay
			if got := r.group.Requested(); got != 6 || len(r.group.Nodes()) != 6 {
				t.Errorf("%d nodes were requested and %d are there, want 6 of both", got, len(r.group.Nodes()))
			}
			busy := fleet.NodeID(r.where("s0"))
			if err := r.Release(t.Context(), busy); !errors.Is(err, fleet.ErrConflict) {
				t.Errorf("release of a busy node: %v, want ErrConflict", err)
			}
			do(t, r.c.Client.CoreV1().Pods(r.ns).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{LabelSelector: kube.LabelRole + "=" + kube.RoleSandbox}))
			for id := range nodes {
				r.until(20*time.Second, "the release of "+string(id), func() error { return r.Release(t.Context(), id) })
			}
			r.have(map[fleet.NodeState]int{})
			r.until(30*time.Second, "the nodes to go", func() error {
				if n := r.group.Nodes(); len(n) > 0 {
					return fmt.Errorf("%v are there", n)
				}
				return nil
			})
			if got := r.group.Requested(); got != 6 {
				t.Errorf("%d nodes were requested for 6", got)
			}
		})
	}
}

// TestRealStockOut: what does not come is given up once and not asked for again
// by itself, so that requests stay bounded; a full group is known by the
// autoscaler's word.
func TestRealStockOut(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomBuffer} {
		t.Run(string(h), func(t *testing.T) {
			r := newReal(t, h, kubetest.GroupOptions{Max: 20, Buffers: h == HeadroomBuffer}, func(o *Options) { o.Patience = 8 * time.Second })
			r.group.StockOut(true)
			do(t, r.Scale(t.Context(), 5))
			asked := r.have(map[fleet.NodeState]int{fleet.NodeBooting: 5})
			r.have(map[fleet.NodeState]int{})
			for id := range asked {
				if why := r.BootFailure(id); !strings.Contains(why, "not ready") {
					t.Errorf("boot %s: %q", id, why)
				}
			}
			time.Sleep(2 * time.Second)
			if got := r.group.Requested(); got > 5 {
				t.Errorf("%d nodes were requested for 5", got)
			}
			l, err := r.c.Client.CoreV1().Pods(r.ns).List(t.Context(), metav1.ListOptions{})
			do(t, err)
			if len(l.Items) != 0 {
				t.Errorf("%d pods are left", len(l.Items))
			}
		})
	}
	t.Run("full group", func(t *testing.T) {
		r := newReal(t, HeadroomPlaceholder, kubetest.GroupOptions{Max: 2})
		do(t, r.Scale(t.Context(), 5))
		r.have(map[fleet.NodeState]int{fleet.NodeBooting: 5})
		r.have(map[fleet.NodeState]int{fleet.NodeReady: 2})
		r.mu.Lock()
		defer r.mu.Unlock()
		named := 0
		for _, why := range r.failures {
			if strings.Contains(why, reasonNotTriggered) {
				named++
			}
		}
		if named != 3 || r.group.Requested() != 2 {
			t.Errorf("%d boots failed by the autoscaler's word, %d nodes requested: %v", named, r.group.Requested(), r.failures)
		}
	})
}

// TestRealNodeLoss: a node that dies is not replaced unasked, also while others
// boot, and each boot ends as one node.
func TestRealNodeLoss(t *testing.T) {
	r := newReal(t, HeadroomPlaceholder, kubetest.GroupOptions{Max: 20})
	do(t, r.Scale(t.Context(), 2))
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 2})
	do(t, r.Scale(t.Context(), 4))
	r.group.Kill(r.group.Nodes()[0])
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 3})
	time.Sleep(2 * time.Second)
	if got := r.group.Requested(); got != 4 {
		t.Errorf("%d nodes were requested, want the 4 that were asked for", got)
	}
	do(t, r.Scale(t.Context(), 4)) // now the plan asks
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 4})
}

// TestRealOutage: while the API server is away there is an error and not a
// list, and afterwards everything is as it was, what boots included.
func TestRealOutage(t *testing.T) {
	r := newReal(t, HeadroomPlaceholder, kubetest.GroupOptions{Max: 5, Boot: 15 * time.Second})
	do(t, r.Scale(t.Context(), 2))
	before := r.have(map[fleet.NodeState]int{fleet.NodeBooting: 2})
	r.c.StopAPIServer()
	r.until(20*time.Second, "the outage to be noticed", func() error {
		if l, err := r.List(t.Context()); !errors.Is(err, fleet.ErrUnavailable) || len(l) != 0 {
			return fmt.Errorf("%v, %w", l, err)
		}
		return nil
	})
	if err := r.Scale(t.Context(), 4); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("scale meanwhile: %v, want ErrUnavailable", err)
	}
	r.c.StartAPIServer()
	for _, x := range r.have(map[fleet.NodeState]int{fleet.NodeReady: 2}) {
		if _, ok := before[x.BootID]; !ok {
			t.Errorf("%+v is none of those that were asked for before", x)
		}
	}
	if got := r.group.Requested(); got != 2 {
		t.Errorf("%d nodes were requested, want 2", got)
	}
}

// TestRealDedication: what does not belong is named, and a cordon by hand is
// left alone.
func TestRealDedication(t *testing.T) {
	r := newReal(t, HeadroomPlaceholder, kubetest.GroupOptions{Min: 2, Max: 3})
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 2})
	if got, err := r.Trespasses(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("with nobody else there: %v, %v", got, err)
	}
	r.fill("web", 100, nil, true)
	node := r.where("web")
	r.until(10*time.Second, "the breach", func() error {
		got, err := r.Trespasses(t.Context())
		if err != nil || len(got) != 1 || got[0].Kind != fleet.TrespassForeign || string(got[0].Node) != node || !strings.Contains(got[0].Workload, "web") {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
	do(t, r.c.Client.CoreV1().Pods(r.ns).Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	r.until(10*time.Second, "its end", func() error {
		if got, err := r.Trespasses(t.Context()); err != nil || len(got) != 0 {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	_, err := r.c.Client.CoreV1().Nodes().Patch(t.Context(), node, "application/merge-patch+json", cordon, metav1.PatchOptions{})
	do(t, err)
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 1, fleet.NodeDraining: 1})
	if err := r.Uncordon(t.Context(), fleet.NodeID(node)); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("uncordon of what was cordoned by hand: %v", err)
	}
	for id, x := range listed(t, r.Nodes) {
		if x.State == fleet.NodeReady {
			do(t, r.Cordon(t.Context(), id))
			r.have(map[fleet.NodeState]int{fleet.NodeCordoned: 1, fleet.NodeDraining: 1})
			do(t, r.Uncordon(t.Context(), id))
		}
	}
	r.have(map[fleet.NodeState]int{fleet.NodeReady: 1, fleet.NodeDraining: 1})
}

// TestRealLeastPrivilege: the permissions that the chart grants are enough, and
// one that is missing is named.
func TestRealLeastPrivilege(t *testing.T) {
	r := newReal(t, HeadroomPlaceholder, kubetest.GroupOptions{Min: 1, Max: 3})
	grant := func(rules ...rbacv1.PolicyRule) {
		cr := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: r.ns}, Rules: rules}
		roles := r.c.Client.RbacV1().ClusterRoles()
		if _, err := roles.Create(t.Context(), cr, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			_, err = roles.Update(t.Context(), cr, metav1.UpdateOptions{})
			do(t, err)
		}
	}
	t.Cleanup(func() {
		_ = r.c.Client.RbacV1().ClusterRoles().Delete(context.Background(), r.ns, metav1.DeleteOptions{})
		_ = r.c.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), r.ns, metav1.DeleteOptions{})
	})
	read := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes", "pods"}, Verbs: []string{"list", "watch"}}
	grant(read)
	_, err := r.c.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: r.ns}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: r.ns},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.ns, Name: "control"}},
	}, metav1.CreateOptions{})
	do(t, err)
	as := r.c.ServiceAccountConfig(t, r.ns, "control")
	r.o.Client, err = kubernetes.NewForConfig(as)
	do(t, err)
	r.o.Dynamic, err = dynamic.NewForConfig(as)
	do(t, err)
	n := r.start()
	err = n.Scale(t.Context(), 2)
	if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "create pods") {
		t.Fatalf("without the permission: %v, want ErrDenied that names it", err)
	}
	grant(read, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "delete"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"patch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list"}})
	r.until(10*time.Second, "the permission", func() error { return n.Scale(t.Context(), 2) })
	r.Nodes = n
	nodes := r.have(map[fleet.NodeState]int{fleet.NodeReady: 2})
	for id := range nodes {
		do(t, n.Cordon(t.Context(), id))
		do(t, n.Release(t.Context(), id))
	}
}
