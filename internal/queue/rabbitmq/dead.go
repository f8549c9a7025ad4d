package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
)

// Headers of a message that was set aside.
const (
	headerReason = "x-muster-reason"
	headerQueue  = "x-muster-queue"
	headerAt     = "x-muster-dead-at"
)

// mostReason bounds the reason, in bytes: headers go in one frame.
const mostReason = 4 << 10

// DeadLetter implements fleet.Source: it publishes the message to the
// dead-letter queue, waits for the broker to confirm that it has it, and then
// acknowledges it. A crash between the two leaves it in both.
func (s *Source) DeadLetter(ctx context.Context, m fleet.Message, reason string) error {
	const op = "dead-letter"
	if s.cfg.UseDLX {
		return s.settle(ctx, op, m, func(x *lease) error { return x.lane.ch.Reject(x.tag, false) })
	}
	if err := ctx.Err(); err != nil {
		return s.failed(op, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	x, err := s.claim(ctx, m)
	if err != nil {
		return s.failed(op, err)
	}
	as := x.as
	as.Body = m.Body
	as.Headers = amqp.Table{}
	for k, v := range x.as.Headers {
		as.Headers[k] = v
	}
	as.Headers[headerReason] = cut(reason)
	as.Headers[headerQueue] = s.cfg.Queue
	as.Headers[headerAt] = time.Now().UTC().Format(time.RFC3339)
	if err := s.publish(ctx, as); err != nil {
		x.lane.slot.free()
		s.unclaim(x)
		return s.failed(op, fmt.Errorf("publish to %s: %w", s.cfg.DeadQueue, err))
	}
	return s.settleClaimed(ctx, op, x, func(x *lease) error { return x.lane.ch.Ack(x.tag, false) })
}

// cut makes a reason fit a header.
func cut(reason string) string {
	if len(reason) > mostReason {
		reason = reason[:mostReason]
	}
	return strings.ToValidUTF8(reason, "")
}

// unclaim returns a lease to its holder.
func (s *Source) unclaim(x *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.lane.ch.IsClosed() {
		return
	}
	x.state = held
	s.held++
	s.leases[x.receipt] = x
	x.lane.leases[x] = struct{}{}
	s.schedule(x, x.until)
}

// publisher is the connection that messages are set aside on, opened when
// first needed.
type publisher struct {
	slot    slot
	link    link
	ch      *amqp.Channel
	returns chan amqp.Return
}

// end closes the connection; a publisher in use is made to fail.
func (p *publisher) end() {
	select {
	case p.slot <- struct{}{}:
		if p.link.conn != nil {
			p.link.end()
		}
		<-p.slot
	default: // its user ends it
	}
}

func (s *Source) publish(ctx context.Context, m amqp.Publishing) error {
	p := &s.dead
	if err := p.slot.take(ctx); err != nil {
		return err
	}
	return s.finish(ctx, p.slot, func() error {
		// Close may have come and gone while we had the connection.
		defer func() {
			if s.ctx.Err() != nil && p.link.conn != nil {
				p.link.end()
			}
		}()
		for range 2 {
			if err := s.ready(p); err != nil {
				return err
			}
			routed, err := p.send(s.ctx, s.cfg.DeadQueue, m)
			if err != nil || routed {
				return err
			}
			if err := s.declare(p.ch, s.cfg.DeadQueue); err != nil {
				return err
			}
		}
		return fmt.Errorf("it does not exist: %w", fleet.ErrNotFound)
	}, nil)
}

// ready opens what is not open; the slot must be taken.
func (s *Source) ready(p *publisher) error {
	if p.ch != nil && !p.ch.IsClosed() {
		return nil
	}
	if p.link.conn == nil || p.link.conn.IsClosed() {
		l, err := s.dial(s.ctx, "publisher")
		if err != nil {
			return err
		}
		p.link = l
	}
	ch, err := p.link.conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	p.returns = ch.NotifyReturn(make(chan amqp.Return, 1))
	p.ch = ch
	return nil
}

// send publishes and waits for the broker's confirmation; routed is false where
// there is no such queue.
func (p *publisher) send(ctx context.Context, queue string, m amqp.Publishing) (routed bool, err error) {
	confirm, err := p.ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, m)
	if err != nil {
		return false, err
	}
	ok, err := confirm.WaitContext(ctx)
	if err != nil {
		return false, err
	}
	select {
	case _, returned := <-p.returns: // closed with the channel
		if returned {
			return false, nil
		}
	default:
	}
	if !ok {
		return false, fmt.Errorf("the broker did not take it: %w", fleet.ErrUnavailable)
	}
	return true, nil
}
