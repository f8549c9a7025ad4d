package kube

import (
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	apply "k8s.io/client-go/applyconfigurations/networking/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// metadataV4 and metadataV6 are where clouds answer questions about a machine
// and its credentials; no sandbox may ask.
const (
	metadataV4 = "169.254.169.254/32"
	metadataV6 = "fd00:ec2::254/128"
)

// ensurePolicies makes or corrects the fleet's two policies. There is no
// sandbox without them: an error ends New.
func (s *Sandboxes) ensurePolicies(ctx context.Context) error {
	for _, p := range []*apply.NetworkPolicyApplyConfiguration{s.o.closedPolicy(), s.o.openPolicy()} {
		err := s.try(ctx, "patch networkpolicies", func(rc context.Context) error {
			_, err := s.o.Client.NetworkingV1().NetworkPolicies(s.o.Namespace).Apply(rc, p,
				metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
			return err
		})
		if err != nil {
			return fmt.Errorf("the network policy of fleet %s: %w", s.o.Fleet, err)
		}
	}
	return nil
}

// policyName is a name for a policy of the fleet.
func (o Options) policyName(kind string) string {
	return "muster-" + strings.ToLower(strings.NewReplacer("_", "-").Replace(o.Fleet)) + "-" + kind
}

func (o Options) policy(kind string, extra map[string]string) *apply.NetworkPolicyApplyConfiguration {
	pods := o.selector()
	for k, v := range extra {
		pods[k] = v
	}
	p := apply.NetworkPolicy(o.policyName(kind), o.Namespace).
		WithLabels(map[string]string{kube.LabelOwner: kube.Owner, kube.LabelFleet: o.Fleet}).
		WithSpec(apply.NetworkPolicySpec().
			WithPodSelector(applymetav1.LabelSelector().WithMatchLabels(pods)))
	if w := o.Owner; w != nil {
		p.WithOwnerReferences(applymetav1.OwnerReference().
			WithAPIVersion(w.APIVersion).WithKind(w.Kind).WithName(w.Name).WithUID(w.UID))
	}
	return p
}

// pods are the labels of those who take runners: the control plane's pods and,
// where those are named by their role, those of consumers.
func (d Door) pods() []map[string]string {
	all := []map[string]string{d.Labels}
	if d.Labels[kube.LabelRole] == kube.RoleControl {
		consumers := maps.Clone(d.Labels)
		consumers[kube.LabelRole] = kube.RoleConsumer
		all = append(all, consumers)
	}
	return all
}

// closedPolicy lets sandboxes reach the gateway and nothing else, and nobody
// reach them.
func (o Options) closedPolicy() *apply.NetworkPolicyApplyConfiguration {
	p := o.policy("sandboxes", nil)
	to := apply.NetworkPolicyEgressRule().WithPorts(apply.NetworkPolicyPort().
		WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(o.Door.Port)))
	if len(o.Door.Labels) > 0 {
		ns := o.Door.Namespace
		if ns == "" {
			ns = o.Namespace
		}
		for _, pods := range o.Door.pods() {
			to.WithTo(apply.NetworkPolicyPeer().
				WithNamespaceSelector(applymetav1.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: ns})).
				WithPodSelector(applymetav1.LabelSelector().WithMatchLabels(pods)))
		}
	}
	for _, c := range o.Door.CIDRs {
		to.WithTo(apply.NetworkPolicyPeer().WithIPBlock(apply.IPBlock().WithCIDR(c)))
	}
	p.Spec.WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress).WithEgress(to)
	return p
}

// openPolicy adds everything but the clouds' metadata, for sandboxes of network
// mode open.
func (o Options) openPolicy() *apply.NetworkPolicyApplyConfiguration {
	p := o.policy("open", map[string]string{labelNetwork: string(fleet.NetworkOpen)})
	p.Spec.WithPolicyTypes(networkingv1.PolicyTypeEgress).WithEgress(apply.NetworkPolicyEgressRule().WithTo(
		apply.NetworkPolicyPeer().WithIPBlock(apply.IPBlock().WithCIDR("0.0.0.0/0").WithExcept(metadataV4)),
		apply.NetworkPolicyPeer().WithIPBlock(apply.IPBlock().WithCIDR("::/0").WithExcept(metadataV6)),
	))
	return p
}
