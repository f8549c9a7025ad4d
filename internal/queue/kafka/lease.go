package kafka

import (
	"bytes"
	"container/heap"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// state of a record that was fetched and is not settled.
type state int

const (
	ready    state = iota // to be handed out
	held                  // leased, until due
	delayed               // given back, to be handed out when due
	settling              // leased, and being settled
	gone                  // no longer ours, or settled
)

// entry is a record that was fetched and is not settled.
type entry struct {
	part     *partition
	record   *kgo.Record
	attempts int
	state    state
	receipt  string
	due      time.Time
	at       int  // place in the heap of dues
	aside    bool // already written to the dead topic
}

// partition is one that the group gave us. Guarded by Source.mu.
type partition struct {
	id int32
	note
	next    int64            // the first offset that was not fetched
	open    map[int64]*entry // fetched and not settled
	dirty   bool             // the broker knows less than we
	leaving bool             // to be given up: nothing more is handed out
	busy    int              // entries held or settling
	later   int              // entries delayed
	lost    bool
}

// take turns a fetched record into an entry, nil where there is nothing to do.
func (p *partition) take(r *kgo.Record) *entry {
	if r.Offset < p.next {
		return nil // fetched before
	}
	if r.Offset > p.next {
		// Nothing is at the offsets between: removed by retention or
		// compaction, rolled back, or markers.
		p.skip(span{p.next, r.Offset})
	}
	p.next = r.Offset + 1
	if r.Attrs.IsControl() {
		p.skip(span{r.Offset, r.Offset + 1})
		return nil
	}
	if p.has(r.Offset) {
		return nil
	}
	e := &entry{part: p, record: own(r), attempts: p.tries[r.Offset], at: -1}
	if e.attempts == 0 && r.Offset < p.seen {
		e.attempts = 1
	}
	p.open[r.Offset] = e
	return e
}

// skip settles offsets at which there is no record.
func (p *partition) skip(x span) {
	p.add(x)
	for o := range p.tries {
		if x.from <= o && o < x.to {
			delete(p.tries, o)
		}
	}
	p.seen = max(p.seen, p.mark)
	p.dirty = true
}

// own copies a record out of its fetch, which would else stay in memory as long
// as one of its records does, for the hours of a task.
func own(r *kgo.Record) *kgo.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = make([]kgo.RecordHeader, len(r.Headers))
	for i, h := range r.Headers {
		c.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)}
	}
	return &c
}

// dues are the entries that wait for a time, the next one first.
type dues []*entry

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i]; d[i].at, d[j].at = i, j }

// Push implements heap.Interface.
func (d *dues) Push(x any) {
	e := x.(*entry) //nolint:forcetypeassert // only entries are pushed
	e.at = len(*d)
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *dues) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last], *d = nil, (*d)[:last]
	e.at = -1
	return e
}

// set makes an entry wait for a time.
func (d *dues) set(e *entry, due time.Time) {
	e.due = due
	if e.at >= 0 {
		heap.Fix(d, e.at)
		return
	}
	heap.Push(d, e)
}

func (d *dues) drop(e *entry) {
	if e.at >= 0 {
		heap.Remove(d, e.at)
	}
}

// turn changes an entry's state and counts, for the readings and for what a
// partition waits for before it is given up; the receipt is good while the entry is held or settling.
func (s *Source) turn(e *entry, to state) {
	was, is := e.state == held || e.state == settling, to == held || to == settling
	if e.state == delayed {
		e.part.later--
	}
	if to == delayed {
		e.part.later++
	}
	e.state = to
	switch {
	case is && !was:
		e.part.busy++
		s.held[e.receipt] = e
	case was && !is:
		e.part.busy--
		delete(s.held, e.receipt)
	}
}

// offer makes an entry one to be handed out.
func (s *Source) offer(e *entry) {
	s.dues.drop(e)
	s.turn(e, ready)
	if e.part.leaving {
		return
	}
	s.ready = append(s.ready, e)
	s.readyBytes += len(e.record.Value)
	s.wakeUp()
}

// sweep offers what became due; the lock must be held.
func (s *Source) sweep(now time.Time) {
	for len(s.dues) > 0 && !s.dues[0].due.After(now) {
		s.offer(s.dues[0])
	}
	if len(s.dues) > 0 && !s.closed {
		s.timer.Reset(s.dues[0].due.Sub(now))
	}
}

// drop forgets a partition that is no longer ours: its leases are lost.
func (s *Source) drop(p *partition) {
	for _, e := range p.open {
		s.dues.drop(e)
		s.turn(e, gone)
	}
	p.lost = true
	if s.parts[p.id] == p {
		delete(s.parts, p.id)
	}
	s.unoffer(p)
}

// unoffer takes what is ready of a partition out of the line.
func (s *Source) unoffer(p *partition) {
	rest := s.ready[:0]
	for _, e := range s.ready {
		if e.part != p {
			rest = append(rest, e)
			continue
		}
		s.readyBytes -= len(e.record.Value)
	}
	clear(s.ready[len(rest):])
	s.ready = rest
}
