package kubetest

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What kwok knows its nodes by.
const (
	kwokAnnotation = "kwok.x-k8s.io/node"
	kwokFake       = "fake"
)

// LabelGroup is the label of a node that names its group.
const LabelGroup = "kubetest/node-group"

// GroupOptions describe a group of like nodes.
type GroupOptions struct {
	Name     string // unique among the groups of a test
	Labels   map[string]string
	Taints   []corev1.Taint
	MilliCPU int64 // of one node, thousandths of a processor
	Memory   int64 // of one node, bytes
	Pods     int64 // that one node takes; 0: 110
	Min, Max int   // nodes; Min are there when NodeGroup returns
	// Boot is the time from the request of a node to its being there.
	Boot time.Duration
	// ScaleDown is how long a node is empty before it is removed; 0: never.
	ScaleDown time.Duration
	// Buffers: the group obeys CapacityBuffers, whose API is served then.
	Buffers bool
}

// NodeGroup is a group of nodes that a cluster autoscaler, played by this
// package, grows for pods that do not fit and shrinks when nodes are empty.
type NodeGroup struct {
	o       GroupOptions
	cluster *Cluster

	// Held by autoscaler.mu.
	nodes     map[string]*member
	booting   []booting
	stockout  bool
	requested int
	serial    int
}

// member is a node of a group.
type member struct {
	idle    time.Time // since when it is empty; zero: it is not
	leaving bool      // tainted, to be removed
}

// booting is a node that was requested.
type booting struct {
	ready time.Time
	lost  bool // requested while there was no stock
}

// NodeGroup makes a node group; at the end of the test its nodes go.
func (c *Cluster) NodeGroup(t testing.TB, o GroupOptions) *NodeGroup {
	t.Helper()
	if o.Name == "" || o.MilliCPU <= 0 || o.Memory <= 0 || o.Max < o.Min {
		t.Fatalf("kubetest: a node group needs Name, MilliCPU, Memory, and Max of at least Min; this is %+v", o)
	}
	if o.Pods == 0 {
		o.Pods = 110
	}
	g := &NodeGroup{o: o, cluster: c, nodes: map[string]*member{}}
	if o.Buffers {
		c.serveBuffers(t)
	}
	for range o.Min {
		c.nodes.mu.Lock()
		node := g.node()
		g.nodes[node.Name] = &member{}
		c.nodes.mu.Unlock()
		if err := c.make(t.Context(), node); err != nil {
			t.Fatalf("make a node of %s: %v", o.Name, err)
		}
	}
	t.Cleanup(func() { g.close(t) })
	c.nodes.add(g)
	c.await(t, "the nodes of "+o.Name, func(context.Context) error {
		if ready := len(g.Nodes()); ready < o.Min {
			return fmt.Errorf("%d of %d nodes are ready", ready, o.Min)
		}
		return nil
	})
	return g
}

// StockOut makes requests of nodes fail from now on, or work again. A request
// made while there is no stock never yields a node.
func (g *NodeGroup) StockOut(out bool) {
	a := g.cluster.nodes
	a.mu.Lock()
	defer a.mu.Unlock()
	g.stockout = out
	if out {
		return
	}
	kept := g.booting[:0]
	for _, b := range g.booting {
		if !b.lost {
			kept = append(kept, b)
		}
	}
	g.booting = kept // what was lost is requested again while it is needed
}

// Requested is how many nodes the group was asked for so far, beyond Min.
func (g *NodeGroup) Requested() int {
	a := g.cluster.nodes
	a.mu.Lock()
	defer a.mu.Unlock()
	return g.requested
}

// Nodes are the names of the nodes that are ready and take pods, but for
// cordons.
func (g *NodeGroup) Nodes() []string {
	var names []string
	for _, n := range g.cluster.watch.allNodes() {
		if n.Labels[LabelGroup] == g.o.Name && n.DeletionTimestamp == nil && isReady(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

// isReady says that a node is ready and that the cluster has taken note.
func isReady(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Kill ends a node as a loss of power does: its processes stop without a word,
// it is found unreachable, and a second later the cloud says that it is gone.
// Its pods are removed a second after that; in a real cluster it takes about a
// minute until somebody notices, and another until the pods are gone.
func (g *NodeGroup) Kill(node string) {
	c := g.cluster
	c.kubelet.kill(node)
	c.nodes.mu.Lock()
	delete(g.nodes, node)
	c.nodes.mu.Unlock()
	c.nodes.loops.Go(func() {
		ctx := c.kubelet.ctx
		c.persist(ctx, func() error { return c.unreachable(ctx, node) })
		sleep(ctx, time.Second)
		c.persist(ctx, func() error { return c.Client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{}) })
		sleep(ctx, time.Second)
		for _, p := range c.watch.allPods() {
			if p.Spec.NodeName == node {
				c.persist(ctx, func() error { return c.collect(ctx, p) })
			}
		}
	})
}

// unreachable says of a node what the node lifecycle controller says once it
// has not been heard of for long. Without kwok's annotation nobody contradicts.
func (c *Cluster) unreachable(ctx context.Context, node string) error {
	nodes := c.Client.CoreV1().Nodes()
	bare := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, kwokAnnotation)
	if _, err := nodes.Patch(ctx, node, types.MergePatchType, bare, metav1.PatchOptions{}); err != nil {
		return err
	}
	now := metav1.Now().Format(time.RFC3339)
	status := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown",
		"message":"Kubelet stopped posting node status.","lastTransitionTime":%q}]}}`, now)
	_, err := nodes.Patch(ctx, node, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	return err
}

// collect removes a pod of a node that is no more, as the pod garbage collector
// does.
func (c *Cluster) collect(ctx context.Context, p *corev1.Pod) error {
	pods := c.Client.CoreV1().Pods(p.Namespace)
	status := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"phase":"Failed","conditions":[{"type":"DisruptionTarget","status":"True",
		"reason":"DeletionByPodGC","message":"PodGC: node no longer exists","lastTransitionTime":%q}]}}`, p.UID, metav1.Now().Format(time.RFC3339))
	if _, err := pods.Patch(ctx, p.Name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	now := int64(0)
	return pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
}

// persist does something until it works, or what it was about is gone.
func (c *Cluster) persist(ctx context.Context, do func() error) {
	for {
		err := do()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || !sleep(ctx, 200*time.Millisecond) {
			return
		}
	}
}

// node is a new node of the group; the caller holds autoscaler.mu.
func (g *NodeGroup) node() *corev1.Node {
	g.serial++
	name := fmt.Sprintf("%s-%s-%d", g.o.Name, suffix(), g.serial)
	labels := map[string]string{
		corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		corev1.LabelTopologyZone: "zone-a", corev1.LabelTopologyRegion: "region-1", corev1.LabelInstanceTypeStable: "kubetest", LabelGroup: g.o.Name,
	}
	maps.Copy(labels, g.o.Labels)
	size := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(g.o.MilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(g.o.Memory, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(g.o.Pods, resource.DecimalSI),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: map[string]string{kwokAnnotation: kwokFake}},
		Spec:       corev1.NodeSpec{Taints: g.o.Taints, ProviderID: "kubetest://" + name},
		Status:     corev1.NodeStatus{Capacity: size, Allocatable: size},
	}
}

func (c *Cluster) make(ctx context.Context, n *corev1.Node) error {
	_, err := c.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	return err
}

// close removes the group and its nodes.
func (g *NodeGroup) close(t testing.TB) {
	c := g.cluster
	c.nodes.remove(g)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := c.Client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: LabelGroup + "=" + g.o.Name})
	if err != nil {
		t.Errorf("remove the nodes of %s: %v", g.o.Name, err)
	}
}
