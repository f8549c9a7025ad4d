package kube

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// Headroom is how nodes are asked for ahead of need.
type Headroom string

// The ways to ask for nodes.
const (
	// HeadroomAuto is buffer where its API is served, else placeholder.
	HeadroomAuto Headroom = "auto"
	// HeadroomBuffer is a CapacityBuffer (autoscaling.x-k8s.io/v1beta1), which
	// Cluster Autoscaler obeys.
	HeadroomBuffer Headroom = "buffer"
	// HeadroomPlaceholder is one pending pod for each node, which every node
	// autoscaler obeys.
	HeadroomPlaceholder Headroom = "placeholder"
	// HeadroomKarpenter is the replicas of a static NodePool of Karpenter.
	HeadroomKarpenter Headroom = "karpenter"
	// HeadroomNone asks for none: the nodes are what they are.
	HeadroomNone Headroom = "none"
)

// Options say which nodes of a cluster are a fleet's, and how they come.
type Options struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface // needed with buffer, karpenter and auto
	// Watch is shared by the fleets of a process, whose owner runs it; nil: one
	// of our own.
	Watch *Watch

	Fleet     string // names the fleet in labels
	Namespace string // where our pods are
	// Selector are the labels of the fleet's nodes; at least one.
	Selector map[string]string
	// Dedicated says that nothing but agents may run there; see Trespasses.
	Dedicated bool
	// Tolerations of our pods; default: the taint of agents' nodes.
	Tolerations []corev1.Toleration

	// Slots is the most sandboxes a node takes; default 8. Slot is what one of
	// them asks for. Slots of them are one node's worth: what is asked for.
	Slots int
	Slot  fleet.Resources
	// Max is the most nodes at once; 0: no bound.
	Max int

	Headroom Headroom // default auto
	// NodePool is the static NodePool to size, with HeadroomKarpenter.
	NodePool string
	// PriorityClass of pods that only ask for a node. Its value must be
	// negative, so that sandboxes push them out, and not below -10, where Cluster
	// Autoscaler begins to ignore pods. Empty: none.
	PriorityClass string
	// Image and Command are what our pods run; it need do nothing but wait.
	// Image is needed but with HeadroomNone.
	Image   string
	Command []string
	// Patience is how long a node may take from request to ready; default 10
	// min. One that takes longer is given up and counts as failed.
	Patience time.Duration

	Clock  func() time.Time // default time.Now
	Logger *slog.Logger     // default: discard
}

// key is our fleet's.
func (o *Options) key() string { return fleetKey(o.Namespace, o.Fleet) }

// mostPatience bounds Patience: longer, and a stock-out is not seen as one.
const mostPatience = 2 * time.Hour

func (o *Options) complete() error {
	if o.Headroom == "" {
		o.Headroom = HeadroomAuto
	}
	if o.Slots == 0 {
		o.Slots = 8
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Tolerations == nil {
		o.Tolerations = []corev1.Toleration{{Key: kube.TaintDedicated, Operator: corev1.TolerationOpExists}}
	}
	return o.check()
}

func (o *Options) check() error {
	wrong := func(field, wrong, right string) error {
		return &fleet.FieldError{Field: "nodes." + field, Wrong: wrong, Right: right}
	}
	asks := o.Headroom != HeadroomNone
	ways := []Headroom{HeadroomAuto, HeadroomBuffer, HeadroomPlaceholder, HeadroomKarpenter, HeadroomNone}
	switch {
	case !slices.Contains(ways, o.Headroom):
		return wrong("headroom", fmt.Sprintf("%q is unknown", o.Headroom), fmt.Sprint(ways))
	case o.Client == nil:
		return wrong("client", "none is given", "a client of the API server")
	case o.Fleet == "" || o.Namespace == "":
		return wrong("fleet", "the fleet or its namespace has no name", "both")
	case len(o.Selector) == 0:
		return wrong("selector", "it is empty, so that every node of the cluster would be the fleet's", "a label of the nodes for agents, such as muster.dev/fleet: coding")
	case o.Slots < 0:
		return wrong("slots", fmt.Sprintf("%d is negative", o.Slots), "how many sandboxes a node takes, such as 8")
	case o.Max < 0:
		return wrong("max", fmt.Sprintf("%d is negative", o.Max), "the most nodes at once, or 0 for no bound")
	case o.Patience < time.Second || o.Patience > mostPatience:
		return wrong("patience", o.Patience.String(), "1s to "+mostPatience.String())
	case asks && o.Image == "":
		return wrong("image", "none is given", "an image that waits, such as that of the control plane")
	case asks && (o.Slot.MilliCPU <= 0 || o.Slot.MemoryBytes <= 0):
		return wrong("slot", "it asks for no processor time or no memory", "what one sandbox asks for, such as 1 cpu and 2Gi")
	case asks && o.Headroom != HeadroomPlaceholder && o.Dynamic == nil:
		return wrong("headroom", "there is no dynamic client for it", "one, or placeholder")
	case o.Headroom == HeadroomKarpenter && o.NodePool == "":
		return wrong("nodePool", "none is named", "the name of a NodePool that has replicas")
	}
	return nil
}

// worth is what one node's worth of sandboxes asks for.
func (o *Options) worth() size {
	n := int64(o.Slots)
	return size{n * o.Slot.MilliCPU, n * o.Slot.MemoryBytes, n * o.Slot.DiskBytes}
}

// source chooses how nodes are asked for.
func (o *Options) source(ctx context.Context, n *Nodes) (source, error) {
	switch o.Headroom {
	case HeadroomPlaceholder:
		return &placeholders{o: o, w: n.watch}, nil
	case HeadroomBuffer:
		return newBuffer(o), nil
	case HeadroomKarpenter:
		return newPool(o), nil
	case HeadroomNone:
		return nothing{}, nil
	case HeadroomAuto:
		b := newBuffer(o)
		served, err := b.served(ctx)
		if err != nil {
			return nil, err
		}
		if served {
			return b, nil
		}
		return &placeholders{o: o, w: n.watch}, nil
	}
	return nil, fmt.Errorf("headroom %q: %w", o.Headroom, fleet.ErrInvalid)
}
