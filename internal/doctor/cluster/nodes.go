package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// pairs writes labels as kubectl takes them.
func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

// nodes judges the nodes for agents: whether there are any, whether they keep
// others away, and what else runs there.
func (e *examiner) nodes(ctx context.Context) []doctor.Finding {
	const check = "nodes"
	list, err := e.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(e.Needs.NodeSelector).String()})
	if err != nil {
		return one(unread(check, "nodes", err))
	}
	mine := list.Items
	if len(e.Needs.NodeSelector) == 0 {
		mine = slices.DeleteFunc(mine, func(n corev1.Node) bool { return !dedicated(n) })
		if e.Needs.Fleet != "" {
			return one(warn(check, "the fleet has no nodeSelector", "agents run on whatever node there is, beside whatever else, and no node is brought or returned",
				"set spec.nodes.kubernetes.nodeSelector to labels that only the nodes for agents have"))
		}
	}
	if len(mine) == 0 {
		return one(e.noNodes(check))
	}
	ready, open := 0, []string{}
	for _, n := range mine {
		if isReady(n) {
			ready++
		}
		if !dedicated(n) {
			open = append(open, n.Name)
		}
	}
	f := ok(check, fmt.Sprintf("%d for agents, %d ready", len(mine), ready))
	if ready == 0 {
		f = fail(check, f.Found, "no sandbox can start on them", "kubectl describe node "+mine[0].Name)
	}
	if len(open) > 0 {
		return []doctor.Finding{f, warn("dedicated", fmt.Sprintf("%d of %d nodes for agents have no taint %s: %s", len(open), len(mine), kube.TaintDedicated, some(open)),
			"other workloads may be scheduled beside agents", "put the taint "+kube.TaintDedicated+"=agents:NoSchedule into the node group's template, and: kubectl taint node "+open[0]+" "+kube.TaintDedicated+"=agents:NoSchedule")}
	}
	return []doctor.Finding{f, e.neighbours(ctx, mine)}
}

func (e *examiner) noNodes(check string) doctor.Finding {
	if len(e.Needs.NodeSelector) == 0 {
		return warn(check, "no node has the taint "+kube.TaintDedicated+", and no fleet was given to say which nodes are for agents", "agents would run beside production",
			"muster doctor --kubernetes --fleet fleet.yaml, with spec.nodes.kubernetes.nodeSelector in it")
	}
	found := "none has the labels " + pairs(e.Needs.NodeSelector)
	if e.Needs.Headroom == "none" {
		return fail(check, found, "no sandbox can start, and the fleet brings no node (headroom: none)", "kubectl label node NODE "+pairs(e.Needs.NodeSelector))
	}
	return ok(check, found+" now; they are brought when there is work")
}

func dedicated(n corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == kube.TaintDedicated && t.Effect != corev1.TaintEffectPreferNoSchedule
	})
}

func isReady(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func some(names []string) string {
	const most = 3
	slices.Sort(names)
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// neighbours looks for what runs on agents' nodes and is neither an agent nor
// there once per node.
func (e *examiner) neighbours(ctx context.Context, nodes []corev1.Node) doctor.Finding {
	const check = "dedicated"
	mine := map[string]bool{}
	for _, n := range nodes {
		mine[n.Name] = true
	}
	var others []string
	pages := pager.New(pager.SimplePageFunc(func(o metav1.ListOptions) (runtime.Object, error) {
		return e.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
	}))
	err := pages.EachListItem(ctx, everything, func(o runtime.Object) error {
		if p, is := o.(*corev1.Pod); is && mine[p.Spec.NodeName] && !belongs(p) {
			others = append(others, p.Namespace+"/"+p.Name+" on "+p.Spec.NodeName)
		}
		return nil
	})
	if err != nil {
		return unread(check, "pods of all namespaces", err)
	}
	if len(others) > 0 {
		return warn(check, fmt.Sprintf("%d pods of others run beside agents: %s", len(others), some(others)), "these nodes are not dedicated, whatever their taint says",
			"take the toleration of "+kube.TaintDedicated+" from these workloads, and drain them off")
	}
	return ok(check, "nothing but agents and what every node has runs there")
}

// belongs tells whether a pod may be on an agents' node: ours, of a DaemonSet,
// of the node itself, or over.
func belongs(p *corev1.Pod) bool {
	if p.Labels[kube.LabelOwner] == kube.Owner || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return true
	}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return true
	}
	return slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "DaemonSet" || o.Kind == "Node" })
}

// handlers are the names that the shims of sandboxing runtimes go by.
var handlers = map[fleet.Runtime][]string{
	fleet.RuntimeGVisor: {"runsc", "gvisor"},
	fleet.RuntimeKata:   {"kata"},
}

// runtimes judges the RuntimeClasses that the templates need.
func (e *examiner) runtimes(ctx context.Context) []doctor.Finding {
	const check = "runtime-class"
	list, err := e.Client.NodeV1().RuntimeClasses().List(ctx, everything)
	if err != nil {
		return one(unread(check, "runtime classes", err))
	}
	names, by := map[string]bool{}, map[fleet.Runtime][]string{}
	for _, c := range list.Items {
		names[c.Name] = true
		for r, marks := range handlers {
			if slices.ContainsFunc(marks, func(m string) bool { return strings.HasPrefix(c.Handler, m) }) {
				by[r] = append(by[r], c.Name)
			}
		}
	}
	var out []doctor.Finding
	for _, r := range []fleet.Runtime{fleet.RuntimeGVisor, fleet.RuntimeKata} {
		want := e.Needs.RuntimeClasses[r]
		if slices.Contains(e.Needs.Runtimes, r) && !names[want] {
			out = append(out, fail(check, fmt.Sprintf("there is no RuntimeClass %q, which a template with runtime %s asks for%s", want, r, instead(by[r])), "no sandbox of that template starts",
				"install it on the nodes for agents with a RuntimeClass, or set spec.nodes.kubernetes.runtimeClasses."+string(r)))
		}
	}
	sandboxing := append(by[fleet.RuntimeGVisor], by[fleet.RuntimeKata]...)
	slices.Sort(sandboxing)
	switch {
	case len(out) > 0:
	case len(sandboxing) > 0:
		out = one(ok(check, "boundaries against hostile code: "+strings.Join(sandboxing, ", ")))
	default:
		out = one(warn(check, "neither gVisor nor Kata", "containers share the nodes' kernel and are not a boundary against hostile code",
			"install gVisor on the nodes for agents, and a RuntimeClass gvisor with the handler runsc"))
	}
	return out
}

func instead(there []string) string {
	if len(there) == 0 {
		return ""
	}
	return "; there is " + strings.Join(there, ", ")
}
