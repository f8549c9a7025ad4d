package kube

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
)

// Exchange is where the connections of runners meet their sandboxes: one per
// process, shared by the adapters of all its fleets. Its Peer is the gateway's
// Peers.
type Exchange struct {
	mu      sync.Mutex
	boxes   map[string]*box // by UID of the pod
	places  map[string]int  // adapters by namespace
	learned chan struct{}   // closed and replaced when a box is added
}

// NewExchange returns an empty exchange.
func NewExchange() *Exchange {
	return &Exchange{boxes: map[string]*box{}, places: map[string]int{}, learned: make(chan struct{})}
}

// acquaintance is how long a runner that is faster than the answer to our own
// request waits for it.
const acquaintance = 2 * time.Second

// Peer finds the sandbox of a pod. fleet.ErrNotFound for pods of namespaces
// without a fleet of ours, fleet.ErrUnavailable for those not known yet: after
// a restart a runner may come before its sandbox was adopted.
func (e *Exchange) Peer(ctx context.Context, id gateway.Identity) (gateway.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, acquaintance)
	defer cancel()
	for {
		e.mu.Lock()
		b, served, learned := e.boxes[id.UID], e.places[id.Namespace] > 0, e.learned
		e.mu.Unlock()
		switch {
		case b != nil:
			return b, nil
		case id.Pod != "" && !served:
			return nil, fmt.Errorf("pod %s/%s: %w", id.Namespace, id.Pod, fleet.ErrNotFound)
		case id.Pod == "": // it has been here before; the next try is soon
			return nil, fmt.Errorf("pod %s is not known (yet): %w", id.UID, fleet.ErrUnavailable)
		}
		select {
		case <-learned:
		case <-ctx.Done():
			return nil, fmt.Errorf("pod %s/%s is not known (yet): %w", id.Namespace, id.Pod, fleet.ErrUnavailable)
		}
	}
}

func (e *Exchange) serve(namespace string, n int) {
	e.mu.Lock()
	e.places[namespace] += n
	e.mu.Unlock()
}

func (e *Exchange) add(uid string, b *box) {
	e.mu.Lock()
	e.boxes[uid] = b
	close(e.learned)
	e.learned = make(chan struct{})
	e.mu.Unlock()
}

func (e *Exchange) remove(uid string, b *box) {
	e.mu.Lock()
	if e.boxes[uid] == b {
		delete(e.boxes, uid)
	}
	e.mu.Unlock()
}

func (e *Exchange) find(uid string) *box {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.boxes[uid]
}

var _ gateway.Peer = (*box)(nil)

// Link implements gateway.Peer.
func (b *box) Link(c net.Conn) error { return b.links.Deliver(c) }

// Egress implements gateway.Peer.
func (b *box) Egress(c net.Conn) error {
	if b.outs == nil {
		return fmt.Errorf("the network of this sandbox is %s: %w", b.spec.Network.Mode, fleet.ErrDenied)
	}
	return b.outs.Deliver(c)
}
