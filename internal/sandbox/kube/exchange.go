package kube

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
)

// Exchange is where the connections of runners meet their sandboxes: one per
// process, shared by the adapters of all its fleets. Its Peer is the gateway's
// Peers.
type Exchange struct {
	mu       sync.Mutex
	boxes    map[string]*box // by UID of the pod
	adapters map[*Sandboxes]bool
	learned  chan struct{} // closed and replaced when a box is added
}

// NewExchange returns an empty exchange.
func NewExchange() *Exchange {
	return &Exchange{boxes: map[string]*box{}, adapters: map[*Sandboxes]bool{}, learned: make(chan struct{})}
}

// acquaintance is how long a runner that is faster than the answer to our own
// request waits for it.
const acquaintance = 2 * time.Second

// Peer finds the sandbox of a pod. fleet.ErrNotFound for pods of namespaces
// without a fleet of ours, fleet.ErrUnavailable for those not held (yet): after
// a restart a runner may come before its sandbox was adopted, and its sandbox
// may be another process's. It waits only for those that this process is about
// to know. gateway.ErrSpent for a one-time identity where the sandbox was
// adopted: its runner has its session.
func (e *Exchange) Peer(ctx context.Context, id gateway.Identity) (gateway.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, acquaintance)
	defer cancel()
	for {
		e.mu.Lock()
		b, learned := e.boxes[id.UID], e.learned
		e.mu.Unlock()
		served, expected := e.expects(id)
		switch {
		case b != nil && id.Pod != "" && b.attempt == "":
			return nil, fmt.Errorf("pod %s/%s was adopted: %w", id.Namespace, id.Pod, gateway.ErrSpent)
		case b != nil:
			return b, nil
		case id.Pod == "": // it has been here before; the next try is soon
			return nil, fmt.Errorf("pod %s is not known (yet): %w", id.UID, fleet.ErrUnavailable)
		case !served:
			return nil, fmt.Errorf("pod %s/%s: %w", id.Namespace, id.Pod, fleet.ErrNotFound)
		case !expected:
			return nil, fmt.Errorf("pod %s/%s is not held here (yet): %w", id.Namespace, id.Pod, fleet.ErrUnavailable)
		}
		select {
		case <-learned:
		case <-ctx.Done():
			return nil, fmt.Errorf("pod %s/%s is not known (yet): %w", id.Namespace, id.Pod, fleet.ErrUnavailable)
		}
	}
}

// serve lets an adapter's pods in, until leave.
func (e *Exchange) serve(s *Sandboxes) {
	e.mu.Lock()
	e.adapters[s] = true
	e.mu.Unlock()
}

func (e *Exchange) leave(s *Sandboxes) {
	e.mu.Lock()
	delete(e.adapters, s)
	e.mu.Unlock()
}

// expects reports whether adapters serve the namespace of a pod, and whether one
// of them makes or adopts that pod. Which pod of a warm pool it will be is not
// known before.
func (e *Exchange) expects(id gateway.Identity) (served, expected bool) {
	e.mu.Lock()
	adapters := slices.Collect(maps.Keys(e.adapters))
	e.mu.Unlock()
	for _, s := range adapters {
		if s.o.Namespace != id.Namespace {
			continue
		}
		served = true
		s.mu.Lock()
		_, made := s.boxes[fleet.SandboxID(id.Pod)]
		s.mu.Unlock()
		expected = expected || made || s.follower != nil
	}
	return served, expected
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
