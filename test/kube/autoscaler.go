package kubetest

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	scanEvery = 100 * time.Millisecond
	// expendable is the priority below which pods bring no nodes and keep none:
	// Cluster Autoscaler's --expendable-pods-priority-cutoff.
	expendable = -10
	// taintLeaving is Cluster Autoscaler's taint of nodes that it removes.
	taintLeaving = "ToBeDeletedByClusterAutoscaler"
)

// autoscaler plays the cluster autoscaler for all node groups: a pod that does
// not fit is the business of the first group whose nodes it fits.
type autoscaler struct {
	cluster *Cluster
	loops   sync.WaitGroup

	mu     sync.Mutex
	groups []*NodeGroup
	stop   context.CancelFunc // nil: no group, nothing runs
	told   map[types.UID]string
}

func suffix() string { return strings.ToLower(rand.Text()[:5]) }

func (a *autoscaler) add(g *NodeGroup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = append(a.groups, g)
	if a.stop == nil {
		var ctx context.Context
		ctx, a.stop = context.WithCancel(a.cluster.kubelet.ctx)
		a.told = map[types.UID]string{}
		a.loops.Go(func() {
			for sleep(ctx, scanEvery) {
				a.scan(ctx)
			}
		})
	}
}

// remove returns once no scan knows the group.
func (a *autoscaler) remove(g *NodeGroup) {
	a.mu.Lock()
	a.groups = slices.DeleteFunc(a.groups, func(o *NodeGroup) bool { return o == g })
	last := len(a.groups) == 0
	if last {
		a.stop()
		a.stop = nil
	}
	a.mu.Unlock()
	if last {
		a.loops.Wait()
	}
}

// scan looks once at all there is, requests nodes, and removes nodes.
func (a *autoscaler) scan(ctx context.Context) {
	buffers := a.cluster.buffers(ctx) // before the lock: it asks the API server
	a.mu.Lock()
	groups := slices.Clone(a.groups)
	view := a.cluster.view()
	var made []*corev1.Node
	for _, g := range groups {
		made = append(made, g.arrived(time.Now())...)
		view.expect(g)
	}
	waiting := view.waiting()
	told := map[types.UID]string{}
	for _, p := range waiting {
		a.provide(view, groups, p, told)
	}
	for _, b := range buffers {
		b.provide(view, groups)
	}
	var leave, stay []string
	for _, g := range groups {
		l, s := g.shrink(view, time.Now())
		leave, stay = append(leave, l...), append(stay, s...)
	}
	news := a.news(waiting, told)
	a.mu.Unlock()
	for _, n := range made {
		a.cluster.persist(ctx, func() error { return a.cluster.make(ctx, n) })
	}
	if len(news) > 0 {
		a.loops.Go(func() { a.cluster.report(ctx, news) })
	}
	for _, b := range buffers {
		b.report(ctx, a.cluster)
	}
	for _, n := range leave {
		a.leave(ctx, n)
	}
	for _, n := range stay {
		a.taint(ctx, n, false)
	}
}

// arrived are the nodes whose boot is over.
func (g *NodeGroup) arrived(now time.Time) []*corev1.Node {
	var made []*corev1.Node
	kept := g.booting[:0]
	for _, b := range g.booting {
		if b.lost || now.Before(b.ready) {
			kept = append(kept, b)
			continue
		}
		n := g.node()
		g.nodes[n.Name] = &member{}
		made = append(made, n)
	}
	g.booting = kept
	return made
}

// provide finds room for a pod that waits: on a node that is there or on its
// way, else on a new one. It says in told which group was asked, or why none.
func (a *autoscaler) provide(v *view, groups []*NodeGroup, p *corev1.Pod, told map[types.UID]string) {
	if v.place(p) {
		return
	}
	told[p.UID] = "NotTriggerScaleUp"
	for _, g := range groups {
		if g.request(v, p) {
			told[p.UID] = "TriggeredScaleUp"
			return
		}
	}
}

// request asks for one more node, if the pod fits on it, and places the pod.
func (g *NodeGroup) request(v *view, p *corev1.Pod) bool {
	if len(g.nodes)+len(g.booting) >= g.o.Max {
		return false
	}
	room := g.blank()
	if !room.takes(p) {
		return false
	}
	room.add(p)
	v.rooms = append(v.rooms, room)
	g.requested++
	g.booting = append(g.booting, booting{ready: time.Now().Add(g.o.Boot), lost: g.stockout})
	return true
}

// shrink tells which nodes of the group have been empty for long enough, and
// which were about to be removed and are not empty any more.
func (g *NodeGroup) shrink(v *view, now time.Time) (leave, stay []string) {
	if g.o.ScaleDown == 0 {
		return nil, nil
	}
	left := len(g.nodes)
	for _, room := range v.rooms {
		m := g.nodes[room.name]
		if m == nil || room.name == "" {
			continue
		}
		switch {
		case !room.empty():
			m.idle = time.Time{}
			if m.leaving {
				m.leaving = false
				stay = append(stay, room.name)
			}
		case m.idle.IsZero():
			m.idle = now
		case left > g.o.Min && now.Sub(m.idle) >= g.o.ScaleDown:
			m.leaving = true
			leave = append(leave, room.name)
			left--
		}
	}
	return leave, stay
}

// leave removes an empty node: the taint first, so that no pod comes between;
// the node itself at the next scan, if it is empty still.
func (a *autoscaler) leave(ctx context.Context, node string) {
	n, err := a.cluster.watch.nodes.Get(node)
	if err != nil {
		if apierrors.IsNotFound(err) {
			a.forget(node)
		}
		return
	}
	if !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintLeaving }) {
		a.taint(ctx, node, true)
		return
	}
	if !a.cluster.upToDate(ctx, node) {
		return
	}
	err = a.cluster.Client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
	if err == nil || apierrors.IsNotFound(err) {
		a.forget(node)
	}
}

// upToDate says that no pod is on a node that the watch does not know: the
// scheduler may have bound one before it saw the taint.
func (c *Cluster) upToDate(ctx context.Context, node string) bool {
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return false
	}
	for _, p := range pods.Items {
		if known, err := c.watch.pods.Pods(p.Namespace).Get(p.Name); err != nil || known.Spec.NodeName != node {
			return false
		}
	}
	return true
}

func (a *autoscaler) forget(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		delete(g.nodes, node)
	}
}

// taint puts the taint of leaving nodes on a node, or takes it off; the next
// scan tries again what failed.
func (a *autoscaler) taint(ctx context.Context, node string, on bool) {
	n, err := a.cluster.watch.nodes.Get(node)
	if err != nil {
		return
	}
	n = n.DeepCopy()
	n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintLeaving })
	if on {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: taintLeaving, Effect: corev1.TaintEffectNoSchedule})
	}
	_, _ = a.cluster.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
}
