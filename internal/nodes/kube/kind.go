package kube

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
)

// groupLabels name the node group or node pool of a node, by its provider:
// Karpenter's well-known labels, and those that EKS, GKE and AKS document.
var groupLabels = []string{"karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup", "cloud.google.com/gke-nodepool", "kubernetes.azure.com/agentpool"}

// kindOf is what the labels of a node say about its price.
func kindOf(labels map[string]string) fleet.NodeKind {
	k := fleet.NodeKind{InstanceType: labels[corev1.LabelInstanceTypeStable]}
	for _, l := range groupLabels {
		k.Group = cmp.Or(k.Group, labels[l])
	}
	// Karpenter says spot, on-demand or reserved; EKS SPOT or ON_DEMAND; AKS spot
	// or regular; GKE true for one that is.
	said := cmp.Or(labels["karpenter.sh/capacity-type"], labels["eks.amazonaws.com/capacityType"], labels["kubernetes.azure.com/scalesetpriority"])
	switch strings.ToLower(said) {
	case "spot":
		k.Capacity = "spot"
	case "reserved", "capacity_block":
		k.Capacity = "reserved"
	case "on-demand", "on_demand", "regular":
		k.Capacity = "on-demand"
	}
	if labels["cloud.google.com/gke-spot"] == "true" || labels["cloud.google.com/gke-preemptible"] == "true" {
		k.Capacity = "spot"
	}
	return k
}
