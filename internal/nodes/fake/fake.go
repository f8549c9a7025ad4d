package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Op names a method for Inject.
type Op string

// The operations that can be made to fail.
const (
	OpList     Op = "list"
	OpScale    Op = "scale"
	OpCordon   Op = "cordon"
	OpUncordon Op = "uncordon"
	OpRelease  Op = "release"
)

// Options shape a fake.
type Options struct {
	Clock func() time.Time // default time.Now, which synctest controls
	// Boot is the time from request to ready of the nth node ever asked for,
	// from 1 on; nil means 45 s.
	Boot func(n int) time.Duration
	// Node is the capacity of each; zero fields mean 8 cores, 32 GiB, 200 GiB
	// and 8 slots.
	Node fleet.Node
	// Max bounds nodes; Scale beyond it is ErrInvalid. 0: no bound.
	Max int
	// Start is how many nodes are ready from the beginning.
	Start int
}

// DefaultBoot is the boot time where Options has none.
const DefaultBoot = 45 * time.Second

// Nodes is a fake; use New.
type Nodes struct {
	o Options

	mu     sync.Mutex
	nodes  []*machine
	asked  int // ever
	stock  int // most that can exist; negative: no bound
	inject map[Op][]error
	calls  map[Op]int
}

type machine struct {
	node     fleet.Node
	boot     time.Duration
	began    time.Time // of the boot; zero while there is no stock
	cordoned bool
}

var _ fleet.Nodes = (*Nodes)(nil)

// New returns a fake with o.Start nodes.
func New(o Options) *Nodes {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Boot == nil {
		o.Boot = func(int) time.Duration { return DefaultBoot }
	}
	orDefault(&o.Node.MilliCPU, 8000)
	orDefault(&o.Node.MemoryBytes, 32<<30)
	orDefault(&o.Node.DiskBytes, 200<<30)
	orDefault(&o.Node.Slots, 8)
	n := &Nodes{o: o, stock: -1, inject: map[Op][]error{}, calls: map[Op]int{}}
	for range o.Start {
		n.add(0)
	}
	return n
}

func orDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func (n *Nodes) add(boot time.Duration) {
	n.asked++
	m := &machine{node: n.o.Node, boot: boot}
	m.node.ID = fleet.NodeID(fmt.Sprintf("node-%05d", n.asked))
	m.node.RequestedAt = n.o.Clock()
	n.nodes = append(n.nodes, m)
	n.provide()
}

// provide begins the boot of what the stock allows, oldest request first.
func (n *Nodes) provide() {
	for i, m := range n.nodes {
		if m.began.IsZero() && (n.stock < 0 || i < n.stock) {
			m.began = n.o.Clock()
		}
	}
}

func (m *machine) readyAt() (time.Time, bool) {
	return m.began.Add(m.boot), !m.began.IsZero()
}

// at is the node as it is now.
func (m *machine) at(now time.Time) fleet.Node {
	node := m.node
	ready, began := m.readyAt()
	switch {
	case !began || ready.After(now):
		node.State = fleet.NodeBooting
	case m.cordoned:
		node.State, node.ReadyAt = fleet.NodeCordoned, ready
	default:
		node.State, node.ReadyAt = fleet.NodeReady, ready
	}
	return node
}

func (n *Nodes) enter(ctx context.Context, op Op) error {
	n.calls[op]++
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s nodes: %w", op, err)
	}
	if q := n.inject[op]; len(q) > 0 {
		n.inject[op] = q[1:]
		return q[0]
	}
	return nil
}

// List returns every node, oldest request first.
func (n *Nodes) List(ctx context.Context) ([]fleet.Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(ctx, OpList); err != nil {
		return nil, err
	}
	now := n.o.Clock()
	out := make([]fleet.Node, 0, len(n.nodes))
	for _, m := range n.nodes {
		out = append(out, m.at(now))
	}
	return out, nil
}

// Scale asks for more nodes, or gives up the newest that still boot. Nodes
// that are ready go by name alone: Release.
func (n *Nodes) Scale(ctx context.Context, want int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(ctx, OpScale); err != nil {
		return err
	}
	switch {
	case want < 0:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", want), Right: "0 or more"}
	case n.o.Max > 0 && want > n.o.Max:
		return &fleet.FieldError{Field: "nodes", Wrong: fmt.Sprintf("%d nodes were asked for", want), Right: fmt.Sprintf("at most %d", n.o.Max)}
	}
	for len(n.nodes) < want {
		n.add(n.o.Boot(n.asked + 1))
	}
	now := n.o.Clock()
	for i := len(n.nodes) - 1; i >= 0 && len(n.nodes) > want; i-- {
		if n.nodes[i].at(now).State == fleet.NodeBooting {
			n.nodes = slices.Delete(n.nodes, i, i+1)
		}
	}
	n.provide()
	return nil
}

// Cordon stops new sandboxes on a node.
func (n *Nodes) Cordon(ctx context.Context, id fleet.NodeID) error {
	return n.setCordon(ctx, OpCordon, id, true)
}

// Uncordon allows them again.
func (n *Nodes) Uncordon(ctx context.Context, id fleet.NodeID) error {
	return n.setCordon(ctx, OpUncordon, id, false)
}

func (n *Nodes) setCordon(ctx context.Context, op Op, id fleet.NodeID, on bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(ctx, op); err != nil {
		return err
	}
	for _, m := range n.nodes {
		if m.node.ID == id {
			m.cordoned = on
			return nil
		}
	}
	return fmt.Errorf("%s node %s: %w", op, id, fleet.ErrNotFound)
}

// Release returns a node; one that is gone already is no error.
func (n *Nodes) Release(ctx context.Context, id fleet.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(ctx, OpRelease); err != nil {
		return err
	}
	n.drop(id)
	return nil
}

func (n *Nodes) drop(id fleet.NodeID) {
	n.nodes = slices.DeleteFunc(n.nodes, func(m *machine) bool { return m.node.ID == id })
	n.provide()
}

// Inject makes the next calls of op fail, one with each error.
func (n *Nodes) Inject(op Op, errs ...error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inject[op] = append(n.inject[op], errs...)
}

// ErrStockOut is for tests that want Scale itself to refuse.
var ErrStockOut = fmt.Errorf("the provider has no capacity: %w", fleet.ErrUnavailable)

// SetStock bounds how many nodes can exist; those asked for beyond it stay
// booting until there is room. A negative number lifts the bound.
func (n *Nodes) SetStock(nodes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stock = nodes
	n.provide()
}

// Lose makes a node vanish, as a crash or a spot reclaim would.
func (n *Nodes) Lose(id fleet.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(id)
}

// Calls is how often op was called, failed calls included.
func (n *Nodes) Calls(op Op) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[op]
}

// Asked is how many nodes were ever asked for, those of Start included.
func (n *Nodes) Asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}
