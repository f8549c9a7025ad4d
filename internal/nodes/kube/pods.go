package kube

import (
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/kube"
)

// holdSize is what a hold asks for: it only waits.
var holdSize = size{cpu: 1, memory: 16 << 20}

// name makes a name of one of our pods; at most 63 characters.
func (o *Options) name(kind, suffix string) string {
	f := o.Fleet
	if most := 63 - len(kind) - len(suffix) - 2; len(f) > most {
		f = strings.TrimRight(f[:most], "-.")
	}
	return f + "-" + kind + "-" + suffix
}

func (o *Options) seatName() string { return o.name("seat", strings.ToLower(rand.Text()[:10])) }

func (o *Options) holdName(node string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(o.Fleet + "/" + node))
	return o.name("hold", fmt.Sprintf("%016x", h.Sum64()))
}

// isSeat selects the pods that ask for nodes or hold them, of all fleets.
func isSeat() map[string]string {
	return map[string]string{kube.LabelOwner: kube.Owner, kube.LabelRole: kube.RoleSeat}
}

func (o *Options) labels() map[string]string {
	l := isSeat()
	l[kube.LabelFleet] = o.Fleet
	return l
}

// waiting is a pod that does nothing, confined as pod security "restricted"
// asks.
func (o *Options) waiting(asks size) corev1.PodSpec {
	no, yes, uid, at := false, true, int64(65532), int64(0)
	return corev1.PodSpec{
		NodeSelector: maps.Clone(o.Selector), AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		TerminationGracePeriodSeconds: &at,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &uid, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "wait", Image: o.Image, Command: o.Command,
			Resources: corev1.ResourceRequirements{Requests: asks.list(), Limits: asks.list()},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}
}

// seatSpec is a pod that takes a node of its own: it fits on none that carries
// another seat or a hold.
func (o *Options) seatSpec() corev1.PodSpec {
	spec := o.waiting(o.worth())
	spec.Tolerations = o.Tolerations
	spec.PriorityClassName = o.PriorityClass
	spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: isSeat()}, NamespaceSelector: &metav1.LabelSelector{},
			TopologyKey: corev1.LabelHostname,
		}},
	}}
	return spec
}

func (o *Options) seatPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: o.seatName(), Namespace: o.Namespace, Labels: o.labels(),
			Annotations: map[string]string{kube.AnnotationSafeToEvict: "true"},
		},
		Spec: o.seatSpec(),
	}
}

// holdPod is put on its node without the scheduler, which might find it no room,
// and tolerates everything, so that it goes only when we say so.
func (o *Options) holdPod(node string, h *hold) *corev1.Pod {
	spec := o.waiting(holdSize)
	spec.NodeName, spec.NodeSelector = node, nil
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: o.holdName(node), Namespace: o.Namespace, Labels: o.labels(),
			Annotations: map[string]string{
				kube.AnnotationSafeToEvict: "false", kube.AnnotationDoNotDisrupt: "true",
				annotationBoot: h.boot, annotationRequested: h.requested.UTC().Format(time.RFC3339Nano), annotationReady: h.ready.UTC().Format(time.RFC3339Nano),
			},
		},
		Spec: spec,
	}
}
