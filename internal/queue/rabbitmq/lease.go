package rabbitmq

import (
	"container/heap"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
)

// leaseState is where a delivery that we have is.
type leaseState int

const (
	held    leaseState = iota // with a caller, until its time
	waiting                   // nacked with a delay, until then
	offered                   // told of an arrival; nobody has it yet
	gone                      // settled, given back or lost
)

// lease is a delivery that the broker waits for us to settle.
type lease struct {
	receipt string
	lane    *lane
	tag     uint64
	as      amqp.Publishing // its properties, without the body
	msg     fleet.Message   // while offered
	// Guarded by Source.mu:
	state leaseState
	until time.Time
	next  time.Time // the earliest entry of it in the heap
	lost  string    // why it is gone without its holder knowing
}

type dueEntry struct {
	at time.Time
	l  *lease
}

// dueHeap orders leases by when they are to be looked at.
type dueHeap []dueEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueEntry)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = dueEntry{}
	*h = old[:len(old)-1]
	return x
}

// register begins to keep a delivery; false where its channel ended meanwhile,
// or where one is offered already.
func (s *Source) register(l *lane, d *amqp.Delivery, state leaseState, until time.Time) (*lease, bool) {
	x := &lease{lane: l, tag: d.DeliveryTag, as: properties(d), state: state, msg: message(d)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.ch.IsClosed() || state == offered && s.offer != nil {
		return nil, false
	}
	if len(l.leases) == 0 {
		l.since = time.Now()
	}
	l.leases[x] = struct{}{}
	s.seq++
	x.receipt = s.prefix + "-" + strconv.FormatUint(s.seq, 10)
	x.msg.Receipt, x.msg.Until = x.receipt, until
	if state == offered {
		s.offer = x
	} else {
		s.held++
		s.leases[x.receipt] = x
	}
	s.peaks.note(time.Now(), s.unsettled())
	s.schedule(x, until)
	return x, true
}

// unsettled counts what the broker sees as unacknowledged by us; Source.mu must
// be held.
func (s *Source) unsettled() int64 {
	n := s.held + s.delayed
	if s.offer != nil {
		n++
	}
	return int64(n)
}

// schedule sets when a lease ends; Source.mu must be held. An entry of the heap
// that comes too early is pushed again, so that extending costs nothing.
func (s *Source) schedule(x *lease, until time.Time) {
	x.until = until
	if !x.next.IsZero() && !until.Before(x.next) {
		return
	}
	x.next = until
	heap.Push(&s.due, dueEntry{at: until, l: x})
	if s.due[0].l == x {
		select {
		case s.again <- struct{}{}:
		default:
		}
	}
}

// drop forgets a lease; Source.mu must be held.
func (s *Source) drop(x *lease) {
	s.peaks.note(time.Now(), s.unsettled())
	switch x.state {
	case held:
		s.held--
		delete(s.leases, x.receipt)
	case waiting:
		s.delayed--
	case offered:
		if s.offer == x {
			s.offer = nil
		}
	}
	x.state = gone
	delete(x.lane.leases, x)
	s.peaks.note(time.Now(), s.unsettled())
}

// find looks a lease up that its holder names; Source.mu must be held.
func (s *Source) find(m fleet.Message) (*lease, error) {
	x := s.leases[m.Receipt]
	switch {
	case x == nil:
		return nil, fmt.Errorf("message %s: %w", m.ID, fleet.ErrFenced)
	case x.state != held:
		delete(s.leases, m.Receipt)
		return nil, fmt.Errorf("message %s: %w (%s)", m.ID, fleet.ErrFenced, x.lost)
	case !time.Now().Before(x.until):
		return nil, fmt.Errorf("message %s: %w (the lease ended)", m.ID, fleet.ErrFenced)
	}
	return x, nil
}

// keep is the clock of leases: the broker has none that could be set.
func (s *Source) keep() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		wait := time.Hour
		if len(s.due) > 0 {
			wait = time.Until(s.due[0].at)
		}
		s.mu.Unlock()
		timer.Reset(max(0, wait))
		select {
		case <-s.ctx.Done():
			return
		case <-s.again:
		case <-timer.C:
			s.expire(time.Now())
		}
	}
}

// expire gives back what is due.
func (s *Source) expire(now time.Time) {
	for {
		x, state := s.overdue(now)
		if x == nil {
			return
		}
		if state == offered {
			// Nobody tried it. From RabbitMQ 4.3 a nack does not count as an
			// attempt, and a reject does.
			_ = x.lane.ch.Nack(x.tag, false, true)
		} else {
			_ = x.lane.ch.Reject(x.tag, true)
		}
		// An error of either means that the channel ended, which gives back too.
		s.trim(x.lane)
		s.wakeUp()
	}
}

// overdue takes out the next lease that ended, with the state it was in.
func (s *Source) overdue(now time.Time) (*lease, leaseState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		x := heap.Pop(&s.due).(dueEntry).l
		x.next = time.Time{}
		switch {
		case x.state == gone:
			delete(s.leases, x.receipt)
		case x.until.After(now):
			s.schedule(x, x.until)
		default:
			state := x.state
			if state == offered {
				s.wanted = false // the reader had its chance
			}
			s.drop(x)
			return x, state
		}
	}
	return nil, gone
}

// peaks remembers the most of a count in each of the last seconds.
type peaks [16]struct{ second, most int64 }

func (p *peaks) note(now time.Time, n int64) {
	sec := now.Unix()
	e := &p[sec%int64(len(p))]
	if e.second != sec {
		e.second, e.most = sec, n
	}
	e.most = max(e.most, n)
}

func (p *peaks) most(now time.Time) int64 {
	var most int64
	for _, e := range p {
		if now.Unix()-e.second < int64(len(p)) {
			most = max(most, e.most)
		}
	}
	return most
}
