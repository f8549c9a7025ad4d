package sim

// kind is what happens; of one instant, the lower kind happens first: what
// frees a slot before what looks for one.
type kind uint8

const (
	taskDone kind = iota
	nodeFailed
	nodeBooted
	boxStarted
	nodeIdle
	windowOpens
)

// event is one thing that will happen: when (in milliseconds), and what to
// whom, packed so that the order is total and an event is 16 bytes.
type event struct {
	at  int64
	key uint64 // kind, generation (24 bits), index (32 bits)
}

func newEvent(at int64, k kind, gen uint32, index int32) event {
	return event{at, uint64(k)<<56 | uint64(gen&0xffffff)<<32 | uint64(uint32(index))}
}

func (e event) kind() kind   { return kind(e.key >> 56) }
func (e event) gen() uint32  { return uint32(e.key>>32) & 0xffffff }
func (e event) index() int32 { return int32(uint32(e.key)) }

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.key < o.key }

// heap is a 4-ary heap with the earliest event first: half as deep as a
// binary one, and four children are one cache line.
type heap []event

func (h *heap) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
}

func (h *heap) pop() event {
	s := *h
	top, e := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= len(s) {
			break
		}
		least := first
		for k := first + 1; k < min(first+4, len(s)); k++ {
			if s[k].before(s[least]) {
				least = k
			}
		}
		if !s[least].before(e) {
			break
		}
		s[i] = s[least]
		i = least
	}
	s[i] = e
	return top
}
