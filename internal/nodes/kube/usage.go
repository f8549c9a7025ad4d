package kube

import (
	"sync"

	"muster.dev/muster/internal/kube"
)

// usage adds up what pods take of nodes, as they come and go, so that reading
// it does not cost a pass over all pods.
type usage struct {
	mu    sync.RWMutex
	nodes map[string]*tenants
}

// tenants are the pods of one node by who they are to us.
type tenants struct {
	fleets map[string]*share // sandboxes, by fleet
	others share             // the rest
	holds  map[string]*pod   // by key
}

type share struct {
	size size
	pods int64
}

func (s *share) add(p *pod, by int64) {
	s.pods += by
	s.size.cpu += by * p.size.cpu
	s.size.memory += by * p.size.memory
	s.size.disk += by * p.size.disk
}

// move takes a change of a pod in. It reports whether anything moved, and
// whether anybody must hear of it: sandboxes come and go, which those who make
// them know.
func (u *usage) move(before, after *pod) (moved, heard bool) {
	if before == nil && after == nil { // all of them have been read
		return true, true
	}
	if before != nil && after != nil && before.node == after.node && before.over == after.over &&
		before.size == after.size && before.failed == after.failed && before.role == after.role {
		return false, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, x := range []struct {
		p  *pod
		by int64
	}{{before, -1}, {after, 1}} {
		if x.p == nil {
			continue
		}
		heard = heard || !x.p.ours || x.p.role != kube.RoleSandbox
		if x.p.node != "" {
			u.book(x.p, x.by)
		}
	}
	return true, heard
}

func (u *usage) book(p *pod, by int64) {
	t := u.nodes[p.node]
	if t == nil {
		t = &tenants{fleets: map[string]*share{}, holds: map[string]*pod{}}
		u.nodes[p.node] = t
	}
	if p.hold != nil {
		delete(t.holds, p.key)
		if by > 0 {
			t.holds[p.key] = p
		}
	}
	switch {
	case p.over || p.ours && p.role == kube.RoleSeat && p.hold == nil: // a seat makes way
	case p.ours && p.role == kube.RoleSandbox:
		s := t.fleets[p.fleet]
		if s == nil {
			s = &share{}
			t.fleets[p.fleet] = s
		}
		if s.add(p, by); s.pods == 0 {
			delete(t.fleets, p.fleet)
		}
	default:
		t.others.add(p, by)
	}
	if len(t.fleets) == 0 && len(t.holds) == 0 && t.others.pods == 0 {
		delete(u.nodes, p.node)
	}
}

// of is what others than the sandboxes of a fleet take of a node, and the hold
// of that fleet.
func (u *usage) of(node, fleetName string) (taken share, held *pod) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	t := u.nodes[node]
	if t == nil {
		return share{}, nil
	}
	taken = t.others
	for name, s := range t.fleets {
		if name != fleetName {
			taken.pods += s.pods
			taken.size = taken.size.plus(s.size)
		}
	}
	for _, p := range t.holds {
		if p.fleet == fleetName {
			held = p
		}
	}
	return taken, held
}
