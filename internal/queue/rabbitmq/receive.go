package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Receive takes what was offered, then asks for more one by one (basic.get), on
// a few channels at once where many are wanted.
func (s *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if visibility < time.Second || visibility > 12*time.Hour {
		return nil, s.failed("receive", fmt.Errorf("visibility %s, want 1s to 12h: %w", visibility, fleet.ErrInvalid))
	}
	if err := ctx.Err(); err != nil {
		return nil, s.failed("receive", err)
	}
	if s.cfg.ReadOnly {
		return nil, s.failed("receive", fmt.Errorf("the queue is open to be read only: %w", fleet.ErrInvalid))
	}
	if n <= 0 {
		s.want(false)
		return []fleet.Message{}, nil
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	sess, err := s.session(ctx)
	if err != nil {
		return nil, s.failed("receive", err)
	}
	out := s.accept(visibility)
	if len(out) < n {
		var more []fleet.Message
		more, err = s.gets(ctx, sess, n-len(out), visibility)
		out = append(out, more...)
	}
	s.want(len(out) < n)
	if err != nil && len(out) == 0 { // with some at hand the error will come again
		return nil, s.failed("receive", err)
	}
	return out, nil
}

// accept leases what was offered.
func (s *Source) accept(visibility time.Duration) []fleet.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.offer
	if x == nil {
		return []fleet.Message{}
	}
	s.offer = nil
	x.state = held
	s.held++
	s.leases[x.receipt] = x
	s.schedule(x, time.Now().Add(visibility))
	m := x.msg
	m.Until, x.msg = x.until, fleet.Message{}
	return []fleet.Message{m}
}

// gets asks for up to n messages that are there now.
func (s *Source) gets(ctx context.Context, sess *session, n int, visibility time.Duration) ([]fleet.Message, error) {
	workers := min(4, (n+7)/8)
	var left atomic.Int64
	left.Store(int64(n))
	results := make([][]fleet.Message, workers)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { results[i], errs[i] = s.getOn(ctx, sess, &left, visibility) })
	}
	wg.Wait()
	var out []fleet.Message
	for _, r := range results {
		out = append(out, r...)
	}
	return out, errors.Join(errs...)
}

// getOn asks on one channel until left is used up or the queue is empty.
func (s *Source) getOn(ctx context.Context, sess *session, left *atomic.Int64, visibility time.Duration) (out []fleet.Message, err error) {
	l, err := s.lane(ctx, sess)
	if err != nil {
		return nil, err
	}
	defer s.release(l)
	for left.Add(-1) >= 0 {
		m, err := s.get(ctx, l, visibility)
		if err != nil || m == nil {
			left.Store(0)
			return out, err
		}
		out = append(out, *m)
	}
	return out, nil
}

// get asks for one message; nil: the queue is empty. With a visibility of 0 what
// came is offered, rather than returned.
func (s *Source) get(ctx context.Context, l *lane, visibility time.Duration) (*fleet.Message, error) {
	if err := l.slot.take(ctx); err != nil {
		return nil, err
	}
	var d amqp.Delivery
	var ok bool
	err := s.finish(ctx, l.slot, func() (err error) {
		d, ok, err = l.ch.Get(s.cfg.Queue, false)
		return err
	}, func() {
		if ok {
			_ = l.ch.Nack(d.DeliveryTag, false, true) // else the channel ended
		}
	})
	if err != nil {
		return nil, err
	}
	s.serve(l.sess)
	if !ok {
		return nil, nil
	}
	if visibility == 0 {
		s.offerUp(l, &d)
		return nil, nil
	}
	x, ok := s.register(l, &d, held, time.Now().Add(visibility))
	if !ok {
		return nil, amqp.ErrClosed
	}
	m := x.msg
	x.msg = fleet.Message{} // the body is the caller's now
	return &m, nil
}

// offerUp keeps a message for the next Receive, or gives it back where there is
// one already.
func (s *Source) offerUp(l *lane, d *amqp.Delivery) {
	hold := offerFor
	if s.cfg.ReadOnly {
		hold = 0
	}
	if _, ok := s.register(l, d, offered, time.Now().Add(hold)); !ok {
		_ = l.ch.Nack(d.DeliveryTag, false, true) // else the channel ended
	}
	s.wakeUp()
}

func (s *Source) serve(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.served = time.Now()
}

// want says whether arrivals are to be told: while a caller waits for more.
func (s *Source) want(more bool) {
	s.mu.Lock()
	changed := s.wanted != more
	s.wanted = more
	s.mu.Unlock()
	if changed || more {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

func (s *Source) wants() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted && s.offer == nil
}

// probes keeps a consumer on the queue while arrivals are to be told. It gets
// one message, and that one is offered to the next Receive.
func (s *Source) probes() {
	var pause connect.Backoff
	for {
		if !s.wants() {
			select {
			case <-s.ctx.Done():
				return
			case <-s.poke:
				continue
			}
		}
		if err := s.probe(); err == nil {
			pause.Reset()
		} else if pause.Wait(s.ctx) != nil { // what fails here fails in Stats and Receive too, which tell
			return
		}
	}
}

// probe consumes until a message came or none is wanted.
func (s *Source) probe() error {
	ctx, cancel := s.bound(s.ctx)
	defer cancel()
	sess, err := s.session(ctx)
	if err != nil {
		return err
	}
	l, err := s.lane(ctx, sess)
	if err != nil {
		return err
	}
	defer s.release(l)
	if err := l.slot.take(ctx); err != nil {
		return err
	}
	tag := "muster-" + nonce()
	var in <-chan amqp.Delivery
	err = s.finish(ctx, l.slot, func() (err error) {
		in, err = l.ch.Consume(s.cfg.Queue, tag, false, false, false, false, nil)
		return err
	}, func() { _ = giveBack(l.ch, tag, in) }) // else the channel ended
	if err != nil {
		return err
	}
	s.serve(sess)
	s.arm(sess, true)
	defer s.arm(sess, false)
	return s.listen(l, tag, in)
}

func (s *Source) arm(sess *session, armed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.armed = armed
}

func (s *Source) listen(l *lane, tag string, in <-chan amqp.Delivery) error {
	for {
		select {
		case d, ok := <-in:
			if !ok {
				return fmt.Errorf("the broker ended the consumer: %w", fleet.ErrUnavailable)
			}
			ctx, cancel := s.bound(s.ctx)
			defer cancel()
			// Taken before the message is offered: none may settle it, and so let
			// the broker send the next, before the consumer ended.
			if err := l.slot.take(ctx); err != nil {
				return err
			}
			s.offerUp(l, &d)
			return s.finish(ctx, l.slot, func() error { return giveBack(l.ch, tag, in) }, nil)
		case <-s.poke:
			if s.wants() {
				continue
			}
			ctx, cancel := s.bound(s.ctx)
			defer cancel()
			if err := l.slot.take(ctx); err != nil {
				return err
			}
			return s.finish(ctx, l.slot, func() error { return giveBack(l.ch, tag, in) }, nil)
		}
	}
}

// giveBack ends a consumer and returns what it got meanwhile.
func giveBack(ch *amqp.Channel, tag string, in <-chan amqp.Delivery) error {
	if err := ch.Cancel(tag, false); err != nil {
		return err
	}
	for d := range in {
		if err := ch.Nack(d.DeliveryTag, false, true); err != nil {
			return err
		}
	}
	return nil
}
