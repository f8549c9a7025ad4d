package kubetest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	kubetest "muster.dev/muster/test/kube"
)

// until polls, a minute at the most.
func until(t *testing.T, what string, holds func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var last error
	for {
		ok, err := holds(ctx)
		if ok {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after a minute (last error: %v)", what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dedicated is a group that only the pods of this test go to.
func dedicated(t *testing.T, c *kubetest.Cluster, o kubetest.GroupOptions) (*kubetest.NodeGroup, func(*corev1.PodSpec)) {
	t.Helper()
	o.Labels = map[string]string{"pool": o.Name}
	o.Taints = []corev1.Taint{{Key: "only", Value: o.Name, Effect: corev1.TaintEffectNoSchedule}}
	if o.MilliCPU == 0 {
		o.MilliCPU, o.Memory = 2000, 4<<30
	}
	return c.NodeGroup(t, o), func(s *corev1.PodSpec) {
		s.NodeSelector = o.Labels
		s.Tolerations = []corev1.Toleration{{Key: "only", Value: o.Name}}
	}
}

// onePod makes a pod that asks for a processor.
func onePod(t *testing.T, c *kubetest.Cluster, namespace, name string, change ...func(*corev1.PodSpec)) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	p.Spec.Containers = []corev1.Container{{Name: "agent", Image: "agent", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
	}}}
	for _, f := range change {
		f(&p.Spec)
	}
	made, err := c.Client.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// awaitPod polls until the pod is as it should be.
func awaitPod(t *testing.T, c *kubetest.Cluster, p *corev1.Pod, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var now *corev1.Pod
	until(t, "pod "+p.Name+": "+what, func(ctx context.Context) (bool, error) {
		var err error
		if now, err = c.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{}); err != nil {
			return false, err
		}
		return holds(now), fmt.Errorf("it is %s on node %q: %+v %+v", now.Status.Phase, now.Spec.NodeName, now.Status.InitContainerStatuses, now.Status.ContainerStatuses)
	})
	return now
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func TestAPodGetsANodeAfterItsBoot(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	const boot = 500 * time.Millisecond
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "grow", Max: 2, Boot: boot, ScaleDown: 300 * time.Millisecond})
	begin := time.Now()
	var pods []*corev1.Pod
	for n := range 4 { // two to a node
		pods = append(pods, onePod(t, c, ns, fmt.Sprint("p", n), here))
	}
	for _, p := range pods {
		awaitPod(t, c, p, "ready", ready)
	}
	if took := time.Since(begin); took < boot {
		t.Errorf("ready after %s, before a node can be there (%s)", took, boot)
	}
	if g.Requested() != 2 || len(g.Nodes()) != 2 {
		t.Errorf("%d nodes were requested, %d are there; want 2 and 2", g.Requested(), len(g.Nodes()))
	}
	fifth := onePod(t, c, ns, "fifth", here)
	until(t, "the group is full, and says so", func(ctx context.Context) (bool, error) {
		events, err := c.Client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + fifth.Name + ",reason=NotTriggerScaleUp"})
		return err == nil && len(events.Items) > 0, err
	})
	for _, p := range append(pods, fifth) {
		if err := c.Client.CoreV1().Pods(ns).Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "empty nodes go", func(context.Context) (bool, error) { return len(g.Nodes()) == 0, nil })
}

func TestOutOfStock(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "stock", Max: 5})
	g.StockOut(true)
	p := onePod(t, c, ns, "waits", here)
	until(t, "a request", func(context.Context) (bool, error) { return g.Requested() > 0, nil })
	if n := len(g.Nodes()); n != 0 {
		t.Fatalf("%d nodes, though there is no stock", n)
	}
	g.StockOut(false)
	awaitPod(t, c, p, "ready", ready)
	if g.Requested() != 2 {
		t.Errorf("%d requests, want one that was lost and one that was met", g.Requested())
	}
}

func TestExpendablePodsBringNoNode(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "cutoff", Max: 5})
	class, err := c.Client.SchedulingV1().PriorityClasses().Create(t.Context(), priorityClass("expendable", -11), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	onePod(t, c, ns, "cheap", here, func(s *corev1.PodSpec) { s.PriorityClassName = class.Name })
	p := onePod(t, c, ns, "dear", here)
	awaitPod(t, c, p, "ready", ready)
	if g.Requested() != 1 {
		t.Errorf("%d nodes were requested, want the one of the pod that matters", g.Requested())
	}
}

func TestOnePodToAHost(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "spread", Max: 3})
	apart := func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{}, TopologyKey: corev1.LabelHostname,
		}}}}
	}
	for n := range 3 {
		p := onePod(t, c, ns, fmt.Sprint("p", n), here, apart)
		defer awaitPod(t, c, p, "ready", ready)
	}
	until(t, "three nodes", func(context.Context) (bool, error) { return len(g.Nodes()) == 3, nil })
}

func TestALostNodeTakesItsPods(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "lose", Min: 1, Max: 1})
	p := awaitPod(t, c, onePod(t, c, ns, "lost", here), "ready", ready)
	g.Kill(p.Spec.NodeName)
	until(t, "the node and its pod are gone", func(ctx context.Context) (bool, error) {
		nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + p.Spec.NodeName})
		if err != nil {
			return false, err
		}
		pods, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(nodes.Items) == 0 && len(pods.Items) == 0, err
	})
}

func TestABufferKeepsRoom(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	g, here := dedicated(t, c, kubetest.GroupOptions{Name: "buffer", Max: 5, ScaleDown: 200 * time.Millisecond, Buffers: true})
	chunk := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "chunk"}}
	chunk.Template.Spec.Containers = []corev1.Container{{Name: "agent", Image: "agent", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
	}}}
	here(&chunk.Template.Spec)
	if _, err := c.Client.CoreV1().PodTemplates(ns).Create(t.Context(), chunk, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	buffers := c.Dynamic.Resource(schema.GroupVersionResource{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Resource: "capacitybuffers"}).Namespace(ns)
	b := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer", "metadata": map[string]any{"name": "room"},
		"spec": map[string]any{"podTemplateRef": map[string]any{"name": "chunk"}, "replicas": int64(3)},
	}}
	if _, err := buffers.Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "room for three: two nodes", func(context.Context) (bool, error) { return len(g.Nodes()) == 2, nil })
	used := map[string]bool{}
	for _, name := range []string{"uses-it", "uses-more"} {
		used[awaitPod(t, c, onePod(t, c, ns, name, here), "ready", ready).Spec.NodeName] = true
	}
	until(t, "the room is made again", func(context.Context) (bool, error) { return len(g.Nodes()) == 3, nil })
	until(t, "the conditions", func(ctx context.Context) (bool, error) {
		got, err := buffers.Get(ctx, "room", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		holds := map[any]any{}
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		for _, c := range conditions {
			m := c.(map[string]any)
			holds[m["type"]] = m["status"]
		}
		return holds["ReadyForProvisioning"] == "True" && holds["Provisioning"] == "True", fmt.Errorf("%v", conditions)
	})
	if err := buffers.Delete(t.Context(), "room", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "what nobody uses goes", func(context.Context) (bool, error) { return len(g.Nodes()) == len(used), nil })
}
