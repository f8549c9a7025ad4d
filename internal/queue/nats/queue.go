package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
)

// queue is the consumer with its stream, as found.
type queue struct {
	stream jetstream.Stream
	cons   consumer
	// hold is how long the server waits for a sign of life.
	hold time.Duration
	// expires bounds one request that waits for a message.
	expires time.Duration
	batch   int // most messages of one request
	// filter is the one subject the consumer takes, ">" for all, empty for several.
	filter string
	// whole: the consumer takes every message of the stream.
	whole bool
	// once: what was acknowledged is gone from the stream.
	once     bool
	replicas int
}

// consumer is what readings need of one that pulls or is pushed to.
type consumer interface {
	Info(ctx context.Context) (*jetstream.ConsumerInfo, error)
	CachedInfo() *jetstream.ConsumerInfo
}

// attached returns the queue, looked up at first use and after it was lost.
func (s *Source) attached(ctx context.Context, ses *session) (*queue, error) {
	ses.mu.Lock()
	q := ses.queue
	ses.mu.Unlock()
	if q != nil {
		return q, nil
	}
	stream, err := ses.js.Stream(ctx, s.cfg.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.cfg.Stream, explain(err))
	}
	cons, err := s.consumer(ctx, ses, stream.CachedInfo())
	if err != nil {
		return nil, fmt.Errorf("consumer %s of stream %s: %w", s.cfg.Consumer, s.cfg.Stream, explain(err))
	}
	if s.cfg.ReadOnly {
		q, err = readable(stream, cons)
	} else {
		q, err = fitting(stream, cons)
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s of stream %s: %w", s.cfg.Consumer, s.cfg.Stream, err)
	}
	ses.mu.Lock()
	ses.queue = q
	ses.mu.Unlock()
	return q, nil
}

// consumer looks the consumer up. One that is missing is made, unless others
// are to do so.
func (s *Source) consumer(ctx context.Context, ses *session, info *jetstream.StreamInfo) (consumer, error) {
	c, err := ses.js.Consumer(ctx, s.cfg.Stream, s.cfg.Consumer)
	switch {
	case s.cfg.ReadOnly && errors.Is(err, jetstream.ErrNotPullConsumer):
		return ses.js.PushConsumer(ctx, s.cfg.Stream, s.cfg.Consumer)
	case errors.Is(err, jetstream.ErrConsumerNotFound) && !s.cfg.Bind && !s.cfg.ReadOnly:
		return ses.js.CreateConsumer(ctx, s.cfg.Stream, s.consumerConfig(info))
	}
	return c, err
}

// detach forgets the queue: its stream or consumer is gone, and what comes next
// under that name is another one.
func (ses *session) detach() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.queue = nil
}

// consumerConfig describes the consumer that is created.
func (s *Source) consumerConfig(info *jetstream.StreamInfo) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       s.cfg.Consumer,
		Description:   "tasks of Muster",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.cfg.AckWait,
		MaxAckPending: s.cfg.MaxAckPending,
		// Which message is poison is for the dispatcher to say, with a reason.
		MaxDeliver:    -1,
		FilterSubject: s.cfg.Subject,
	}
	// A consumer that was deleted while in use goes on where it was: a stream
	// that keeps its messages would have every task run again.
	if p := s.progress.Load(); p != nil && info.Config.Retention != jetstream.WorkQueuePolicy && p.stream.Equal(info.Created) && p.floor > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, p.floor+1
	}
	return c
}

// readable checks that a consumer tells what is in flight; how it delivers is
// for those who work it off.
func readable(stream jetstream.Stream, cons consumer) (*queue, error) {
	if cons.CachedInfo().Config.AckPolicy == jetstream.AckNonePolicy {
		return nil, fmt.Errorf("it acknowledges nothing, so that nobody knows what is being worked on: %w", fleet.ErrInvalid)
	}
	return found(stream, cons), nil
}

// found is the queue of a consumer.
func found(stream jetstream.Stream, cons consumer) *queue {
	si, c := stream.CachedInfo(), cons.CachedInfo().Config
	q := &queue{
		stream: stream, cons: cons, hold: c.AckWait, expires: probeExpires, batch: maxBatch, filter: c.FilterSubject,
		whole: c.FilterSubject == "" && len(c.FilterSubjects) == 0,
		once:  si.Config.Retention == jetstream.WorkQueuePolicy, replicas: max(1, si.Config.Replicas),
	}
	switch {
	case q.whole:
		q.filter = ">"
	case len(c.FilterSubjects) == 1:
		q.filter = c.FilterSubjects[0]
	case len(c.FilterSubjects) > 1:
		q.filter = ""
	}
	return q
}

// fitting checks that a consumer keeps leases.
func fitting(stream jetstream.Stream, cons consumer) (*queue, error) {
	c := cons.CachedInfo().Config
	switch {
	case c.DeliverSubject != "":
		return nil, fmt.Errorf("it is a push consumer, want a pull consumer: %w", fleet.ErrInvalid)
	case c.AckPolicy != jetstream.AckExplicitPolicy:
		return nil, fmt.Errorf("it acknowledges %s, want explicit: %w", c.AckPolicy, fleet.ErrInvalid)
	case c.HeadersOnly:
		return nil, fmt.Errorf("it delivers headers only, want bodies too: %w", fleet.ErrInvalid)
	}
	q := found(stream, cons)
	for _, d := range c.BackOff { // stands in for AckWait, by delivery
		q.hold = min(q.hold, d)
	}
	if q.hold < time.Second {
		return nil, fmt.Errorf("its AckWait (or BackOff) of %s is too short to keep a lease alive, want 1s or more: %w", q.hold, fleet.ErrInvalid)
	}
	if c.MaxRequestExpires > 0 {
		q.expires = min(q.expires, c.MaxRequestExpires)
	}
	if c.MaxRequestBatch > 0 {
		q.batch = min(q.batch, c.MaxRequestBatch)
	}
	return q, nil
}

// progress is how far the consumer has come, in one life of the stream.
type progress struct {
	stream time.Time // created
	floor  uint64    // every message up to it is settled
}

// info reads the consumer; it does not grow with the queue.
func (s *Source) info(ctx context.Context, q *queue) (*jetstream.ConsumerInfo, error) {
	i, err := q.cons.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", s.cfg.Consumer, explain(err))
	}
	s.progress.Store(&progress{stream: q.stream.CachedInfo().Created, floor: i.AckFloor.Stream})
	return i, nil
}
