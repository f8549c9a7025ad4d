package sim

import (
	"slices"

	"muster.dev/muster/internal/plan"
)

// mostMoves is how many moves are followed one by one.
const mostMoves = 48

// named is a ready sandbox as an observation names it.
type named struct {
	box            int32
	gen            uint32
	created, since int64
}

// nameIdle lists ready sandboxes, the oldest first: what moved since the last
// look, or all of them where that is not enough.
func (m *planner) nameIdle(w *World, p *Pool, v *poolView, o *plan.Pool) {
	if len(p.moves) == 0 {
		return
	}
	if len(p.moves) > mostMoves || p.Ready > plan.MaxIdle || !m.followMoves(w, p, v, o) {
		m.nameAll(w, p, v, o)
	}
	p.moves = p.moves[:0]
}

// followMoves brings the list up to date; false where it cannot.
func (m *planner) followMoves(w *World, p *Pool, v *poolView, o *plan.Pool) bool {
	if len(v.idle)+len(p.moves) > plan.MaxIdle { // one of them may not have been named
		return false
	}
	for i := range p.moves {
		x := &p.moves[i].named
		if !p.moves[i].gone {
			at := len(v.idle)
			for at > 0 && v.idle[at-1].created > x.created {
				at--
			}
			v.idle = slices.Insert(v.idle, at, *x)
			o.Idle = slices.Insert(o.Idle, at, m.name(w, x))
			continue
		}
		at := 0
		for at < len(v.idle) && v.idle[at].box != x.box {
			at++
		}
		if at == len(v.idle) {
			return false
		}
		v.idle = slices.Delete(v.idle, at, at+1)
		o.Idle = slices.Delete(o.Idle, at, at+1)
	}
	return true
}

// nameAll lists those that have been ready longest.
func (m *planner) nameAll(w *World, p *Pool, v *poolView, o *plan.Pool) {
	v.idle, o.Idle = v.idle[:0], o.Idle[:0]
	for i := p.first; i >= 0 && len(v.idle) < plan.MaxIdle; i = w.boxes[i].next {
		b := &w.boxes[i]
		// By time of ready they are sorted almost; what was taken back is not.
		v.idle = append(v.idle, named{})
		k := len(v.idle) - 1
		for ; k > 0 && v.idle[k-1].created > b.created; k-- {
			v.idle[k] = v.idle[k-1]
		}
		v.idle[k] = named{i, b.gen, b.created, b.since}
	}
	for k := range v.idle {
		o.Idle = append(o.Idle, m.name(w, &v.idle[k]))
	}
}

func (m *planner) name(w *World, x *named) plan.Idle {
	return plan.Idle{ID: m.boxID(x.box), Node: m.nodeID(w.boxes[x.box].node), Created: clock(x.created), Since: clock(x.since)}
}
