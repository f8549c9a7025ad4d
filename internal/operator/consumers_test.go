package operator

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

// planePod is the control plane's own pod, as the chart makes it.
func planePod() *corev1.Pod {
	user, yes, seconds := int64(65532), true, int64(300)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "muster-0", Labels: map[string]string{
			"app.kubernetes.io/name": "muster", "app.kubernetes.io/instance": "muster", kube.LabelRole: kube.RoleControl,
			LabelLeader: "true", "pod-template-hash": "abc",
		}, Annotations: map[string]string{"prometheus.io/scrape": "true", "cni.projectcalico.org/k8s.io": "x", "kubernetes.io/psp": "x"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default", NodeName: "", SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, RunAsNonRoot: &yes},
			NodeSelector: map[string]string{"pool": "control"},
			Tolerations: []corev1.Toleration{
				{Key: "control", Operator: corev1.TolerationOpExists},
				{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds},
			},
			Containers: []corev1.Container{
				{Name: "sidecar", Image: "example.test/mesh:1"},
				{
					Name: "muster", Image: "example.test/muster:7", Args: []string{"serve", "--kubernetes", "--store=$(MUSTER_STORE)"},
					Env: []corev1.EnvVar{
						{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
						{Name: "MUSTER_STORE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "url"}}},
					},
					Ports: []corev1.ContainerPort{{Name: "api", ContainerPort: 7433}, {Name: "gateway", ContainerPort: 7443}},
					VolumeMounts: []corev1.VolumeMount{
						{Name: "data", MountPath: "/data"}, {Name: "kube-api-access-x7k2p", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"},
					},
				},
			},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

func TestConsumersAreMadeAfterOurOwnPod(t *testing.T) {
	pod := planePod()
	pod.Namespace = "muster"
	d, err := consumersOf(pod, Key{"team", "agents"}, "u1", 3)
	if err != nil {
		t.Fatal(err)
	}
	if got := *d.Name; !strings.HasPrefix(got, "agents-") || !strings.HasSuffix(got, "-consumers") || len(d.OwnerReferences) != 0 {
		t.Errorf("of another namespace: %s, owners %v", got, d.OwnerReferences)
	}
	spec := d.Spec.Template.Spec
	if len(spec.Containers) != 1 || *spec.Containers[0].Image != "example.test/muster:7" {
		t.Fatalf("containers %+v", spec.Containers)
	}
	c := spec.Containers[0]
	if want := []string{"consume", "--fleet=team/agents", "--kubernetes", "--store=$(MUSTER_STORE)"}; !slices.Equal(c.Args, want) {
		t.Errorf("args %q, want %q", c.Args, want)
	}
	names := []string{}
	for _, e := range c.Env {
		names = append(names, *e.Name)
	}
	if want := []string{"MUSTER_STORE", "POD_NAME", "POD_NAMESPACE", "POD_IP"}; !slices.Equal(names, want) {
		t.Errorf("env %q, want %q", names, want)
	}
	if len(c.VolumeMounts) != 1 || len(spec.Volumes) != 1 {
		t.Errorf("the account's token is mounted twice: %v %v", c.VolumeMounts, spec.Volumes)
	}
	if len(spec.Tolerations) != 1 || spec.NodeSelector["pool"] != "control" || *spec.SecurityContext.RunAsUser != 65532 || *spec.ServiceAccountName != "default" {
		t.Errorf("%+v", spec)
	}
	l := d.Spec.Template.Labels
	if l["app.kubernetes.io/name"] != "muster" || l[kube.LabelRole] != kube.RoleConsumer || l[LabelLeader] != "" || l["pod-template-hash"] != "" ||
		l[LabelConsumersNamespace] != "team" || l[LabelConsumersFleet] != "agents" || l[kube.LabelFleet] != "" {
		t.Errorf("labels %v", l)
	}
	if a := d.Spec.Template.Annotations; a["prometheus.io/scrape"] != "true" || a["kubernetes.io/psp"] != "" {
		t.Errorf("annotations %v", a)
	}
	if _, err := consumersOf(&corev1.Pod{}, Key{"team", "agents"}, "u1", 3); err == nil || !strings.Contains(err.Error(), "no container of our own pod runs `muster serve`") {
		t.Errorf("%v", err)
	}
}

func (r *fakeRunner) wants(n, live int) {
	r.do(func() { r.report.Consumers = &Consumers{Wanted: n, Live: live, Reason: "40 leases/s"} })
}

const carried = template + "consumers: {minReplicas: 2, maxReplicas: 9}"

// inPlane makes a namespace with the control plane's own pod.
func inPlane(t *testing.T, c *kubetest.Cluster) string {
	t.Helper()
	ns := c.Namespace(t)
	eventually(t, "the own pod is made", 20*time.Second, func(ctx context.Context) bool { // its account comes a moment later
		_, err := c.Client.CoreV1().Pods(ns).Create(ctx, planePod(), metav1.CreateOptions{})
		return err == nil
	})
	return ns
}

// TestConsumersDeployment: it is made, follows the number wanted, is mended, and
// goes with the fleet.
func TestConsumersDeployment(t *testing.T) {
	c := cluster(t)
	ns := inPlane(t, c)
	w, _ := setUpIn(t, c, c.Config, ns, Plane{Namespace: ns, Pod: "muster-0"})
	fleets, deployments := c.Dynamic.Resource(Resource).Namespace(ns), c.Client.AppsV1().Deployments(ns)
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "agents", carried), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a runner", 20*time.Second, func(context.Context) bool { return w.newest() != nil })
	r := w.newest()
	r.wants(2, 0)
	replicas := func(want int32) func(context.Context) bool {
		return func(ctx context.Context) bool {
			d, err := deployments.Get(ctx, "agents-consumers", metav1.GetOptions{})
			return err == nil && *d.Spec.Replicas == want && d.Spec.Template.Spec.Containers[0].Image == "example.test/muster:7"
		}
	}
	eventually(t, "two replicas", 20*time.Second, replicas(2))
	eventually(t, "the condition says that they come", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		x := condition(s, v1alpha1.ConditionConsumersReady)
		return x.Status == "False" && x.Reason == "Starting" && strings.Contains(x.Message, "0 of 2 consumers are there; 40 leases/s") && s.Summary == summaryReady
	})
	r.wants(5, 5)
	eventually(t, "five replicas", 10*time.Second, replicas(5))
	eventually(t, "the condition says that they are there", 10*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return condition(s, v1alpha1.ConditionConsumersReady).Status == "True"
	})
	drift := []byte(`{"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "muster", "image": "example.test/other:1"}]}}}}`)
	if _, err := deployments.Patch(t.Context(), "agents-consumers", types.StrategicMergePatchType, drift, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "drift is mended", 15*time.Second, replicas(5))
	d, err := deployments.Get(t.Context(), "agents-consumers", metav1.GetOptions{})
	if err != nil || len(d.OwnerReferences) != 1 || d.OwnerReferences[0].Name != "agents" {
		t.Errorf("%v, owners %v", err, d.OwnerReferences)
	}
	settled := d.ResourceVersion
	eventually(t, "nothing is written for what stays", 30*time.Second, func(ctx context.Context) bool {
		was := settled
		time.Sleep(lookEvery + time.Second)
		d, err := deployments.Get(ctx, "agents-consumers", metav1.GetOptions{})
		if err != nil {
			return false
		}
		settled = d.ResourceVersion // the Deployment's own controller may still write its status
		return was == settled
	})
	if err := fleets.Delete(t.Context(), "agents", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes with the fleet", 20*time.Second, func(ctx context.Context) bool {
		_, err := deployments.Get(ctx, "agents-consumers", metav1.GetOptions{})
		return apierrors.IsNotFound(err) && w.newest().drained
	})
}

// TestConsumersComeToAnEnd: a fleet that has none any more keeps no Deployment,
// and one of somebody else's is left alone.
func TestConsumersComeToAnEnd(t *testing.T) {
	c := cluster(t)
	ns := inPlane(t, c)
	w, _ := setUpIn(t, c, c.Config, ns, Plane{Namespace: ns, Pod: "muster-0"})
	fleets, deployments := c.Dynamic.Resource(Resource).Namespace(ns), c.Client.AppsV1().Deployments(ns)
	for _, name := range []string{"agents", "others"} {
		if _, err := fleets.Create(t.Context(), fleetOf(t, ns, name, carried), strict); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a runner", 20*time.Second, func(context.Context) bool { r := w.newest(); return r != nil && r.f.Name == name })
		if name == "others" {
			pod := planePod()
			pod.Namespace = ns
			theirs, err := consumersOf(pod, Key{ns, "others"}, "", 1)
			if err != nil {
				t.Fatal(err)
			}
			theirs.Labels = map[string]string{"of": "somebody"}
			if _, err := deployments.Apply(t.Context(), theirs, metav1.ApplyOptions{FieldManager: "somebody", Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		w.newest().wants(2, 2)
	}
	eventually(t, "it is there", 20*time.Second, func(ctx context.Context) bool {
		_, err := deployments.Get(ctx, "agents-consumers", metav1.GetOptions{})
		return err == nil
	})
	eventually(t, "the other one is not ours", 20*time.Second, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "others")
		x := condition(s, v1alpha1.ConditionConsumersReady)
		return x.Status == "False" && x.Reason == "NotOurs" && s.Summary == summaryDegraded
	})
	patch(t, c, ns, "agents", map[string]any{"consumers": nil})
	eventually(t, "it is gone", 20*time.Second, func(ctx context.Context) bool {
		_, err := deployments.Get(ctx, "agents-consumers", metav1.GetOptions{})
		s, _ := statusIn(ctx, c, ns, "agents")
		return apierrors.IsNotFound(err) && condition(s, v1alpha1.ConditionConsumersReady).Type == ""
	})
	if _, err := deployments.Get(t.Context(), "others-consumers", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// TestConsumersWithoutTheRight: the condition names the right that is missing.
func TestConsumersWithoutTheRight(t *testing.T) {
	c := cluster(t)
	ns := inPlane(t, c)
	fleets := rbacv1.PolicyRule{APIGroups: []string{"muster.dev"}, Resources: []string{"fleets", "fleets/status"}, Verbs: []string{"get", "list", "watch", "update", "patch"}}
	grant(t, c, ns, []rbacv1.PolicyRule{fleets})
	w, _ := setUpIn(t, c, c.ServiceAccountConfig(t, ns, "muster"), ns, Plane{Namespace: ns, Pod: "muster-0"})
	if _, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), fleetOf(t, ns, "agents", carried), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a runner", 60*time.Second, func(context.Context) bool { return w.newest() != nil })
	w.newest().wants(2, 0)
	says := func(what string) func(context.Context) bool {
		return func(ctx context.Context) bool {
			s, _ := statusIn(ctx, c, ns, "agents")
			x, d := condition(s, v1alpha1.ConditionConsumersReady), condition(s, v1alpha1.ConditionDegraded)
			return x.Status == "False" && x.Reason == "Forbidden" && strings.Contains(x.Message, what) && d.Status == "True"
		}
	}
	eventually(t, "the right to get is named", 20*time.Second, says("may not get deployments.apps in namespace "+ns))
	look := rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get"}}
	grant(t, c, ns, []rbacv1.PolicyRule{fleets, look})
	eventually(t, "the right to read our pod is named", 20*time.Second, says("may not get pods in namespace "+ns))
	pods := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}
	grant(t, c, ns, []rbacv1.PolicyRule{fleets, look, pods})
	eventually(t, "the right to make one is named", 20*time.Second, says("may not create and patch deployments.apps in namespace "+ns))
	look.Verbs = []string{"get", "create", "patch", "delete"}
	grant(t, c, ns, []rbacv1.PolicyRule{fleets, look, pods})
	eventually(t, "it is made", 20*time.Second, func(ctx context.Context) bool {
		_, err := c.Client.AppsV1().Deployments(ns).Get(ctx, "agents-consumers", metav1.GetOptions{})
		return err == nil
	})
}
