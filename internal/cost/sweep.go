package cost

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Sweep splits what the nodes cost in [from, to) over those it was for, in
// entries sorted by node and time. Sandboxes on nodes that are not given are
// left out. For any times a <= b <= c, the entries of [a, b) and of [b, c) add up
// to those of [a, c), and all entries of a node to the difference of its bills.
//
// It takes time in proportion to the changes in that stretch times the
// sandboxes of the node that changed.
func Sweep(from, to time.Time, nodes []Node, boxes []Box) []Entry {
	if !from.Before(to) {
		return nil
	}
	byNode := map[string][]*Box{}
	for i := range boxes {
		b := &boxes[i]
		byNode[string(b.Node)] = append(byNode[string(b.Node)], b)
	}
	order := make([]*Node, len(nodes))
	for i := range nodes {
		order[i] = &nodes[i]
	}
	slices.SortFunc(order, func(a, b *Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
	var out []Entry
	for _, n := range order {
		s := sweep{n: n, boxes: byNode[string(n.ID)], out: out}
		slices.SortFunc(s.boxes, func(a, b *Box) int { return strings.Compare(string(a.ID), string(b.ID)) })
		s.run(from, to)
		out = s.out
	}
	return out
}

// sweep goes over one node.
type sweep struct {
	n     *Node
	boxes []*Box
	out   []Entry
	parts []part // a buffer
}

// part is one claim on a piece of the bill.
type part struct {
	e         Entry
	weight    uint64 // of weightOne
	remainder uint64
}

// weightOne is a whole node.
const weightOne = 1 << 32

func (s *sweep) run(from, to time.Time) {
	cuts := s.cuts(from, to)
	for i := 0; i+1 < len(cuts); i++ {
		a, b := cuts[i], cuts[i+1]
		// The bill at a release holds the least bill already: what is beyond
		// the life falls on the piece that begins there.
		if amount := s.billAt(b) - s.billAt(a); amount != 0 {
			s.split(a, b, amount)
		}
	}
}

// billAt is the bill before what a release adds: at the moment of the release
// nothing beyond its life is due yet.
func (s *sweep) billAt(t time.Time) Micro {
	if t.Equal(s.n.Released) {
		n := *s.n
		n.MinBill = 0
		return n.Bill(t)
	}
	return s.n.Bill(t)
}

// cuts are the moments in [from, to] at which the split changes.
func (s *sweep) cuts(from, to time.Time) []time.Time {
	cuts := []time.Time{from, to}
	add := func(ts ...time.Time) {
		for _, t := range ts {
			if t.After(from) && t.Before(to) {
				cuts = append(cuts, t)
			}
		}
	}
	add(s.n.Requested, s.n.Ready, s.n.Leaving, s.n.Released)
	for _, b := range s.boxes {
		add(b.Created, b.Claimed, b.Gone)
	}
	slices.SortFunc(cuts, time.Time.Compare)
	return slices.CompactFunc(cuts, time.Time.Equal)
}

// split divides the amount of one piece, in which nothing changes.
func (s *sweep) split(a, b time.Time, amount Micro) {
	s.parts = s.parts[:0]
	piece := Entry{From: a, To: b, Node: s.n.ID}
	switch {
	case !s.n.Released.IsZero() && !a.Before(s.n.Released):
		s.whole(piece, CauseMinimum)
	case s.n.Ready.IsZero() || a.Before(s.n.Ready):
		s.whole(piece, CauseBoot)
	default:
		s.shares(piece)
	}
	s.divide(amount)
}

func (s *sweep) whole(e Entry, c Cause) {
	e.Cause = c
	s.parts = append(s.parts, part{e: e, weight: weightOne})
}

// shares weighs what is on the node.
func (s *sweep) shares(piece Entry) {
	system := s.systemShare()
	usable := weightOne - system
	var held uint64
	for _, b := range s.boxes {
		if piece.From.Before(b.Created) || !b.Gone.IsZero() && !piece.From.Before(b.Gone) {
			continue
		}
		e := piece
		e.Box, e.Pool, e.Cause = b.ID, b.Pool, CauseWarm
		if !b.Claimed.IsZero() && !piece.From.Before(b.Claimed) {
			e.Cause, e.Task = CauseTask, b.Task
		}
		w := share(b.Size, s.n.Usable, usable)
		held += w
		s.parts = append(s.parts, part{e: e, weight: w})
	}
	if held > usable {
		s.scale(held, usable)
		held = usable
	}
	rest := piece
	rest.Cause = CauseHeadroom
	if !s.n.Leaving.IsZero() && !piece.From.Before(s.n.Leaving) {
		rest.Cause = CauseDrain
	}
	s.parts = append(s.parts, part{e: rest, weight: usable - held})
	sys := piece
	sys.Cause = CauseSystem
	s.parts = append(s.parts, part{e: sys, weight: system})
}

// scale shrinks shares that are together more than the whole; what rounding
// leaves goes to the first ones.
func (s *sweep) scale(held, whole uint64) {
	var sum uint64
	for i := range s.parts {
		hi, lo := bits.Mul64(s.parts[i].weight, whole)
		s.parts[i].weight, _ = bits.Div64(hi, lo, held)
		sum += s.parts[i].weight
	}
	for i := 0; sum < whole; i, sum = (i+1)%len(s.parts), sum+1 {
		s.parts[i].weight++
	}
}

// systemShare is what the machine has and sandboxes may not have.
func (s *sweep) systemShare() uint64 {
	if s.n.Total.MilliCPU <= 0 || s.n.Total.MemoryBytes <= 0 {
		return 0
	}
	return weightOne - min(weightOne, share(s.n.Usable, s.n.Total, weightOne))
}

// share is the mean of the parts of processors and memory, of whole.
func share(of, total Size, whole uint64) uint64 {
	return (ratio(of.MilliCPU, total.MilliCPU, whole) + ratio(of.MemoryBytes, total.MemoryBytes, whole)) / 2
}

// ratio is whole*a/b; the whole where b is nothing.
func ratio(a, b int64, whole uint64) uint64 {
	if a <= 0 {
		return 0
	}
	if b <= 0 || a >= b {
		return whole
	}
	hi, lo := bits.Mul64(uint64(a), whole)
	q, _ := bits.Div64(hi, lo, uint64(b))
	return q
}

// divide gives each part its share, the micro-USD that rounding leaves to the
// largest remainders, and writes the entries down. A negative amount cannot
// come up: bills never fall.
func (s *sweep) divide(amount Micro) {
	left := amount
	for i := range s.parts {
		p := &s.parts[i]
		hi, lo := bits.Mul64(uint64(amount), p.weight) //nolint:gosec // not negative
		p.e.Amount = Micro(hi<<32 | lo>>32)            //nolint:gosec // at most amount
		p.remainder = lo & (weightOne - 1)
		left -= p.e.Amount
	}
	if left > 0 {
		order := make([]int, len(s.parts))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.parts[b].remainder, s.parts[a].remainder) })
		for i := 0; left > 0; i, left = i+1, left-1 {
			s.parts[order[i]].e.Amount++
		}
	}
	for i := range s.parts {
		if s.parts[i].e.Amount != 0 {
			s.out = append(s.out, s.parts[i].e)
		}
	}
}
