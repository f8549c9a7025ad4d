package kube

import (
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		labels map[string]string
		want   fleet.NodeKind
	}{
		{nil, fleet.NodeKind{}},
		{map[string]string{"karpenter.sh/nodepool": "agents", "karpenter.sh/capacity-type": "spot", "node.kubernetes.io/instance-type": "m7i.large"},
			fleet.NodeKind{Group: "agents", InstanceType: "m7i.large", Capacity: "spot"}},
		{map[string]string{"eks.amazonaws.com/nodegroup": "g", "eks.amazonaws.com/capacityType": "ON_DEMAND"}, fleet.NodeKind{Group: "g", Capacity: "on-demand"}},
		{map[string]string{"cloud.google.com/gke-nodepool": "p", "cloud.google.com/gke-spot": "true"}, fleet.NodeKind{Group: "p", Capacity: "spot"}},
		{map[string]string{"kubernetes.azure.com/agentpool": "a", "kubernetes.azure.com/scalesetpriority": "regular"}, fleet.NodeKind{Group: "a", Capacity: "on-demand"}},
	} {
		if got := kindOf(tt.labels); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.labels, got, tt.want)
		}
	}
}
