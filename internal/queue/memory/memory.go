package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Server is a queue that any number of Sources consume.
type Server struct {
	mu       sync.Mutex
	waiting  []*message // by due time, then order
	held     map[string]*message
	dead     []Dead
	arrived  int64
	seq      int64
	down     error
	watchers map[chan struct{}]bool
	// Unnamed servers give their messages no ID, as lists do.
	Unnamed bool
}

// Dead is a message set aside.
type Dead struct {
	fleet.Message
	Why string
}

type message struct {
	fleet.Message
	seq int64
	due time.Time
}

// NewServer returns an empty queue.
func NewServer() *Server {
	return &Server{held: map[string]*message{}, watchers: map[chan struct{}]bool{}}
}

// Publish adds messages.
func (s *Server) Publish(m ...fleet.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range m {
		s.seq++
		s.arrived++
		x.At, x.Attempt, x.Receipt, x.ID = time.Now(), 0, "", ""
		if !s.Unnamed {
			x.ID = "m" + strconv.FormatInt(s.seq, 10)
		}
		x.Body, x.Headers = slices.Clone(x.Body), maps.Clone(x.Headers)
		s.waiting = append(s.waiting, &message{Message: x, seq: s.seq, due: x.At})
	}
	s.wake()
}

// Fail makes every call of every Source fail with err until Fail(nil).
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
	s.wake()
}

// Dead lists what was set aside.
func (s *Server) Dead() []Dead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dead)
}

func (s *Server) wake() {
	for c := range s.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// expire returns messages whose lease ended; the lock must be held.
func (s *Server) expire(now time.Time) {
	for r, m := range s.held {
		if !m.Until.After(now) {
			delete(s.held, r)
			s.insert(m, now)
		}
	}
}

func (s *Server) insert(m *message, due time.Time) {
	m.due = due
	s.waiting = append(s.waiting, m)
	slices.SortFunc(s.waiting, func(a, b *message) int { return int(a.seq - b.seq) })
	time.AfterFunc(time.Until(due), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wake()
	})
}

// Open connects a consumer.
func (s *Server) Open() *Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &Source{s: s, wake: make(chan struct{}, 1)}
	s.watchers[q.wake] = true
	return q
}

// Source implements fleet.Source.
type Source struct {
	s      *Server
	wake   chan struct{}
	closed bool
}

var _ fleet.Source = (*Source)(nil)

// begin checks what every call does; on success the lock is held.
func (q *Source) begin(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	q.s.mu.Lock()
	err := q.s.down
	if q.closed {
		err = fmt.Errorf("closed: %w", fleet.ErrUnavailable)
	}
	if err != nil {
		q.s.mu.Unlock()
		return time.Time{}, err
	}
	now := time.Now()
	q.s.expire(now)
	return now, nil
}

// Traits implements fleet.Signal.
func (q *Source) Traits() fleet.SignalTraits {
	return fleet.SignalTraits{Oldest: true, Arrived: true, InFlight: true, Delayed: true, Dead: true, Push: true, Names: !q.s.Unnamed, Durable: true, Binary: true}
}

// Wake implements fleet.Signal.
func (q *Source) Wake() <-chan struct{} { return q.wake }

// Close implements fleet.Signal.
func (q *Source) Close() error {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	q.closed = true
	delete(q.s.watchers, q.wake)
	return nil
}

// Stats implements fleet.Signal.
func (q *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	now, err := q.begin(ctx)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	defer q.s.mu.Unlock()
	st := fleet.SignalStats{AsOf: now, InFlight: int64(len(q.s.held)), Dead: int64(len(q.s.dead)), Arrived: q.s.arrived}
	for _, m := range q.s.waiting {
		if m.due.After(now) {
			st.Delayed++
			continue
		}
		if st.Backlog++; st.Oldest.IsZero() || m.At.Before(st.Oldest) {
			st.Oldest = m.At
		}
	}
	return st, nil
}

// Receive implements fleet.Source.
func (q *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if visibility < time.Second || visibility > 12*time.Hour {
		return nil, fmt.Errorf("visibility %s: want 1s to 12h: %w", visibility, fleet.ErrInvalid)
	}
	now, err := q.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer q.s.mu.Unlock()
	out := []fleet.Message{}
	var rest []*message
	for _, m := range q.s.waiting {
		if len(out) >= n || m.due.After(now) {
			rest = append(rest, m)
			continue
		}
		m.Attempt++
		q.s.seq++
		m.Receipt = fmt.Sprintf("r%d", q.s.seq)
		m.Until = now.Add(visibility)
		q.s.held[m.Receipt] = m
		time.AfterFunc(visibility, q.s.wakeLater)
		x := m.Message
		x.Body, x.Headers = slices.Clone(m.Body), maps.Clone(m.Headers)
		out = append(out, x)
	}
	q.s.waiting = rest
	return out, nil
}

func (s *Server) wakeLater() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake()
}

// settle takes a held message out; on success the lock is held.
func (q *Source) settle(ctx context.Context, m fleet.Message) (*message, time.Time, error) {
	now, err := q.begin(ctx)
	if err != nil {
		return nil, now, err
	}
	x := q.s.held[m.Receipt]
	if x == nil {
		q.s.mu.Unlock()
		return nil, now, fmt.Errorf("message %s: %w", m.ID, fleet.ErrFenced)
	}
	return x, now, nil
}

// Extend implements fleet.Source.
func (q *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if d <= 0 {
		return time.Time{}, fmt.Errorf("extend by %s: %w", d, fleet.ErrInvalid)
	}
	x, now, err := q.settle(ctx, m)
	if err != nil {
		return time.Time{}, err
	}
	defer q.s.mu.Unlock()
	x.Until = now.Add(d)
	time.AfterFunc(d, q.s.wakeLater)
	return x.Until, nil
}

// Ack implements fleet.Source.
func (q *Source) Ack(ctx context.Context, m fleet.Message) error {
	x, _, err := q.settle(ctx, m)
	if err != nil {
		return err
	}
	defer q.s.mu.Unlock()
	delete(q.s.held, x.Receipt)
	return nil
}

// Nack implements fleet.Source.
func (q *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	x, now, err := q.settle(ctx, m)
	if err != nil {
		return err
	}
	defer q.s.mu.Unlock()
	delete(q.s.held, x.Receipt)
	q.s.insert(x, now.Add(delay))
	return nil
}

// DeadLetter implements fleet.Source.
func (q *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	x, _, err := q.settle(ctx, m)
	if err != nil {
		return err
	}
	defer q.s.mu.Unlock()
	delete(q.s.held, x.Receipt)
	q.s.dead = append(q.s.dead, Dead{Message: x.Message, Why: why})
	return nil
}
