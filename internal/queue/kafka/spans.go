package kafka

import "slices"

// span is the offsets from, from+1, … to-1.
type span struct{ from, to int64 }

// settled is the set of a partition's offsets that are worked off: all below
// mark, and the spans above it, which are sorted, apart and not empty. Tasks
// end out of order, so that the mark stands while the task at it runs.
type settled struct {
	mark  int64
	above []span
}

// find is the first span that ends at o or later.
func (s *settled) find(o int64) int {
	i, _ := slices.BinarySearchFunc(s.above, o, func(x span, o int64) int {
		if x.to < o {
			return -1
		}
		return 1
	})
	return i
}

func (s *settled) has(o int64) bool {
	if o < s.mark {
		return true
	}
	i := s.find(o + 1)
	return i < len(s.above) && s.above[i].from <= o
}

// add settles the offsets of a span.
func (s *settled) add(x span) {
	x.from = max(x.from, s.mark)
	if x.from >= x.to {
		return
	}
	i := s.find(x.from) // touches or follows x
	j := i
	for ; j < len(s.above) && s.above[j].from <= x.to; j++ {
		x.from, x.to = min(x.from, s.above[j].from), max(x.to, s.above[j].to)
	}
	if x.from > s.mark {
		s.above = slices.Replace(s.above, i, j, x)
		return
	}
	s.mark = x.to
	s.above = slices.Delete(s.above, i, j)
}

// below counts the settled offsets above the mark and below o.
func (s *settled) below(o int64) (n int64) {
	for _, x := range s.above {
		n += max(0, min(x.to, o)-x.from)
	}
	return n
}

// gaps calls f with each span of unsettled offsets below o.
func (s *settled) gaps(o int64, f func(span)) {
	at := s.mark
	for _, x := range s.above {
		if x.from >= o {
			break
		}
		f(span{at, x.from})
		at = x.to
	}
	if at < o {
		f(span{at, o})
	}
}

func (s *settled) clone() settled { return settled{s.mark, slices.Clone(s.above)} }
