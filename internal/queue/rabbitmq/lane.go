package rabbitmq

import (
	"context"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// generation is the span of time whose deliveries share a channel. The broker
// ends a channel with a delivery older than its consumer_timeout, looking once
// a minute, and all others on that channel go back with it: those of one
// generation would have gone soon after.
const generation = 2 * time.Minute

// idleLanes are channels kept open without a delivery on them.
const idleLanes = 8

// slot lets one synchronous method at a time onto a channel.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

func (c slot) take(ctx context.Context) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c slot) free() { <-c }

// line is a channel for readings, opened anew whenever the broker ended it, as
// it does upon every refusal.
type line struct {
	slot slot
	ch   *amqp.Channel // guarded by slot
}

// open returns the channel; the slot must be taken.
func (l *line) open(c *amqp.Connection) (*amqp.Channel, error) {
	if l.ch != nil && !l.ch.IsClosed() {
		return l.ch, nil
	}
	ch, err := c.Channel()
	if err == nil {
		l.ch = ch
	}
	return ch, err
}

// lane is a channel that deliveries are held on.
type lane struct {
	slot slot
	ch   *amqp.Channel
	sess *session
	// Guarded by Source.mu:
	busy   bool // taken for receiving
	since  time.Time
	leases map[*lease]struct{}
}

// finish runs do, the slot being taken, and returns when it has, or at the end
// of ctx: do goes on then, since a broker that is slow once is no reason to end
// the connection, which would lose every lease. What do did for nobody is
// reverted by undo (nil: nothing to revert).
func (s *Source) finish(ctx context.Context, c slot, do func() error, undo func()) error {
	const running, answered, left = 0, 1, 2
	var state atomic.Int32
	done := make(chan error, 1)
	started := s.spawn(func() {
		defer c.free()
		err := do()
		if !state.CompareAndSwap(running, answered) && err == nil && undo != nil {
			undo()
		}
		done <- err
	})
	if !started {
		c.free()
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if state.CompareAndSwap(running, left) {
			return context.Cause(ctx)
		}
		return <-done
	}
}

// lane takes a channel to receive on: of the present generation, or empty, or
// new. It is to be released.
func (s *Source) lane(ctx context.Context, sess *session) (*lane, error) {
	if l := s.pick(sess); l != nil {
		return l, nil
	}
	l := &lane{slot: newSlot(), sess: sess, busy: true, leases: map[*lease]struct{}{}}
	if err := l.slot.take(ctx); err != nil {
		return nil, err
	}
	return l, s.finish(ctx, l.slot, func() error {
		ch, err := sess.conn.Channel()
		if err != nil {
			return err
		}
		// A consumer gets one message: see probe.
		if err := ch.Qos(1, 0, false); err != nil {
			return err
		}
		l.ch = ch
		s.adopt(l)
		return nil
	}, func() { s.release(l) })
}

func (s *Source) pick(sess *session) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var empty, youngest *lane
	for _, l := range sess.lanes {
		switch {
		case l.busy:
		case len(l.leases) == 0:
			empty = l
		case now.Sub(l.since) < generation:
			l.busy = true
			return l
		case youngest == nil || l.since.After(youngest.since):
			youngest = l
		}
	}
	if empty == nil && len(sess.lanes) >= sess.most {
		empty = youngest
	}
	if empty != nil {
		empty.busy = true
	}
	return empty
}

// adopt registers a new channel and watches it.
func (s *Source) adopt(l *lane) {
	closes := l.ch.NotifyClose(make(chan *amqp.Error, 1))
	s.mu.Lock()
	l.sess.lanes = append(l.sess.lanes, l)
	s.mu.Unlock()
	s.spawn(func() { s.lose(l, <-closes) })
}

func (s *Source) release(l *lane) {
	s.mu.Lock()
	l.busy = false
	s.mu.Unlock()
	s.trim(l)
}

// trim closes an empty channel where there are enough of them.
func (s *Source) trim(l *lane) {
	s.mu.Lock()
	idle, at := 0, -1
	for i, x := range l.sess.lanes {
		if x == l {
			at = i
		}
		if !x.busy && len(x.leases) == 0 {
			idle++
		}
	}
	surplus := at >= 0 && !l.busy && len(l.leases) == 0 && idle > idleLanes
	if surplus {
		l.sess.remove(at)
	}
	s.mu.Unlock()
	if surplus {
		s.spawn(func() { _ = l.ch.Close() }) // an error means it is closed
	}
}

// remove forgets a channel; Source.mu must be held.
func (x *session) remove(at int) {
	last := len(x.lanes) - 1
	x.lanes[at], x.lanes[last] = x.lanes[last], nil
	x.lanes = x.lanes[:last]
}

// lose marks what was held on a channel that ended: the broker has given it to
// the queue again.
func (s *Source) lose(l *lane, reason *amqp.Error) {
	s.mu.Lock()
	for i, x := range l.sess.lanes {
		if x == l {
			l.sess.remove(i)
			break
		}
	}
	lost := len(l.leases) > 0
	for x := range l.leases {
		state := x.state
		s.drop(x)
		if state == held { // kept by its receipt, to say why
			x.lost = why(reason)
			s.leases[x.receipt] = x
		}
	}
	s.mu.Unlock()
	if lost {
		s.wakeUp()
	}
}
