package rabbitmq

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Extend implements fleet.Source. The broker holds an unacknowledged message
// for as long as the channel lives; the clock is ours.
func (s *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if d <= 0 {
		return time.Time{}, s.failed("extend", fmt.Errorf("by %s: %w", d, fleet.ErrInvalid))
	}
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.failed("extend", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return time.Time{}, s.failed("extend", errClosed)
	}
	x, err := s.find(m)
	if err != nil {
		return time.Time{}, s.failed("extend", err)
	}
	s.schedule(x, time.Now().Add(d))
	return x.until, nil
}

// Ack implements fleet.Source. It returns once the broker has worked it off the
// channel.
func (s *Source) Ack(ctx context.Context, m fleet.Message) error {
	return s.settle(ctx, "ack", m, func(x *lease) error { return x.lane.ch.Ack(x.tag, false) })
}

// Nack implements fleet.Source. AMQP has no delayed return: until its time the
// message stays with us, unacknowledged.
func (s *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	if delay <= 0 {
		defer s.wakeUp()
		return s.settle(ctx, "nack", m, func(x *lease) error { return x.lane.ch.Reject(x.tag, true) })
	}
	if err := ctx.Err(); err != nil {
		return s.failed("nack", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.failed("nack", errClosed)
	}
	x, err := s.find(m)
	if err != nil {
		return s.failed("nack", err)
	}
	delete(s.leases, x.receipt)
	s.held--
	s.delayed++
	x.state = waiting
	s.schedule(x, time.Now().Add(delay))
	return nil
}

// settle ends a lease by what act sends.
func (s *Source) settle(ctx context.Context, op string, m fleet.Message, act func(*lease) error) error {
	if err := ctx.Err(); err != nil {
		return s.failed(op, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	x, err := s.claim(ctx, m)
	if err != nil {
		return s.failed(op, err)
	}
	return s.settleClaimed(ctx, op, x, act)
}

// claim takes a lease out of the keeper's hands, with the slot of its channel.
// Until then nothing was sent, and the lease holds.
func (s *Source) claim(ctx context.Context, m fleet.Message) (*lease, error) {
	s.mu.Lock()
	x, err := s.find(m)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if err != nil {
		return nil, err
	}
	if err := x.lane.slot.take(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, err = s.find(m); err != nil { // ended while we waited
		return nil, err
	}
	s.drop(x)
	return x, nil
}

func (s *Source) settleClaimed(ctx context.Context, op string, x *lease, act func(*lease) error) error {
	defer s.trim(x.lane)
	err := s.finish(ctx, x.lane.slot, func() error {
		if err := act(x); err != nil {
			return err
		}
		// Acks are not answered. A method that is, on the same channel, is
		// answered after they were worked off.
		return x.lane.ch.Qos(1, 0, false)
	}, nil)
	if err != nil {
		return s.failed(op, err)
	}
	return nil
}
