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
	NodeDraining NodeState = "draining"
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
	// Release returns an empty node.
	Release(ctx context.Context, id NodeID) error
}
