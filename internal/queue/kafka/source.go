package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"muster.dev/muster/internal/fleet"
)

// span of leases that may be asked for.
const leaseMost = 12 * time.Hour

// begin checks what every call does; on success the lock is held.
func (s *Source) begin(ctx context.Context, op string) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, failure(ctx, op, err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return time.Time{}, failure(ctx, op, errClosed)
	}
	now := time.Now()
	s.sweep(now)
	return now, nil
}

// Receive implements fleet.Source. It answers from memory.
func (s *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	const op = "receive"
	if s.cfg.ReadOnly {
		return nil, failure(ctx, op, errReadOnly)
	}
	if visibility < time.Second || visibility > leaseMost {
		return nil, fmt.Errorf("kafka: visibility %s: want 1s to 12h: %w", visibility, fleet.ErrInvalid)
	}
	now, err := s.begin(ctx, op)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Message{}
	if n <= 0 {
		return out, nil
	}
	if err := s.reachable(now, len(s.ready) == 0); err != nil {
		return nil, failure(ctx, op, err)
	}
	for len(out) < n && len(s.ready) > 0 {
		e := s.ready[0]
		s.ready[0], s.ready = nil, s.ready[1:]
		s.readyBytes -= len(e.record.Value)
		out = append(out, s.lease(e, now.Add(visibility)))
	}
	if len(out) > 0 {
		s.sweep(now) // sets the timer
		poke(s.room)
		poke(s.kick)
	}
	return out, nil
}

// lease hands an entry out.
func (s *Source) lease(e *entry, until time.Time) fleet.Message {
	r, p := e.record, e.part
	e.attempts++
	if e.attempts > 1 {
		p.tries[r.Offset] = e.attempts
	}
	p.seen, p.dirty = max(p.seen, r.Offset+1), true
	s.seq++
	e.receipt = s.nonce + "." + strconv.FormatUint(s.seq, 36)
	s.turn(e, held)
	s.dues.set(e, until)
	m := fleet.Message{
		ID:      r.Topic + name(s.topicID) + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10),
		Receipt: e.receipt, Attempt: e.attempts, At: r.Timestamp, Until: until,
		Body: append([]byte{}, r.Value...),
	}
	if len(r.Headers) > 0 {
		m.Headers = make(map[string]string, len(r.Headers))
		for _, h := range r.Headers {
			m.Headers[h.Key] = string(h.Value)
		}
	}
	return m
}

// reachable is nil while we may go on handing out and holding what we have: the
// group's coordinator answered within half the time after which it gives our
// partitions to others. With strict, any trouble is an error.
func (s *Source) reachable(now time.Time, strict bool) error {
	cause := s.contact.trouble(now)
	if strict && cause != nil {
		return cause
	}
	if strict && s.failed != nil && now.Sub(s.failedAt) < s.cfg.Session && !transient(s.failed) {
		return s.failed
	}
	if strict && len(s.parts) == 0 && errors.Is(s.failed, kerr.UnknownTopicOrPartition) {
		return s.failed
	}
	if len(s.parts) > 0 && s.contact.silent(now, s.cfg.Session/2) {
		if cause == nil {
			cause = errors.New("the group's coordinator does not answer")
		}
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, cause)
	}
	return nil
}

// find is the lease of a message; on success the lock is held.
func (s *Source) find(ctx context.Context, op string, m fleet.Message) (*entry, time.Time, error) {
	if s.cfg.ReadOnly {
		return nil, time.Time{}, failure(ctx, op, errReadOnly)
	}
	now, err := s.begin(ctx, op)
	if err != nil {
		return nil, now, err
	}
	e := s.held[m.Receipt]
	if e == nil || e.state != held {
		s.mu.Unlock()
		return nil, now, fmt.Errorf("kafka: %s of message %s: %w", op, m.ID, fleet.ErrFenced)
	}
	return e, now, nil
}

// Extend implements fleet.Source.
func (s *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	const op = "extend"
	if d <= 0 || d > leaseMost {
		return time.Time{}, fmt.Errorf("kafka: extend by %s: want more than 0s, at most 12h: %w", d, fleet.ErrInvalid)
	}
	e, now, err := s.find(ctx, op, m)
	if err != nil {
		return time.Time{}, err
	}
	defer s.mu.Unlock()
	if err := s.reachable(now, false); err != nil {
		return time.Time{}, failure(ctx, op, err)
	}
	s.dues.set(e, now.Add(d))
	return e.due, nil
}

// Nack implements fleet.Source. The delay is kept in memory: after a crash the
// message comes at once.
func (s *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	const op = "nack"
	e, now, err := s.find(ctx, op, m)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.reachable(now, false); err != nil {
		return failure(ctx, op, err)
	}
	s.turn(e, delayed)
	s.dues.set(e, now.Add(max(0, min(delay, leaseMost))))
	s.sweep(now)
	return nil
}

// Ack implements fleet.Source. It returns once the group's offsets tell it.
func (s *Source) Ack(ctx context.Context, m fleet.Message) error {
	const op = "ack"
	e, _, err := s.find(ctx, op, m)
	if err != nil {
		return err
	}
	s.hold(e)
	s.mu.Unlock()
	return failure(ctx, op, s.settle(ctx, e))
}

// hold keeps a lease from ending while it is being settled.
func (s *Source) hold(e *entry) {
	s.dues.drop(e)
	s.turn(e, settling)
}

// settle commits an entry that is settling.
func (s *Source) settle(ctx context.Context, e *entry) error {
	w := &waiter{entry: e, part: e.part, done: make(chan error, 1)}
	s.enqueue(w)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// DeadLetter implements fleet.Source: the record is written to the dead topic,
// with its key and headers and the reason, and then settled. A crash between
// the two writes it again.
func (s *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	const op = "dead-letter"
	e, _, err := s.find(ctx, op, m)
	if err != nil {
		return err
	}
	s.hold(e)
	client := s.client
	s.mu.Unlock()
	if !e.aside {
		if err := s.setAside(ctx, client, e, why); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if e.state == gone {
				err = fleet.ErrFenced
			} else {
				s.turn(e, held)
				s.dues.set(e, e.due)
				s.sweep(time.Now())
			}
			return failure(ctx, op, err)
		}
		e.aside = true
	}
	return failure(ctx, op, s.settle(ctx, e))
}

// reasonMost bounds the reason kept with a record, in bytes.
const reasonMost = 1024

// Headers of a record set aside, beside its own.
const (
	HeaderReason  = "muster-dead-reason"
	HeaderID      = "muster-dead-id" // topic/partition/offset
	HeaderAttempt = "muster-dead-attempt"
)

// aside is the record as the dead topic takes it.
func (c *Config) aside(e *entry, why string) *kgo.Record {
	r := e.record
	own := map[string]bool{HeaderReason: true, HeaderID: true, HeaderAttempt: true}
	out := &kgo.Record{Topic: c.DeadTopic, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		if !own[h.Key] { // of a record that was put back and is set aside again
			out.Headers = append(out.Headers, h)
		}
	}
	if len(why) > reasonMost {
		why = why[:reasonMost]
	}
	id := r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10)
	out.Headers = append(out.Headers,
		kgo.RecordHeader{Key: HeaderReason, Value: []byte(why)},
		kgo.RecordHeader{Key: HeaderID, Value: []byte(id)},
		kgo.RecordHeader{Key: HeaderAttempt, Value: []byte(strconv.Itoa(e.attempts))},
	)
	return out
}
