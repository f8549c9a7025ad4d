package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Nodes implements fleet.Nodes, fleet.BootFailures, fleet.Watcher and
// fleet.Dedication. One process at a time may use it for a fleet: whoever leads.
// Until Run has read the cluster its methods return ErrUnavailable.
type Nodes struct {
	o      Options
	watch  *Watch
	own    bool          // the watch is ours to run
	op     chan struct{} // holds one: whoever writes
	change chan struct{}

	mu       sync.Mutex
	source   source
	unread   error // why nothing can be said yet
	boots    []boot
	failures map[fleet.NodeID]string
	order    []fleet.NodeID // of failures, oldest first
	version  uint64         // of the watch, that seen is of
	seen     *survey
	told     []fleet.Node         // what the listener was last told of
	sighted  map[string]time.Time // nodes that are ready and wait for the scheduler's word
}

var (
	_ fleet.Nodes        = (*Nodes)(nil)
	_ fleet.BootFailures = (*Nodes)(nil)
	_ fleet.Watcher      = (*Nodes)(nil)
)

// New returns the nodes of a fleet; Run makes them usable.
func New(o Options) (*Nodes, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	n := &Nodes{
		o: o, watch: o.Watch, op: make(chan struct{}, 1), change: make(chan struct{}, 1), failures: map[fleet.NodeID]string{},
		unread: fmt.Errorf("the nodes of fleet %s have not been read yet: %w", o.Fleet, fleet.ErrUnavailable),
	}
	if n.watch == nil {
		n.watch, n.own = NewWatch(o.Client), true
	}
	n.op <- struct{}{}
	return n, nil
}

// Changed implements fleet.Watcher.
func (n *Nodes) Changed() <-chan struct{} { return n.change }

// BootFailure implements fleet.BootFailures.
func (n *Nodes) BootFailure(id fleet.NodeID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failures[id]
}

// mostFailures is how many failed boots are remembered.
const mostFailures = 1000

// fails notes why boots failed; the lock must be held.
func (n *Nodes) fails(why map[string]string) {
	for id, w := range why {
		k := fleet.NodeID(id)
		if _, known := n.failures[k]; !known {
			n.order = append(n.order, k)
		}
		n.failures[k] = w
	}
	for len(n.order) > mostFailures {
		delete(n.failures, n.order[0])
		n.order = n.order[1:]
	}
}

// look returns the nodes as they are now.
func (n *Nodes) look() (*survey, error) {
	version, err := n.watch.at(n.o.key())
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unread != nil {
		return nil, n.unread
	}
	if n.seen == nil || n.version != version {
		n.seen, n.version = n.survey(), version
	}
	return n.seen, nil
}

// List implements fleet.Nodes. Nodes that were released and are still there are
// not listed; Scale takes them back first.
func (n *Nodes) List(ctx context.Context) ([]fleet.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	s, err := n.look()
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return slices.Clone(s.listed), nil
}

// lock waits for its turn to write.
func (n *Nodes) lock(ctx context.Context) error {
	select {
	case <-n.op:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Nodes) unlock() { n.op <- struct{}{} }

// setBoots replaces the boots; whoever writes must hold its turn.
func (n *Nodes) setBoots(boots []boot, failed map[string]string) {
	n.mu.Lock()
	n.boots, n.seen = boots, nil
	n.fails(failed)
	n.mu.Unlock()
}

// Scale implements fleet.Nodes. More: nodes that were released and are still
// there are taken back, and the rest is asked for. Fewer: what still boots is
// given up, newest first; what is ready goes by Release.
func (n *Nodes) Scale(ctx context.Context, nodes int) error {
	if err := n.bounds(nodes); err != nil {
		return err
	}
	if err := n.lock(ctx); err != nil {
		return fmt.Errorf("scale to %d nodes: %w", nodes, err)
	}
	defer n.unlock()
	s, err := n.look()
	if err == nil {
		switch there := len(s.listed); {
		case n.o.Headroom == HeadroomNone && nodes != there:
			return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for, and nothing here brings any", nodes), Right: fmt.Sprintf("%d, those there are, or another headroom than none", there)}
		case nodes > there:
			err = n.more(ctx, s, nodes-there)
		case nodes < there:
			err = n.fewer(ctx, there-nodes)
		}
	}
	if err != nil {
		return fmt.Errorf("scale to %d nodes: %w", nodes, err)
	}
	return nil
}

func (n *Nodes) bounds(nodes int) error {
	switch {
	case nodes < 0:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", nodes), Right: "0 or more"}
	case n.o.Max > 0 && nodes > n.o.Max:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", nodes), Right: fmt.Sprintf("at most %d", n.o.Max)}
	}
	return nil
}

func (n *Nodes) more(ctx context.Context, s *survey, missing int) error {
	for _, m := range s.released {
		if missing == 0 || !n.source.reusable() {
			break
		}
		if !m.ready || m.leaving != "" {
			continue
		}
		if err := n.takeBack(ctx, m); err != nil {
			return err
		}
		missing--
	}
	if missing == 0 {
		return nil
	}
	boots, err := n.source.ask(ctx, missing, slices.Clone(n.boots))
	n.setBoots(boots, nil)
	return err
}

// fewer gives up what still boots, newest first.
func (n *Nodes) fewer(ctx context.Context, surplus int) error {
	var gone, left []boot
	for i := len(n.boots) - 1; i >= 0; i-- {
		if b := n.boots[i]; len(gone) < surplus && b.node == "" {
			gone = append(gone, b)
		} else {
			left = append(left, b)
		}
	}
	slices.Reverse(left)
	return n.withdraw(ctx, gone, left, nil)
}

// withdraw gives boots up, for which nothing came.
func (n *Nodes) withdraw(ctx context.Context, gone, left []boot, failed map[string]string) error {
	if len(gone) == 0 {
		return nil
	}
	err := n.source.withdraw(ctx, gone, left)
	if err == nil {
		n.setBoots(left, failed)
	}
	return err
}

// Release implements fleet.Nodes. The node is closed first, so that nothing
// begins there while it is looked whether anything is; from then on it is its
// provider's to remove.
func (n *Nodes) Release(ctx context.Context, id fleet.NodeID) error {
	if n.o.Headroom == HeadroomNone {
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("node %s was to be given back, and nothing here takes any", id), Right: "another headroom than none"}
	}
	if err := n.lock(ctx); err != nil {
		return fmt.Errorf("release node %s: %w", id, err)
	}
	defer n.unlock()
	if err := n.release(ctx, id); err != nil {
		return fmt.Errorf("release node %s: %w", id, err)
	}
	return nil
}

func (n *Nodes) release(ctx context.Context, id fleet.NodeID) error {
	if _, err := n.look(); err != nil {
		return err
	}
	if i := slices.IndexFunc(n.boots, func(b boot) bool { return b.id == string(id) }); i >= 0 {
		left := slices.Delete(slices.Clone(n.boots), i, i+1)
		return n.withdraw(ctx, n.boots[i:i+1], left, nil)
	}
	m, ok := n.watch.nodes.get(string(id))
	if !ok || !n.mine(m) {
		return nil
	}
	if m.closed && m.mark == "" {
		return fmt.Errorf("it was cordoned by hand: %w", fleet.ErrConflict)
	}
	if !m.released() {
		if err := n.empty(ctx, m); err != nil {
			return err
		}
	}
	return n.unhold(ctx, m.key)
}

// empty closes a node and makes sure that no sandbox is on it; where one is, the
// node stays as it was.
func (n *Nodes) empty(ctx context.Context, m *machine) error {
	if err := n.mark(ctx, m.key, markReleased); err != nil {
		return err
	}
	busy, err := n.busy(ctx, m.key)
	if err == nil && busy != "" {
		err = fmt.Errorf("sandbox %s is on it: %w", busy, fleet.ErrConflict)
	}
	if err == nil {
		err = n.source.release(ctx, m.key)
	}
	if err != nil {
		before := ""
		if m.closed {
			before = m.mark
		}
		// Even when ctx has just ended: a node that is neither there nor given back
		// would be paid for and not seen.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if undone := n.mark(undo, m.key, before); undone != nil {
			n.o.Logger.Warn("a node that could not be given back stays closed until it is tried again", "node", m.key, "error", undone)
		}
	}
	return err
}
