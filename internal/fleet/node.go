package fleet

import (
	"context"
	"time"
)

// NodeState is where a node is in its life.
type NodeState string

// The states of a node.
const (
	NodeBooting  NodeState = "booting"
	NodeReady    NodeState = "ready"
	NodeCordoned NodeState = "cordoned" // takes no new sandboxes; may be un-cordoned
	NodeDraining NodeState = "draining" // takes none either, and others decide about it
	NodeGone     NodeState = "gone"
)

// Node is a machine that carries sandboxes.
type Node struct {
	ID          NodeID    `json:"id"`
	State       NodeState `json:"state"`
	MilliCPU    int64     `json:"milliCPU"`    // allocatable to sandboxes
	MemoryBytes int64     `json:"memoryBytes"` // allocatable to sandboxes
	DiskBytes   int64     `json:"diskBytes"`   // free for sandboxes
	Slots       int       `json:"slots"`       // most sandboxes at once
	RequestedAt time.Time `json:"requestedAt"`
	ReadyAt     time.Time `json:"readyAt,omitzero"`
	// BootID is the id that the node had while it booted, where that was
	// another: what is asked for has no name before it is there.
	BootID NodeID `json:"bootID,omitempty"`
	// TotalMilliCPU and TotalMemoryBytes are what the machine has in the same
	// measure, the part kept for itself included; 0: not known.
	TotalMilliCPU    int64 `json:"totalMilliCPU,omitempty"`
	TotalMemoryBytes int64 `json:"totalMemoryBytes,omitempty"`
	// Kind is what its price depends on.
	Kind NodeKind `json:"kind,omitzero"`
	// Message says why the node is in its state, where that is not plain.
	Message string `json:"message,omitempty"`
}

// NodeKind is what the price of a node depends on; empty parts are not known.
type NodeKind struct {
	Group        string `json:"group,omitempty"`        // as its provider calls it: a node group, a node pool
	InstanceType string `json:"instanceType,omitempty"` // m7i.4xlarge
	Capacity     string `json:"capacity,omitempty"`     // on-demand, spot, reserved
}

// Nodes brings and returns machines. All methods are idempotent by id.
type Nodes interface {
	// List returns every node, booting ones included.
	List(ctx context.Context) ([]Node, error)
	// Scale asks for this many nodes in all; ErrInvalid when the provider
	// cannot (one fixed host).
	Scale(ctx context.Context, nodes int) error
	// Cordon stops new sandboxes on a node; Uncordon allows them again.
	Cordon(ctx context.Context, id NodeID) error
	Uncordon(ctx context.Context, id NodeID) error
	// Release returns an empty node. ErrConflict: it is not empty.
	Release(ctx context.Context, id NodeID) error
}

// BootFailures is a Nodes that knows of each boot that ended without a node
// whether it failed. Without it every one that vanishes counts as failed.
type BootFailures interface {
	// BootFailure says why a boot that List no longer has failed; empty: it did
	// not, it was given up. Does not block; may be repeated.
	BootFailure(id NodeID) string
}

// Watcher is a port that tells of changes, so that nobody need wait for the
// next look.
type Watcher interface {
	// Changed receives after a change, several as one. It is the same channel
	// each time, for one listener.
	Changed() <-chan struct{}
}
