package rabbitmq

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
)

// Stats implements fleet.Signal: a passive declare of the queue and one of the
// dead-letter queue, and a request to the management API where there is one,
// at once.
func (s *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	if err := ctx.Err(); err != nil {
		return fleet.SignalStats{}, s.failed("stats", err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	sess, err := s.session(ctx)
	if err != nil {
		return fleet.SignalStats{}, s.failed("stats", err)
	}
	var (
		wg          sync.WaitGroup
		ready, dead int
		told        statistics
		errs        [3]error
		asOf        time.Time
	)
	wg.Go(func() {
		var q amqp.Queue
		q, errs[0] = s.inspect(ctx, sess, &sess.stats, s.cfg.Queue, s.cfg.Create != "" && !s.cfg.ReadOnly)
		if ready, asOf = q.Messages, time.Now(); errs[0] == nil && q.Messages == 0 && q.Consumers == 0 {
			errs[0] = s.verify(ctx, sess)
		}
	})
	if s.cfg.DeadQueue != "" {
		wg.Go(func() {
			var q amqp.Queue
			q, errs[1] = s.inspect(ctx, sess, &sess.dead, s.cfg.DeadQueue, !s.cfg.UseDLX && !s.cfg.ReadOnly)
			if dead = q.Messages; isMissing(errs[1]) { // we may not declare it, and nothing was set aside
				errs[1] = nil
			}
		})
	}
	if s.cfg.Management != "" {
		wg.Go(func() { told, errs[2] = s.statistics(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return fleet.SignalStats{}, s.failed("stats", err)
		}
	}
	return s.compose(asOf, int64(ready), int64(dead), told), nil
}

// compose puts together what the broker counts and what we hold of it.
func (s *Source) compose(asOf time.Time, ready, dead int64, told statistics) fleet.SignalStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := fleet.SignalStats{AsOf: asOf, Backlog: ready, Dead: dead, Delayed: int64(s.delayed), InFlight: int64(s.held), Arrived: told.arrived}
	now := time.Now()
	s.peaks.note(now, s.unsettled())
	// The broker's count of what is unacknowledged is seconds old. What exceeds
	// the most we had in that time is surely not ours.
	st.InFlight += max(0, told.unacked-s.peaks.most(now))
	if s.cfg.Timestamps && ready > 0 {
		st.Oldest = sane(told.head, now)
	}
	if s.offer != nil {
		st.Backlog++
		if at := s.offer.msg.At; s.cfg.Timestamps && !at.IsZero() && (st.Oldest.IsZero() || at.Before(st.Oldest)) {
			st.Oldest = at
		}
	}
	return st
}

// doubt is how long a queue is known to be there, after it served us, without
// serving us again.
const doubt = 2 * time.Second

// verify makes sure that an empty queue is one. A quorum queue without a leader
// reads as no messages and no consumers, and so must not be believed: taking
// from it tells. What is taken is offered, as what a probe brings is.
func (s *Source) verify(ctx context.Context, sess *session) error {
	s.mu.Lock()
	sure := time.Since(sess.served) < doubt && !sess.armed
	s.mu.Unlock()
	if sure {
		return nil
	}
	l, err := s.lane(ctx, sess)
	if err != nil {
		return err
	}
	defer s.release(l)
	_, err = s.get(ctx, l, 0)
	return err
}

// inspect counts the messages of a queue that are ready, and declares it where
// it does not exist and create is true.
func (s *Source) inspect(ctx context.Context, sess *session, l *line, queue string, create bool) (amqp.Queue, error) {
	if err := l.slot.take(ctx); err != nil {
		return amqp.Queue{}, err
	}
	var read amqp.Queue
	err := s.finish(ctx, l.slot, func() error {
		ch, err := l.open(sess.conn)
		if err != nil {
			return err
		}
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if create && isMissing(err) {
			if ch, err = l.open(sess.conn); err != nil {
				return err
			}
			return s.declare(ch, queue)
		}
		read = q
		return err
	}, nil)
	if err != nil { // read may be written still
		return amqp.Queue{}, err
	}
	return read, nil
}

// longest is the consumer_timeout and the delivery limit of queues that we
// declare: tasks take hours, and what becomes of a message that fails again and
// again is decided by those who run it. See doc.go.
const (
	longest  = int64(7 * 24 * time.Hour / time.Millisecond)
	attempts = int64(1_000_000)
)

// declare creates a queue, durable.
func (s *Source) declare(ch *amqp.Channel, queue string) error {
	args := amqp.Table{"x-consumer-timeout": longest}
	if s.cfg.Create == "quorum" {
		args["x-queue-type"] = "quorum"
		args["x-delivery-limit"] = attempts
	}
	_, err := ch.QueueDeclare(queue, true, false, false, false, args)
	return err
}
