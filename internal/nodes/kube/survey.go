package kube

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// boot is a node that was asked for.
type boot struct {
	id   string
	at   time.Time // asked for
	node string    // that came for it and is being taken into service
}

// survey is the fleet's nodes at one moment.
type survey struct {
	listed   []fleet.Node      // ordered by id
	fresh    []*machine        // ready, and not yet held
	coming   []*machine        // never ready yet
	released []*machine        // given back, and still there
	byBoot   map[string]string // the node that came, or is coming, for a boot
	guessed  map[string]bool   // nodes of which that is told by their age alone
	astray   []boot            // boots that got a node which is in service already
}

// mine tells whether a node is the fleet's.
func (n *Nodes) mine(m *machine) bool {
	for k, v := range n.o.Selector {
		if m.labels[k] != v {
			return false
		}
	}
	return true
}

// survey looks at every node; the lock must be held.
func (n *Nodes) survey() *survey {
	s := &survey{listed: []fleet.Node{}}
	n.watch.nodes.each(func(m *machine) bool {
		if n.mine(m) {
			n.sort(s, m)
		}
		return true
	})
	byAge := func(a, b *machine) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.key, b.key)) }
	for _, l := range [][]*machine{s.fresh, s.coming, s.released} {
		slices.SortFunc(l, byAge)
	}
	own := n.match(s)
	worth := n.o.worth()
	for _, b := range n.boots {
		x := fleet.Node{
			ID: fleet.NodeID(b.id), State: fleet.NodeBooting, RequestedAt: b.at,
			MilliCPU: worth.cpu, MemoryBytes: worth.memory, DiskBytes: worth.disk, Slots: n.o.Slots,
		}
		if node := s.byBoot[b.id]; node != "" {
			x.Message = "node " + node + " came for it"
		}
		s.listed = append(s.listed, x)
	}
	for _, m := range own {
		x := n.node(m, nil)
		x.State, x.ReadyAt, x.Message = fleet.NodeBooting, time.Time{}, m.unready
		if m.ready {
			x.Message = "about to be taken into service"
		}
		s.listed = append(s.listed, x)
	}
	slices.SortFunc(s.listed, func(a, b fleet.Node) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// sort puts a node where it belongs.
func (n *Nodes) sort(s *survey, m *machine) {
	_, held := n.watch.used.of(m.key, n.o.key())
	serves := held != nil || n.o.Headroom == HeadroomNone
	x := n.node(m, held)
	switch {
	case m.released():
		s.released = append(s.released, m)
		return
	case m.leaving != "":
		x.State, x.Message = fleet.NodeDraining, m.leaving
	case !m.ready && (held != nil || m.lost):
		// Its sandboxes may come back with it; nothing new begins there.
		x.State, x.Message = fleet.NodeDraining, "not ready: "+m.unready
	case !m.ready:
		s.coming = append(s.coming, m)
		return
	case m.closed && m.mark == "":
		// Whoever closed it decides about it: it is neither opened nor given back.
		x.State, x.Message = fleet.NodeDraining, "cordoned by hand"
	case !serves:
		s.fresh = append(s.fresh, m)
		return
	case m.closed:
		x.State = fleet.NodeCordoned
	}
	s.listed = append(s.listed, x)
}

// node is what a node has for sandboxes, ready; held may be nil.
func (n *Nodes) node(m *machine, held *pod) fleet.Node {
	taken, _ := n.watch.used.of(m.key, n.o.key())
	free := m.size.minus(taken.size)
	x := fleet.Node{
		ID: fleet.NodeID(m.key), State: fleet.NodeReady,
		MilliCPU: max(0, free.cpu), MemoryBytes: max(0, free.memory), DiskBytes: max(0, free.disk),
		Slots:       int(max(0, min(int64(n.o.Slots), m.pods-taken.pods))),
		RequestedAt: m.created, ReadyAt: m.created, Kind: kindOf(m.labels),
	}
	if reserved := m.whole.minus(m.size); m.whole.cpu > 0 && m.whole.memory > 0 {
		x.TotalMilliCPU, x.TotalMemoryBytes = x.MilliCPU+max(0, reserved.cpu), x.MemoryBytes+max(0, reserved.memory)
	}
	if held == nil {
		return x
	}
	if h := held.hold; !h.requested.IsZero() && !h.ready.Before(h.requested) {
		x.RequestedAt, x.ReadyAt = h.requested, h.ready
		if h.boot != m.key {
			x.BootID = fleet.NodeID(h.boot)
		}
	}
	return x
}

// skew is how far the times at which a node is asked for and made may be apart
// the wrong way round: they are of two clocks, and one has whole seconds.
const skew = 2 * time.Second

// match says which node came, or is about to come, for which boot, so that no
// node is counted twice. It returns the nodes that nobody here asked for.
func (n *Nodes) match(s *survey) (own []*machine) {
	s.byBoot, s.guessed = map[string]string{}, map[string]bool{}
	free := slices.Concat(s.fresh, s.coming)
	taken := map[string]bool{}
	for _, b := range n.boots {
		node := b.node
		if node == "" {
			node = n.source.placed(b.id)
		}
		switch there := slices.ContainsFunc(free, func(m *machine) bool { return m.key == node }); {
		case there && !taken[node]:
			s.byBoot[b.id], taken[node] = node, true
		case node != "":
			s.astray = append(s.astray, b)
		}
	}
	for _, m := range free {
		if taken[m.key] {
			continue
		}
		i := slices.IndexFunc(n.boots, func(b boot) bool {
			return s.byBoot[b.id] == "" && !m.created.Before(b.at.Add(-skew))
		})
		if i < 0 {
			own = append(own, m)
			continue
		}
		s.byBoot[n.boots[i].id], s.guessed[m.key] = m.key, true
	}
	s.astray = slices.DeleteFunc(s.astray, func(b boot) bool { return s.byBoot[b.id] != "" || b.node != "" })
	return own
}

// find returns a node of the fleet by name.
func (n *Nodes) find(id fleet.NodeID) (*machine, error) {
	if _, err := n.look(); err != nil {
		return nil, err
	}
	m, ok := n.watch.nodes.get(string(id))
	if !ok || !n.mine(m) {
		return nil, fmt.Errorf("no node of this fleet has this name: %w", fleet.ErrNotFound)
	}
	return m, nil
}
