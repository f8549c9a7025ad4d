package kube_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/kube"
)

func TestThePodIsConfinedAndHasNoSecret(t *testing.T) {
	c := newCluster(t)
	if err := c.client.Tracker().Add(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc"}); err != nil {
		t.Fatal(err)
	}
	s := c.opened(t, func(o *kube.Options) { o.Pods.UserNamespaces = true })
	spec := specOf()
	spec.Network = fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"example.com"}}
	iso, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if iso.Runtime != fleet.RuntimeGVisor || !iso.UserNamespace || iso.Node != nodeName || iso.Network != fleet.NetworkProxy || !iso.Seccomp {
		t.Errorf("isolation %+v", iso)
	}
	if !slices.ContainsFunc(iso.Lost, func(l string) bool { return strings.Contains(l, "podPidsLimit") }) {
		t.Errorf("lost %q", iso.Lost)
	}
	p := c.pod(t, spec.ID).Spec
	agent, installer := p.Containers[0], p.InitContainers[0]
	for _, v := range agent.VolumeMounts {
		if v.Name == "identity" {
			t.Error("the agent's container sees the token's volume")
		}
	}
	for _, k := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q := agent.Resources.Limits[k]; !q.Equal(agent.Resources.Requests[k]) || q.IsZero() {
			t.Errorf("%s: %v", k, agent.Resources)
		}
	}
	if *p.AutomountServiceAccountToken || *p.HostUsers || *p.RuntimeClassName != "sandboxed" || p.DNSPolicy != corev1.DNSNone ||
		p.HostAliases[0].Hostnames[0] != "gateway.muster" || !*p.SecurityContext.RunAsNonRoot {
		t.Errorf("pod %+v", p)
	}
	for _, x := range []corev1.Container{agent, installer} {
		if c := x.SecurityContext; *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || c.Capabilities.Drop[0] != "ALL" {
			t.Errorf("container %s: %+v", x.Name, c)
		}
	}
}

func TestTheNetworkIsClosedBeforeTheFirstSandbox(t *testing.T) {
	c := newCluster(t)
	wrong := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "muster-coders-sandboxes", Namespace: namespace},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}
	if _, err := c.client.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), wrong, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.opened(t)
	closed, err := c.client.NetworkingV1().NetworkPolicies(namespace).Get(t.Context(), "muster-coders-sandboxes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(closed.Spec.PolicyTypes) != 2 || len(closed.Spec.Ingress) != 0 || len(closed.Spec.Egress) != 1 ||
		closed.Spec.Egress[0].Ports[0].Port.IntValue() != 8443 || closed.Spec.PodSelector.MatchLabels["muster.dev/fleet"] != "coders" {
		t.Errorf("%+v", closed.Spec)
	}
	open, err := c.client.NetworkingV1().NetworkPolicies(namespace).Get(t.Context(), "muster-coders-open", metav1.GetOptions{})
	if err != nil || open.Spec.PodSelector.MatchLabels["muster.dev/network"] != "open" || len(open.Spec.Ingress) > 0 {
		t.Errorf("%+v, %v", open, err)
	}
}

// TestSandboxesReachConsumers: those carry the labels of the control plane's pods
// and a role of their own; nobody else in that namespace is reached.
func TestSandboxesReachConsumers(t *testing.T) {
	c := newCluster(t)
	c.opened(t, func(o *kube.Options) {
		o.Door.Namespace, o.Door.Labels = "muster", map[string]string{"app.kubernetes.io/instance": "m", "muster.dev/role": "control"}
	})
	closed, err := c.client.NetworkingV1().NetworkPolicies(namespace).Get(t.Context(), "muster-coders-sandboxes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reached := func(pod labels.Set) bool {
		for _, to := range closed.Spec.Egress[0].To {
			ns := to.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]
			if s, err := metav1.LabelSelectorAsSelector(to.PodSelector); err == nil && ns == "muster" && s.Matches(pod) {
				return true
			}
		}
		return false
	}
	for role, want := range map[string]bool{"control": true, "consumer": true, "sandbox": false, "seat": false, "": false} {
		if got := reached(labels.Set{"app.kubernetes.io/instance": "m", "muster.dev/role": role}); got != want {
			t.Errorf("a pod of role %q is reached: %v", role, got)
		}
		if reached(labels.Set{"app.kubernetes.io/instance": "another", "muster.dev/role": role}) {
			t.Errorf("a pod of another release, role %q, is reached", role)
		}
	}
}
