// Package virtual is an adapter of fleet.Nodes that only counts: the nodes that
// Muster would have, where something else brings them (a node autoscaler that
// follows the workers) or nothing does (shadow mode). A node is ready when the
// assumed boot time is over. It may import fleet only.
package virtual

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Options shape the nodes.
type Options struct {
	Node  fleet.Node       // capacity of each; its other fields are not used
	Boot  time.Duration    // request to ready
	Max   int              // most at once; 0: no bound
	Clock func() time.Time // default: time.Now
}

// Nodes implements fleet.Nodes. A restart begins with none.
type Nodes struct {
	o     Options
	mu    sync.Mutex
	seq   int
	nodes []fleet.Node
}

var _ fleet.Nodes = (*Nodes)(nil)

// New returns an empty fleet of nodes.
func New(o Options) *Nodes {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Nodes{o: o}
}

// List implements fleet.Nodes.
func (n *Nodes) List(ctx context.Context) ([]fleet.Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot()
	return append([]fleet.Node{}, n.nodes...), ctx.Err()
}

// boot makes those ready whose boot time is over; the lock must be held.
func (n *Nodes) boot() {
	now := n.o.Clock()
	for i := range n.nodes {
		x := &n.nodes[i]
		if ready := x.RequestedAt.Add(n.o.Boot); x.State == fleet.NodeBooting && !ready.After(now) {
			x.State, x.ReadyAt = fleet.NodeReady, ready
		}
	}
}

// Scale implements fleet.Nodes. Fewer gives up what still boots; what is ready
// goes by Release, by name.
func (n *Nodes) Scale(ctx context.Context, nodes int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case nodes < 0:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", nodes), Right: "0 or more"}
	case n.o.Max > 0 && nodes > n.o.Max:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", nodes), Right: fmt.Sprintf("at most %d", n.o.Max)}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot()
	for i := len(n.nodes) - 1; i >= 0 && len(n.nodes) > nodes; i-- {
		if n.nodes[i].State == fleet.NodeBooting {
			n.nodes = slices.Delete(n.nodes, i, i+1)
		}
	}
	for len(n.nodes) < nodes {
		n.seq++
		x := n.o.Node
		x.ID, x.State, x.RequestedAt = fleet.NodeID(fmt.Sprintf("virtual-%05d", n.seq)), fleet.NodeBooting, n.o.Clock()
		n.nodes = append(n.nodes, x)
	}
	return nil
}

func (n *Nodes) set(ctx context.Context, id fleet.NodeID, from, to fleet.NodeState) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot()
	for i := range n.nodes {
		if x := &n.nodes[i]; x.ID == id {
			if x.State == from {
				x.State = to
			}
			return nil
		}
	}
	return fmt.Errorf("node %s: %w", id, fleet.ErrNotFound)
}

// Cordon implements fleet.Nodes.
func (n *Nodes) Cordon(ctx context.Context, id fleet.NodeID) error {
	return n.set(ctx, id, fleet.NodeReady, fleet.NodeCordoned)
}

// Uncordon implements fleet.Nodes.
func (n *Nodes) Uncordon(ctx context.Context, id fleet.NodeID) error {
	return n.set(ctx, id, fleet.NodeCordoned, fleet.NodeReady)
}

// Release implements fleet.Nodes.
func (n *Nodes) Release(ctx context.Context, id fleet.NodeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.nodes {
		if n.nodes[i].ID == id {
			n.nodes = append(n.nodes[:i], n.nodes[i+1:]...)
			return nil
		}
	}
	return nil
}
