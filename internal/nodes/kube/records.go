package kube

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// The annotations of holds, seats and nodes.
const (
	annotationBoot      = "muster.dev/boot"         // of a hold: the id that its node had while it booted
	annotationRequested = "muster.dev/requested-at" // of a hold: when its node was asked for
	annotationReady     = "muster.dev/ready-at"     // of a hold: when its node was ready
	annotationCordon    = "muster.dev/cordon"       // of a node: see mark…

	markCordoned = "cordoned" // by us; may be taken back
	markReleased = "released" // by us; nothing of ours is on it
)

// Taints that say that a node is on its way out, or not in yet.
const (
	// cluster-autoscaler/utils/taints: ToBeDeletedTaint.
	taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"
	// karpenter pkg/apis/v1/taints.go.
	taintDisrupted    = "karpenter.sh/disrupted"
	taintUnregistered = "karpenter.sh/unregistered"
	// k8s.io/cloud-provider/api: TaintExternalCloudProvider.
	taintUninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
)

// size is what a pod asks for or a node has: thousandths of a core and bytes.
type size struct{ cpu, memory, disk int64 }

func (a size) plus(b size) size {
	return size{a.cpu + b.cpu, a.memory + b.memory, a.disk + b.disk}
}

func (a size) minus(b size) size {
	return size{a.cpu - b.cpu, a.memory - b.memory, a.disk - b.disk}
}

func sizeOf(l corev1.ResourceList) size {
	return size{
		cpu: l.Cpu().MilliValue(), memory: l.Memory().Value(),
		disk: l.Name(corev1.ResourceEphemeralStorage, resource.BinarySI).Value(),
	}
}

func (a size) list() corev1.ResourceList {
	l := corev1.ResourceList{}
	if a.cpu > 0 {
		l[corev1.ResourceCPU] = *resource.NewMilliQuantity(a.cpu, resource.DecimalSI)
	}
	if a.memory > 0 {
		l[corev1.ResourceMemory] = *resource.NewQuantity(a.memory, resource.BinarySI)
	}
	if a.disk > 0 {
		l[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(a.disk, resource.BinarySI)
	}
	return l
}

// unbounded is the disk of a node that does not account for it.
const unbounded = 1 << 50

// requests is what the scheduler sets aside for a pod: its containers together,
// or the largest that runs before them, whichever is more. A container before
// them that goes on running counts with the former.
func requests(p *corev1.Pod) size {
	var all, first size
	for i := range p.Spec.Containers {
		all = all.plus(sizeOf(p.Spec.Containers[i].Resources.Requests))
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		s := sizeOf(c.Resources.Requests)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			all = all.plus(s)
			continue
		}
		first = size{max(first.cpu, s.cpu), max(first.memory, s.memory), max(first.disk, s.disk)}
	}
	most := size{max(all.cpu, first.cpu), max(all.memory, first.memory), max(all.disk, first.disk)}
	return most.plus(sizeOf(p.Spec.Overhead))
}

// pod is what is kept of a pod; there may be very many.
type pod struct {
	meta
	node    string // empty: not placed yet
	owner   string // who made it, in words
	ours    bool
	fleet   string // whose it is, as fleetKey says
	role    string
	sandbox fleet.SandboxID
	daemon  bool // of a DaemonSet, or static: every node has it
	over    bool // ended, or on its way out: takes no room
	failed  bool
	size    size
	hold    *hold // of a pod that holds a node
}

// meta is what both kinds of record are ordered by.
type meta struct {
	key     string // namespace/name, or name
	uid     string
	version string
	created time.Time
}

// hold is what a hold remembers of its node.
type hold struct {
	boot             string
	requested, ready time.Time
}

func metaOf(o *metav1.ObjectMeta) meta {
	key := o.Name
	if o.Namespace != "" {
		key = o.Namespace + "/" + o.Name
	}
	return meta{key: key, uid: string(o.UID), version: o.ResourceVersion, created: o.CreationTimestamp.Time}
}

func podOf(p *corev1.Pod) *pod {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	r := &pod{
		meta: metaOf(&p.ObjectMeta), node: p.Spec.NodeName, owner: "a bare pod", ours: p.Labels[kube.LabelOwner] == kube.Owner,
		fleet: fleetKey(p.Namespace, p.Labels[kube.LabelFleet]), role: p.Labels[kube.LabelRole],
		sandbox: fleet.SandboxID(p.Labels[kube.LabelSandbox]),
		daemon:  mirror, size: requests(p),
		failed: p.Status.Phase == corev1.PodFailed,
		over:   p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded,
	}
	if c := metav1.GetControllerOf(p); c != nil {
		r.owner = c.Kind + " " + c.Name
		r.daemon = r.daemon || c.Kind == "DaemonSet" || c.Kind == "Node"
	}
	if !r.ours || r.role != kube.RoleSeat {
		return r
	}
	r.over = r.over || p.DeletionTimestamp != nil
	if boot, ok := p.Annotations[annotationBoot]; ok {
		r.hold = &hold{boot: boot, requested: timeOf(p.Annotations[annotationRequested]), ready: timeOf(p.Annotations[annotationReady])}
	}
	return r
}

// fleetKey tells a fleet from all others: two of one name may be in two
// namespaces, and on the same nodes.
func fleetKey(namespace, name string) string { return namespace + "/" + name }

// timeOf reads a time that we wrote; zero where somebody else did.
func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// machine is what is kept of a node.
type machine struct {
	meta
	labels  map[string]string
	tainted bool   // with the taint of agents' nodes
	ready   bool   // takes pods, but for a cordon
	unready string // why it is not ready, in words
	lost    bool   // was ready once
	leaving string // why it is on its way out, in words
	closed  bool   // cordoned, by whomever
	mark    string // by us: markCordoned or markReleased
	size    size
	whole   size // with what the node keeps for itself
	pods    int64
}

func machineOf(n *corev1.Node) *machine {
	m := &machine{
		meta: metaOf(&n.ObjectMeta), labels: n.Labels, closed: n.Spec.Unschedulable, mark: n.Annotations[annotationCordon],
		size: sizeOf(n.Status.Allocatable), whole: sizeOf(n.Status.Capacity), pods: n.Status.Allocatable.Pods().Value(), unready: "its kubelet has not reported yet",
	}
	if _, ok := n.Status.Allocatable[corev1.ResourceEphemeralStorage]; !ok {
		m.size.disk = unbounded
	}
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if m.ready = c.Status == corev1.ConditionTrue; !m.ready {
			m.unready = c.Reason + ": " + c.Message
			// The controller of nodes gives this reason to those whose kubelet has
			// reported before.
			m.lost = c.Reason == "NodeStatusUnknown"
		}
	}
	for _, t := range n.Spec.Taints {
		switch t.Key {
		case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, taintUninitialized, taintUnregistered:
			if m.ready {
				m.ready, m.unready = false, "tainted "+t.Key
			}
		case taintToBeDeleted:
			m.leaving = "Cluster Autoscaler is removing it"
		case taintDisrupted:
			m.leaving = "Karpenter is removing it"
		case kube.TaintDedicated:
			m.tainted = true
		}
	}
	if n.DeletionTimestamp != nil {
		m.leaving = "it is being deleted"
	}
	return m
}

// released tells a node that was given back and is still there.
func (m *machine) released() bool { return m.closed && m.mark == markReleased }
