package sqs

import (
	"context"
	"errors"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

const (
	// pollFor is the longest wait of a long poll: ReceiveMessage in the API
	// Reference.
	pollFor = 20 * time.Second
	// pushSlack is what a long poll's answer may take to arrive: the lease is
	// reckoned from that long before.
	pushSlack = 2 * time.Second
	// holdFree is how long a message that came by push waits to be asked for
	// where sandboxes were free, within the 5 s of the contract; holdBusy where
	// none was known to be.
	holdFree = 4500 * time.Millisecond
	holdBusy = time.Second
	// settleFor is how long the counts of SQS may be off: "at least 1 minute"
	// (GetQueueAttributes in the API Reference). An empty reading in that time
	// after a message went back does not start another long poll.
	settleFor = 90 * time.Second
	// rememberMost bounds what is kept of messages that went back.
	rememberMost = 10_000
)

// probe is the long poll that learns of arrivals. The lock of the source
// guards it.
//
//	disarmed --(nothing to receive, or an empty reading)--> armed
//	armed    --(a message came)--> held, and the reader is woken
//	held     --(Receive)--> disarmed, the message is the reader's
//	held     --(not asked for)--> returning --(given back)--> disarmed
//
// It takes one message at a time, and none while others wait: each delivery
// counts against the redrive policy of the queue.
type probe struct {
	armed, free bool // free: sandboxes waited when it was armed
	held        *holding
	returned    map[string]int // deliveries that were only ours, by message ID
	last        time.Time      // when one was given back
}

type holding struct {
	m         fleet.Message
	taken     chan struct{}
	returning bool
}

// arm lets the long poll begin; free says that it is on behalf of sandboxes
// that wait for a message.
func (s *Source) arm(free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe.held != nil {
		return
	}
	if !free && time.Since(s.probe.last) < settleFor {
		return
	}
	s.probe.armed, s.probe.free = true, s.probe.free || free
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// watch is the goroutine of the long poll.
func (s *Source) watch() {
	var pause connect.Backoff
	for {
		s.mu.Lock()
		armed := s.probe.armed
		visibility := min(max(s.visibility, 10*time.Second), time.Minute)
		s.mu.Unlock()
		if !armed {
			select {
			case <-s.life.Done():
				return
			case <-s.nudge:
			}
			continue
		}
		ctx, cancel := context.WithTimeout(s.life, pollFor+answerWithin)
		m, err := s.receive(ctx, 1, visibility, pollFor)
		cancel()
		switch {
		case s.life.Err() != nil:
			if len(m) > 0 {
				s.hold(m[0])
			}
			return
		case err != nil:
			// Whoever reads the queue is told of it; here it is only tried again.
			_ = pause.Wait(s.life)
		case len(m) > 0:
			pause.Reset()
			s.offer(s.hold(m[0]))
		default:
			pause.Reset()
		}
	}
}

// hold keeps a message that came by push.
func (s *Source) hold(m fleet.Message) (*holding, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &holding{m: m, taken: make(chan struct{})}
	span := holdBusy
	if s.probe.free {
		span = holdFree
	}
	s.probe.held, s.probe.armed, s.probe.free = h, false, false
	return h, span
}

// offer wakes the reader and gives the message back unless it is taken.
func (s *Source) offer(h *holding, span time.Duration) {
	s.signal()
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-s.life.Done(): // Close gives it back
		return
	case <-h.taken:
		return
	case <-timer.C:
	}
	s.mu.Lock()
	if s.probe.held != h {
		s.mu.Unlock()
		return
	}
	h.returning = true
	s.mu.Unlock()
	s.giveBack(h)
}

// giveBack returns a message to the queue; where that cannot be said to SQS it
// returns when its lease ends.
func (s *Source) giveBack(h *holding) {
	var pause connect.Backoff
	for time.Now().Before(h.m.Until) && s.life.Err() == nil {
		ctx, cancel := context.WithTimeout(s.life, answerWithin)
		err := s.changeOne(ctx, h.m.Receipt, 0)
		cancel()
		if err == nil || errors.Is(err, fleet.ErrFenced) {
			break
		}
		_ = pause.Wait(s.life)
	}
	s.drop(h.m.Receipt, lease{id: h.m.ID})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return // Close tries once more
	}
	s.probe.held, s.probe.last = nil, time.Now()
	if len(s.probe.returned) >= rememberMost {
		clear(s.probe.returned)
	}
	s.probe.returned[h.m.ID]++
}

// takeProbe hands out the message that is held, with a lease as asked for.
func (s *Source) takeProbe(ctx context.Context, visibility time.Duration) (m fleet.Message, ok bool, err error) {
	s.mu.Lock()
	h := s.probe.held
	if h == nil || h.returning {
		s.mu.Unlock()
		return m, false, nil
	}
	s.probe.held = nil
	close(h.taken)
	s.mu.Unlock()
	m = h.m
	// Most often it holds about as long as was asked for, and nothing need be said.
	if left := time.Until(m.Until); left >= visibility/2 && left <= visibility {
		return m, true, nil
	}
	l, handle, err := s.held(m)
	if err == nil {
		m.Until, err = s.extend(ctx, m.Receipt, handle, &l, visibility)
	}
	if errors.Is(err, fleet.ErrFenced) {
		return m, false, nil
	}
	return m, err == nil, err
}

// parked counts messages that SQS has in flight though they wait: the one that
// is held, and those that went back with a delay.
func (s *Source) parked() (held, delayed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if h := s.probe.held; h != nil && now.Before(h.m.Until) {
		held = 1
	}
	for _, w := range s.waits {
		if now.Before(w.due) {
			delayed++
		}
	}
	return held, delayed
}
