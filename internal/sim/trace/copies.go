package trace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Scale multiplies a trace into the demand of a larger fleet.
type Scale struct {
	Copies int           // of each row; 0 and 1: the trace itself
	Jitter time.Duration // copy k is late by a random time below k times this
	Seed   uint64
}

// MaxCopies bounds Scale.Copies.
const MaxCopies = 1_000_000

// Multiply returns a source with every row of src Copies times: itself, and
// copy k, from 1 on, late by a time drawn from [0, k*Jitter) that depends on
// the seed, the place of the row and the copy alone. The spread grows with the
// copies, since they are to be more people and not one person's burst made
// taller: 40 copies of the shared trace with an hour of jitter have a peak of
// 3.5 times the mean, as the fleet they stand for; all within the same hour they
// would have one of 11 times. Rows stay sorted; memory holds the rows of
// Copies times Jitter.
func Multiply(src Source, s Scale) (Source, error) {
	if s.Copies < 0 || s.Copies > MaxCopies {
		return nil, fmt.Errorf("%d copies are out of range; want 1 to %d", s.Copies, MaxCopies)
	}
	if s.Jitter < 0 {
		return nil, fmt.Errorf("a jitter of %s is negative", s.Jitter)
	}
	if s.Copies <= 1 {
		return src, nil
	}
	return multiplied{src, s}, nil
}

type multiplied struct {
	src Source
	s   Scale
}

func (m multiplied) Open() (Stream, error) {
	in, err := m.src.Open()
	if err != nil {
		return nil, err
	}
	return &copies{in: in, n: max(1, m.s.Copies), jitter: m.s.Jitter.Milliseconds(), seed: m.s.Seed}, nil
}

// copies holds back what later rows may still come before: a copy is due when
// the source has reached its time.
type copies struct {
	in     Stream
	n      int
	jitter int64
	seed   uint64
	index  uint64 // of the next row
	head   Row    // the next row of the source
	loaded bool
	ended  bool
	held   rowHeap
}

func (c *copies) Close() error { return c.in.Close() }

func (c *copies) Next() (Row, error) {
	for {
		if !c.loaded && !c.ended {
			r, err := c.in.Next()
			switch {
			case errors.Is(err, io.EOF):
				c.ended = true
			case err != nil:
				return Row{}, err
			default:
				c.head, c.loaded = r, true
			}
		}
		if len(c.held) > 0 && (c.ended || c.held[0].Arrival <= c.head.Arrival) {
			return c.held.pop(), nil
		}
		if c.ended {
			return Row{}, io.EOF
		}
		for k := range c.n {
			r := c.head
			r.Arrival += c.late(uint64(k))
			c.held.push(heldRow{r, c.index*uint64(c.n) + uint64(k)})
		}
		c.index++
		c.loaded = false
	}
}

func (c *copies) late(k uint64) int64 {
	if c.jitter == 0 || k == 0 {
		return 0
	}
	x := Mix(Mix(c.seed^0x9e3779b97f4a7c15) + c.index*uint64(MaxCopies) + k)
	return int64(float64(x>>11) / (1 << 53) * float64(k) * float64(c.jitter))
}

// Mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014): a hash that
// turns a counter into bits that look random.
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// heldRow is a row that waits for its turn; seq settles ties.
type heldRow struct {
	Row
	seq uint64
}

func (h heldRow) before(o heldRow) bool {
	return h.Arrival < o.Arrival || h.Arrival == o.Arrival && h.seq < o.seq
}

// rowHeap is a binary heap with the earliest row first.
type rowHeap []heldRow

func (h *rowHeap) push(r heldRow) {
	*h = append(*h, r)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s[i].before(s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *rowHeap) pop() Row {
	s := *h
	top, last := s[0].Row, len(s)-1
	s[0] = s[last]
	s = s[:last]
	for i := 0; ; {
		least := i
		for k := 2*i + 1; k <= 2*i+2 && k < last; k++ {
			if s[k].before(s[least]) {
				least = k
			}
		}
		if least == i {
			break
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
	*h = s
	return top
}

// latest is the largest arrival and duration a row may have, in seconds: the
// end of the year 9999, and a century.
const (
	latest  = 253402300799
	longest = 100 * 366 * 24 * 3600
)

// toMillis rounds seconds to milliseconds.
func toMillis(seconds float64) int64 { return int64(math.Round(seconds * 1000)) }
