package kubetest

import (
	"slices"
	"sort"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
)

// room is what a node, there or on its way, has left.
type room struct {
	name      string // empty: it is not there yet
	labels    map[string]string
	taints    []corev1.Taint
	cordoned  bool
	cpu, mem  int64 // thousandths, bytes
	pods      int64
	occupants []*corev1.Pod
}

// view is the cluster as a scan sees it.
type view struct {
	rooms []*room
	pods  []*corev1.Pod
}

// view counts what is left on each node of the groups.
func (c *Cluster) view() *view {
	v := &view{pods: c.watch.allPods()}
	byName := map[string]*room{}
	for _, n := range c.watch.allNodes() {
		if n.Labels[LabelGroup] == "" || n.DeletionTimestamp != nil {
			continue
		}
		r := &room{
			name: n.Name, labels: n.Labels, taints: n.Spec.Taints, cordoned: n.Spec.Unschedulable,
			cpu: n.Status.Allocatable.Cpu().MilliValue(), mem: n.Status.Allocatable.Memory().Value(), pods: n.Status.Allocatable.Pods().Value(),
		}
		byName[n.Name] = r
		v.rooms = append(v.rooms, r)
	}
	sort.Slice(v.rooms, func(i, j int) bool { return v.rooms[i].name < v.rooms[j].name })
	for _, p := range v.pods {
		at := p.Spec.NodeName
		if at == "" {
			at = p.Status.NominatedNodeName // others make way for it
		}
		if r := byName[at]; r != nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			r.add(p)
		}
	}
	return v
}

// expect adds the nodes of a group that are on their way; those that have been
// made and are not seen yet are among them.
func (v *view) expect(g *NodeGroup) {
	seen := map[string]bool{}
	for _, r := range v.rooms {
		seen[r.name] = true
	}
	for range g.booting {
		v.rooms = append(v.rooms, g.blank())
	}
	for name := range g.nodes {
		if !seen[name] {
			v.rooms = append(v.rooms, g.blank())
		}
	}
}

// blank is a node of the group with nothing on it.
func (g *NodeGroup) blank() *room {
	n := map[string]string{LabelGroup: g.o.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", corev1.LabelTopologyZone: "zone-a", corev1.LabelTopologyRegion: "region-1"}
	for k, v := range g.o.Labels {
		n[k] = v
	}
	return &room{labels: n, taints: g.o.Taints, cpu: g.o.MilliCPU, mem: g.o.Memory, pods: g.o.Pods}
}

// waiting are the pods that the scheduler found no node for, the oldest first.
func (v *view) waiting() []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range v.pods {
		if p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" || p.DeletionTimestamp != nil || p.Spec.Priority != nil && *p.Spec.Priority < expendable {
			continue
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				out = append(out, p)
			}
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].CreationTimestamp.Before(&out[j].CreationTimestamp) })
	return out
}

// place puts a pod where there is room; false: nowhere.
func (v *view) place(p *corev1.Pod) bool {
	for _, r := range v.rooms {
		if r.takes(p) {
			r.add(p)
			return true
		}
	}
	return false
}

// empty says that nothing keeps the node: pods of DaemonSets and expendable
// ones do not, but one that says it must not be evicted does.
func (r *room) empty() bool {
	for _, p := range r.occupants {
		kept := p.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false" || p.Annotations["karpenter.sh/do-not-disrupt"] == "true"
		daemon := slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "DaemonSet" })
		cheap := p.Spec.Priority != nil && *p.Spec.Priority < expendable
		if kept || !daemon && !cheap {
			return false
		}
	}
	return true
}

func (r *room) add(p *corev1.Pod) {
	cpu, mem := requests(p)
	r.cpu, r.mem, r.pods = r.cpu-cpu, r.mem-mem, r.pods-1
	r.occupants = append(r.occupants, p)
}

// takes says whether the scheduler could put the pod here: selector, taints,
// resources, and the anti-affinities by host name.
func (r *room) takes(p *corev1.Pod) bool {
	cpu, mem := requests(p)
	if r.cordoned || cpu > r.cpu || mem > r.mem || r.pods < 1 || !r.selected(p) || !r.tolerated(p) {
		return false
	}
	for _, o := range r.occupants {
		if avoids(p, o) || avoids(o, p) {
			return false
		}
	}
	return true
}

// selected obeys nodeSelector and the In and Exists of a required affinity.
func (r *room) selected(p *corev1.Pod) bool {
	if !labels.SelectorFromSet(p.Spec.NodeSelector).Matches(labels.Set(r.labels)) {
		return false
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		if len(term.MatchFields) == 0 && !slices.ContainsFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			value, ok := r.labels[e.Key]
			return !ok || e.Operator == corev1.NodeSelectorOpIn && !slices.Contains(e.Values, value)
		}) {
			return true
		}
	}
	return false
}

// tolerated ignores the taints of nodes that are still starting.
func (r *room) tolerated(p *corev1.Pod) bool {
	for i := range r.taints {
		t := &r.taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || t.Key == corev1.TaintNodeNotReady {
			continue
		}
		if !slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return o.ToleratesTaint(klog.Background(), t, false) }) {
			return false
		}
	}
	return true
}

// avoids says that a may not be on the node of b.
func avoids(a, b *corev1.Pod) bool {
	if a.Spec.Affinity == nil || a.Spec.Affinity.PodAntiAffinity == nil || a.Namespace != b.Namespace {
		return false
	}
	for _, term := range a.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		s, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
		if err == nil && term.TopologyKey == corev1.LabelHostname && s.Matches(labels.Set(b.Labels)) {
			return true
		}
	}
	return false
}

// requests are what a pod asks for: the sum of its containers, or the largest
// of its init containers.
func requests(p *corev1.Pod) (cpu, mem int64) {
	of := func(c *corev1.Container, name corev1.ResourceName, value func(*resource.Quantity) int64) int64 {
		q := c.Resources.Requests[name]
		return value(&q)
	}
	for i := range p.Spec.Containers {
		cpu += of(&p.Spec.Containers[i], corev1.ResourceCPU, (*resource.Quantity).MilliValue)
		mem += of(&p.Spec.Containers[i], corev1.ResourceMemory, (*resource.Quantity).Value)
	}
	for i := range p.Spec.InitContainers {
		cpu = max(cpu, of(&p.Spec.InitContainers[i], corev1.ResourceCPU, (*resource.Quantity).MilliValue))
		mem = max(mem, of(&p.Spec.InitContainers[i], corev1.ResourceMemory, (*resource.Quantity).Value))
	}
	return cpu, mem
}
