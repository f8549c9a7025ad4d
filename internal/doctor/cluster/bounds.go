package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/doctor"
)

// Cluster Autoscaler brings no node for a pod of a priority below cutoff (its
// flag expendable-pods-priority-cutoff).
const cutoff = -10

const seatClass = "muster-seat"

// priorities judges whether sandboxes push out the pods that hold nodes.
func (e *examiner) priorities(ctx context.Context) []doctor.Finding {
	const check = "priority-class"
	if e.Needs.Headroom == "none" || e.Needs.Headroom == "karpenter" {
		return nil // no such pods
	}
	sandboxes, f := e.priority(ctx, check, e.Needs.PriorityClass)
	if f != nil {
		return one(*f)
	}
	name := e.Needs.SeatClass
	if name == "" {
		name = seatClass
	}
	seats, f := e.priority(ctx, check, name)
	switch {
	case f != nil:
		return one(*f)
	case seats < cutoff:
		return one(fail(check, fmt.Sprintf("%s has the value %d", name, seats), fmt.Sprintf("Cluster Autoscaler brings no node for a priority below %d", cutoff), remake(name)))
	case seats >= 0 || seats >= sandboxes:
		return one(fail(check, fmt.Sprintf("%s has the value %d, sandboxes have %d", name, seats, sandboxes), "sandboxes would wait behind the pods that hold a node for them", remake(name)))
	}
	return one(ok(check, fmt.Sprintf("sandboxes %d, %s %d", sandboxes, name, seats)))
}

func remake(name string) string {
	return fmt.Sprintf("kubectl delete priorityclass %s; kubectl create priorityclass %s --value=-5 --preemption-policy=Never", name, name)
}

// priority reads a class; of none, that of the cluster's default.
func (e *examiner) priority(ctx context.Context, check, name string) (int32, *doctor.Finding) {
	if name == "" {
		list, err := e.Client.SchedulingV1().PriorityClasses().List(ctx, everything)
		if err != nil {
			f := unread(check, "priority classes", err)
			return 0, &f
		}
		if i := slices.IndexFunc(list.Items, func(c schedulingv1.PriorityClass) bool { return c.GlobalDefault }); i >= 0 {
			return list.Items[i].Value, nil
		}
		return 0, nil
	}
	c, err := e.Client.SchedulingV1().PriorityClasses().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		value := "-5 --preemption-policy=Never"
		if name == e.Needs.PriorityClass {
			value = "0"
		}
		f := fail(check, fmt.Sprintf("there is no PriorityClass %q", name), "pods that name it are refused", "kubectl create priorityclass "+name+" --value="+value)
		return 0, &f
	case err != nil:
		f := unread(check, "the PriorityClass "+name, err)
		return 0, &f
	}
	return c.Value, nil
}

// asks is what n sandboxes ask for, under the names of quotas.
func (e *examiner) asks(n int) map[corev1.ResourceName]resource.Quantity {
	r := e.Needs.Each
	cpu := *resource.NewMilliQuantity(int64(n)*r.MilliCPU, resource.DecimalSI)
	memory := *resource.NewQuantity(int64(n)*r.MemoryBytes, resource.BinarySI)
	disk := *resource.NewQuantity(int64(n)*r.DiskBytes, resource.BinarySI)
	return map[corev1.ResourceName]resource.Quantity{
		corev1.ResourcePods: *resource.NewQuantity(int64(n), resource.DecimalSI), "count/pods": *resource.NewQuantity(int64(n), resource.DecimalSI),
		corev1.ResourceCPU: cpu, corev1.ResourceRequestsCPU: cpu, corev1.ResourceLimitsCPU: cpu,
		corev1.ResourceMemory: memory, corev1.ResourceRequestsMemory: memory, corev1.ResourceLimitsMemory: memory,
		corev1.ResourceEphemeralStorage: disk, corev1.ResourceRequestsEphemeralStorage: disk, corev1.ResourceLimitsEphemeralStorage: disk,
	}
}

// quotas judges whether the namespace has room for the fleet at its largest.
func (e *examiner) quotas(ctx context.Context) []doctor.Finding {
	const check = "quota"
	list, err := e.Client.CoreV1().ResourceQuotas(e.Namespace).List(ctx, everything)
	switch {
	case err != nil:
		return one(unread(check, "resource quotas", err))
	case len(list.Items) == 0:
		return one(ok(check, "none in "+e.Namespace))
	case e.Needs.Sandboxes == 0:
		return one(warn(check, fmt.Sprintf("%d in %s, which bound the fleet", len(list.Items), e.Namespace), "whether they are large enough cannot be said without the fleet",
			"muster doctor --kubernetes --fleet fleet.yaml"))
	}
	var short []string
	for _, q := range list.Items {
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue // of some pods only; the sandboxes' may be others
		}
		for name, need := range e.asks(e.Needs.Sandboxes) {
			hard, bound := q.Spec.Hard[name]
			if bound && hard.Cmp(need) < 0 {
				short = append(short, fmt.Sprintf("%s: %s %s, want %s", q.Name, name, hard.String(), need.String()))
			}
		}
	}
	slices.Sort(short)
	if len(short) > 0 {
		return one(warn(check, fmt.Sprintf("too small for %d sandboxes: %s", e.Needs.Sandboxes, strings.Join(short, "; ")), "the fleet stops growing there, and says so",
			"raise the quota, or lower spec.capacity.sandboxes.max"))
	}
	return one(ok(check, fmt.Sprintf("%d in %s, with room for %d sandboxes", len(list.Items), e.Namespace, e.Needs.Sandboxes)))
}

// limits judges whether a LimitRange refuses a sandbox.
func (e *examiner) limits(ctx context.Context) []doctor.Finding {
	const check = "limit-range"
	list, err := e.Client.CoreV1().LimitRanges(e.Namespace).List(ctx, everything)
	switch {
	case err != nil:
		return one(unread(check, "limit ranges", err))
	case len(list.Items) == 0:
		return one(ok(check, "none in "+e.Namespace))
	}
	need := e.asks(1)
	var wrong []string
	for _, l := range list.Items {
		for _, item := range l.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer && item.Type != corev1.LimitTypePod {
				continue
			}
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
				n := need[name]
				if most, bound := item.Max[name]; bound && n.Cmp(most) > 0 {
					wrong = append(wrong, fmt.Sprintf("%s: at most %s %s, a sandbox has %s", l.Name, most.String(), name, n.String()))
				}
				if least, bound := item.Min[name]; bound && !n.IsZero() && n.Cmp(least) < 0 {
					wrong = append(wrong, fmt.Sprintf("%s: at least %s %s, a sandbox has %s", l.Name, least.String(), name, n.String()))
				}
			}
		}
	}
	if len(wrong) > 0 {
		return one(fail(check, strings.Join(wrong, "; "), "pods of sandboxes are refused", "change the LimitRange, or the template's resources"))
	}
	return one(ok(check, fmt.Sprintf("%d in %s, which let sandboxes pass", len(list.Items), e.Namespace)))
}

// enforcers are network plug-ins known to enforce NetworkPolicy, by a part of
// the name of their DaemonSet; aws-node and gke do where it is switched on.
var enforcers = []string{"cilium", "calico-node", "canal", "antrea-agent", "kube-router", "ovnkube-node", "weave-net", "azure-npm", "kindnet"}

// network says whether policies are enforced, as far as the name of the network
// plug-in tells.
func (e *examiner) network(ctx context.Context) []doctor.Finding {
	const check = "network-policy"
	list, err := e.Client.AppsV1().DaemonSets(metav1.NamespaceAll).List(ctx, everything)
	if err != nil {
		return one(unread(check, "daemon sets of all namespaces", err))
	}
	for _, d := range list.Items {
		for _, name := range enforcers {
			if strings.Contains(d.Name, name) {
				return one(ok(check, d.Namespace+"/"+d.Name+" enforces it"))
			}
		}
	}
	return one(warn(check, "unknown: no network plug-in that is known to enforce it was seen",
		"if it is not enforced, agents reach whatever pods reach, past the allow-list",
		"ask whoever runs the network plug-in; Cilium, Calico, Antrea, kube-router and OVN-Kubernetes enforce it"))
}
