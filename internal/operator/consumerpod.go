package operator

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// Labels of consumers' pods and Deployments, beside the role. They are not those
// of what a fleet has in its own namespace, which Sweep removes.
const (
	LabelConsumersNamespace = kube.Group + "/consumers-namespace"
	LabelConsumersFleet     = kube.Group + "/consumers-fleet"
)

// leaveTime is how long a consumer's pod may take to hand over, in seconds: 30 s
// until its sandboxes are taken over, and what it writes then.
const leaveTime = 60

func consumerLabels(k Key) map[string]string {
	return map[string]string{
		kube.LabelRole: kube.RoleConsumer, LabelConsumersNamespace: k.Namespace, LabelConsumersFleet: k.Name,
	}
}

// deploymentName is FLEET-consumers; fleets of other namespaces than the control
// plane's are told apart by a digest of theirs.
func deploymentName(own string, k Key) string {
	if k.Namespace == own {
		return k.Name + "-consumers"
	}
	sum := sha256.Sum256([]byte(k.Namespace))
	return k.Name + "-" + hex.EncodeToString(sum[:4]) + "-consumers"
}

// consumersOf is the Deployment of a fleet's consumers: the control plane's own
// pod with another command, without what belongs to one pod alone.
func consumersOf(pod *corev1.Pod, k Key, uid types.UID, replicas int32) (*applyapps.DeploymentApplyConfiguration, error) {
	spec, err := consumerSpec(pod, k)
	if err != nil {
		return nil, err
	}
	own := consumerLabels(k)
	labels := maps.Clone(pod.Labels)
	for l := range labels {
		// What says which pod leads, or which set made it, is not theirs.
		if l == LabelLeader || strings.HasSuffix(l, "pod-template-hash") {
			delete(labels, l)
		}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, own)
	none, some := intstr.FromInt32(0), intstr.FromString("25%")
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: deploymentName(pod.Namespace, k), Labels: maps.Clone(own)},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: own},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &some},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: ownAnnotations(pod)}, Spec: spec,
			},
		},
	}
	d.Labels[kube.LabelOwner] = kube.Owner
	if k.Namespace == pod.Namespace && uid != "" { // elsewhere the finalizer alone removes it
		d.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindFleet, Name: k.Name, UID: uid}}
	}
	return asApply(d)
}

// ownAnnotations are those that scrapers and the like read, without what the
// cluster has noted about the one pod.
func ownAnnotations(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for a, v := range pod.Annotations {
		if host, _, ok := strings.Cut(a, "/"); ok && (strings.HasSuffix(host, "kubernetes.io") || strings.HasSuffix(host, "k8s.io") || strings.HasSuffix(host, "cni.cncf.io")) {
			continue
		}
		out[a] = v
	}
	return out
}

// consumerSpec is the pod with the command changed.
func consumerSpec(pod *corev1.Pod, k Key) (corev1.PodSpec, error) {
	c, err := consumerContainer(&pod.Spec, k)
	if err != nil {
		return corev1.PodSpec{}, err
	}
	p := pod.Spec.DeepCopy()
	grace := int64(leaveTime)
	out := corev1.PodSpec{
		// Sidecars that were put into our pod are put into theirs, too.
		Containers: []corev1.Container{c}, ServiceAccountName: p.ServiceAccountName,
		AutomountServiceAccountToken: p.AutomountServiceAccountToken, EnableServiceLinks: p.EnableServiceLinks,
		NodeSelector: p.NodeSelector, Tolerations: ownTolerations(p.Tolerations), ImagePullSecrets: p.ImagePullSecrets,
		SecurityContext: p.SecurityContext, PriorityClassName: p.PriorityClassName, RuntimeClassName: p.RuntimeClassName,
		DNSPolicy: p.DNSPolicy, DNSConfig: p.DNSConfig, HostAliases: p.HostAliases, TerminationGracePeriodSeconds: &grace,
		RestartPolicy: corev1.RestartPolicyAlways, SchedulerName: p.SchedulerName,
		// One lost node takes few of them with it.
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: consumerLabels(k)},
		}},
	}
	if p.Affinity != nil && p.Affinity.NodeAffinity != nil {
		out.Affinity = &corev1.Affinity{NodeAffinity: p.Affinity.NodeAffinity}
	}
	for _, v := range p.Volumes {
		switch {
		case injected(v.Name):
		case v.PersistentVolumeClaim != nil:
			// What several processes would write into; consumers keep nothing there.
			v.VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
			out.Volumes = append(out.Volumes, v)
		default:
			out.Volumes = append(out.Volumes, v)
		}
	}
	return out, nil
}

// injected tells whether a volume is the account's token, which admission puts
// into every pod.
func injected(volume string) bool { return strings.HasPrefix(volume, "kube-api-access-") }

// ownTolerations are without those that admission adds to every pod.
func ownTolerations(in []corev1.Toleration) []corev1.Toleration {
	return slices.DeleteFunc(in, func(t corev1.Toleration) bool {
		return (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable) &&
			t.TolerationSeconds != nil && *t.TolerationSeconds == 300
	})
}

// consumerContainer is the container that runs `muster serve`, as one that runs
// `muster consume`.
func consumerContainer(p *corev1.PodSpec, k Key) (corev1.Container, error) {
	for i := range p.Containers {
		c := p.Containers[i].DeepCopy()
		for _, words := range []*[]string{&c.Command, &c.Args} {
			at := slices.Index(*words, "serve")
			if at < 0 {
				continue
			}
			(*words)[at] = "consume"
			*words = slices.Insert(*words, at+1, "--fleet="+k.String())
			c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return injected(m.Name) })
			for j := range c.Ports {
				c.Ports[j].HostPort = 0
			}
			c.Env = withAddress(c.Env)
			return *c, nil
		}
	}
	return corev1.Container{}, fmt.Errorf("no container of our own pod runs `muster serve`, so consumers cannot be made after it: %w", fleet.ErrInvalid)
}

// withAddress adds the variables that a consumer tells of itself by.
func withAddress(env []corev1.EnvVar) []corev1.EnvVar {
	env = slices.DeleteFunc(env, func(e corev1.EnvVar) bool {
		return e.Name == "POD_NAME" || e.Name == "POD_NAMESPACE" || e.Name == "POD_IP"
	})
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	return append(env, field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), field("POD_IP", "status.podIP"))
}
