package ledger

import (
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// grace is how much earlier than it is first seen a node may have been asked
// for and still be paid from then on. One that is older was not in the fleet
// when it was last looked.
const grace = time.Minute

// watch takes in the nodes there are at a moment. It reports whether a node
// came or went, which is to be on record at once.
func (s *Service) watch(now time.Time, nodes []fleet.Node) (news bool) {
	st := &s.m.state
	if st.Began.IsZero() {
		st.Began, st.Looked, news = now, now, true
	}
	seen := map[*life]bool{}
	for i := range nodes {
		n := &nodes[i]
		l := s.find(n)
		if l == nil {
			l = s.arrive(now, n)
			news = true
		}
		seen[l] = true
		s.follow(l, now, n)
	}
	for _, l := range st.Lives {
		if !seen[l] && l.Node.Released.IsZero() {
			l.Node.Released = later(now, l.Charged)
			news = true
		}
	}
	st.Looked = later(now, st.Looked)
	return news
}

// find is the life of a node that is not over, or that was missed by one look.
func (s *Service) find(n *fleet.Node) *life {
	for _, l := range s.m.state.Lives {
		if l.Node.ID == n.ID || n.BootID != "" && l.Node.ID == n.BootID {
			if l.Node.Released.IsZero() {
				return l
			}
			if l.Node.Requested.Equal(n.RequestedAt) && !l.Charged.After(l.Node.Released) {
				l.Node.Released = time.Time{}
				return l
			}
		}
	}
	return nil
}

// arrive begins the life of a node: paid from when it was asked for, unless it
// is older than our knowledge.
func (s *Service) arrive(now time.Time, n *fleet.Node) *life {
	st := &s.m.state
	from := n.RequestedAt
	if from.IsZero() || from.After(now) {
		from = now
	}
	if from.Before(st.Looked.Add(-grace)) {
		from = st.Looked
	}
	from = later(from, st.Began)
	l := &life{Charged: from, Node: cost.Node{ID: n.ID, Requested: n.RequestedAt}}
	if l.Node.Requested.IsZero() || l.Node.Requested.After(from) {
		l.Node.Requested = from
	}
	st.Lives = append(st.Lives, l)
	s.price(l, n.Kind)
	return l
}

// follow takes in what a node is like now.
func (s *Service) follow(l *life, now time.Time, n *fleet.Node) {
	if l.Node.ID != n.ID {
		l.Boot, l.Node.ID = l.Node.ID, n.ID
	}
	if l.Kind != n.Kind && n.Kind != (fleet.NodeKind{}) {
		s.price(l, n.Kind)
	}
	l.Node.Usable = cost.Size{MilliCPU: n.MilliCPU, MemoryBytes: n.MemoryBytes}
	l.Node.Total = cost.Size{MilliCPU: max(n.TotalMilliCPU, n.MilliCPU), MemoryBytes: max(n.TotalMemoryBytes, n.MemoryBytes)}
	switch n.State {
	case fleet.NodeBooting:
		return
	case fleet.NodeCordoned, fleet.NodeDraining:
		if l.Node.Leaving.IsZero() {
			l.Node.Leaving = now
		}
	default:
		l.Node.Leaving = time.Time{}
	}
	if l.Node.Ready.IsZero() {
		l.Node.Ready = n.ReadyAt
		if n.ReadyAt.IsZero() || n.ReadyAt.After(now) {
			l.Node.Ready = now
		}
	}
}

// price gives a life the prices in force.
func (s *Service) price(l *life, k fleet.NodeKind) {
	l.Kind = k
	l.Node.Prices, l.Node.MinBill = s.tariff.For(k, l.Node.Requested)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
