package kube

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

const (
	ns       = "agents"
	bootTime = 45 * time.Second
	// served is by when a node that was asked for is in service: the boot, a
	// round of the autoscaler before and a pass of ours after it.
	served = bootTime + 3*time.Second
)

var selector = map[string]string{"muster.dev/pool": "coding"}

// versioned is a tracker that gives objects what an API server gives them: a
// version, a uid, a time.
type versioned struct {
	ktesting.ObjectTracker
	mu  sync.Mutex
	seq int
}

func (v *versioned) stamp(o runtime.Object, fresh bool) {
	a, err := apimeta.Accessor(o)
	if err != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seq++
	a.SetResourceVersion(strconv.Itoa(v.seq))
	if fresh {
		a.SetUID(types.UID(fmt.Sprintf("uid-%d", v.seq)))
		a.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	}
}

func (v *versioned) Create(gvr schema.GroupVersionResource, o runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	v.stamp(o, true)
	return v.ObjectTracker.Create(gvr, o, ns, opts...)
}

func (v *versioned) Update(gvr schema.GroupVersionResource, o runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	v.stamp(o, false)
	return v.ObjectTracker.Update(gvr, o, ns, opts...)
}

func (v *versioned) Patch(gvr schema.GroupVersionResource, o runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	v.stamp(o, false)
	return v.ObjectTracker.Patch(gvr, o, ns, opts...)
}

// cluster is an API server in memory and a node autoscaler that obeys pods that
// find no room, and CapacityBuffers.
type cluster struct {
	t       *testing.T
	client  *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient

	mu      sync.Mutex
	stock   int // most nodes it brings; negative: any number
	brought int // ever
	coming  map[string]bool
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, client: fake.NewClientset(), stock: -1, coming: map[string]bool{}}
	c.client.PrependReactor("*", "*", ktesting.ObjectReaction(&versioned{ObjectTracker: c.client.Tracker()}))
	c.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		buffers: "CapacityBufferList", nodePools: "NodePoolList", nodeClaims: "NodeClaimList",
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.round(ctx, &wg)
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// round is one round of the autoscaler: a node for each pod that waits and has
// none coming.
func (c *cluster) round(ctx context.Context, wg *sync.WaitGroup) {
	pods, err := c.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Spec.NodeName != "" || c.coming[p.Name] {
			continue
		}
		if c.stock >= 0 && c.brought >= c.stock {
			c.say("Pod", p.Name, "NotTriggerScaleUp", "1 max node group size reached")
			continue
		}
		c.coming[p.Name] = true
		c.bring(ctx, wg, p.Name)
	}
	b, err := c.dynamic.Resource(buffers).Namespace(ns).List(ctx, metav1.ListOptions{})
	if err != nil || len(b.Items) == 0 {
		return
	}
	n, _, _ := unstructured.NestedInt64(b.Items[0].Object, "spec", "replicas")
	for len(c.coming) < int(n) {
		if c.stock >= 0 && c.brought >= c.stock {
			c.say("CapacityBuffer", b.Items[0].GetName(), "NotTriggerScaleUp", "1 max node group size reached")
			return
		}
		name := fmt.Sprintf("replica-%d", c.brought)
		c.coming[name] = true
		c.bring(ctx, wg, name)
	}
}

// bring boots a node for a pod; the lock must be held.
func (c *cluster) bring(ctx context.Context, wg *sync.WaitGroup, name string) {
	c.brought++
	node := fmt.Sprintf("machine-%03d", c.brought)
	wg.Go(func() {
		if !rest(ctx, bootTime-10*time.Second, nil) {
			return
		}
		c.node(node, func(n *corev1.Node) { setReady(n, false) })
		if !rest(ctx, 10*time.Second, nil) {
			return
		}
		c.change(node, func(n *corev1.Node) { setReady(n, true) })
		if p, err := c.client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{}); err == nil {
			p.Spec.NodeName = node
			_, _ = c.client.CoreV1().Pods(ns).Update(ctx, p, metav1.UpdateOptions{}) // or it has been deleted
		}
		// Until it is held, the node is room that a replica asks for.
		for buffered := strings.HasPrefix(name, "replica-"); buffered && !c.held(ctx, node); {
			if !rest(ctx, 200*time.Millisecond, nil) {
				return
			}
		}
		c.mu.Lock()
		delete(c.coming, name)
		c.mu.Unlock()
	})
}

// held tells whether a node has a hold, or has gone again.
func (c *cluster) held(ctx context.Context, node string) bool {
	if _, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{}); err != nil {
		return true
	}
	l, err := c.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	return err == nil && slices.ContainsFunc(l.Items, func(p corev1.Pod) bool {
		return p.Spec.NodeName == node && podOf(&p).hold != nil
	})
}

func (c *cluster) say(kind, name, reason, text string) {
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name + "." + reason, Namespace: ns},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: ns, Name: name},
		Reason:         reason, Message: text, LastTimestamp: metav1.Now(),
	}
	_, _ = c.client.CoreV1().Events(ns).Create(context.Background(), e, metav1.CreateOptions{}) // or it is there
}

func setReady(n *corev1.Node, ready bool) {
	s := corev1.ConditionFalse
	if ready {
		s = corev1.ConditionTrue
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: s, Reason: "KubeletNotReady", Message: "not yet"}}
}

// node makes a node of the fleet, ready.
func (c *cluster) node(name string, change ...func(*corev1.Node)) {
	c.t.Helper()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"muster.dev/pool": "coding"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: kube.TaintDedicated, Value: "agents", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"),
			corev1.ResourceEphemeralStorage: resource.MustParse("200Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	}
	setReady(n, true)
	for _, f := range change {
		f(n)
	}
	if _, err := c.client.CoreV1().Nodes().Create(context.Background(), n, metav1.CreateOptions{}); err != nil {
		c.t.Errorf("make node %s: %v", name, err)
	}
}

func (c *cluster) change(name string, f func(*corev1.Node)) {
	n, err := c.client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Errorf("node %s: %v", name, err)
		return
	}
	f(n)
	if _, err := c.client.CoreV1().Nodes().Update(context.Background(), n, metav1.UpdateOptions{}); err != nil {
		c.t.Errorf("change node %s: %v", name, err)
	}
}

// pod puts a pod on a node.
func (c *cluster) pod(name, node string, change ...func(*corev1.Pod)) {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("1Gi")},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, f := range change {
		f(p)
	}
	if _, err := c.client.CoreV1().Pods(p.Namespace).Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func sandboxOf(fleetName string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Labels = map[string]string{kube.LabelOwner: kube.Owner, kube.LabelRole: kube.RoleSandbox, kube.LabelFleet: fleetName, kube.LabelSandbox: p.Name}
	}
}

func inNamespace(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Namespace = name }
}

func ownedBy(kind string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "x", Controller: &yes}}
	}
}

func (c *cluster) options() Options {
	return Options{
		Client: c.client, Dynamic: c.dynamic, Fleet: "coding", Namespace: ns, Selector: selector, Dedicated: true,
		Slot: fleet.Resources{MilliCPU: 900, MemoryBytes: 3 << 30}, Max: 50, Headroom: HeadroomPlaceholder, Image: "wait",
	}
}

// start runs nodes until the test ends, and waits until they have been read.
func start(t *testing.T, o Options) *Nodes {
	t.Helper()
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	sleep(2 * time.Second)
	return n
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
