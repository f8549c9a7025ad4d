package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
)

// head remembers the message that is delivered next, which is read with its
// body, so that it is read once.
type head struct {
	mu     sync.Mutex
	stream time.Time // created
	seq    uint64
	at     time.Time
}

// Stats implements fleet.Signal: up to three requests at once, and one more
// where another message than before is next.
func (s *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	var st fleet.SignalStats
	err := s.call(ctx, "stats", func(ctx context.Context, ses *session) (err error) {
		q, err := s.attached(ctx, ses)
		if err != nil {
			return err
		}
		st, err = s.stats(ctx, ses, q)
		return err
	})
	if err != nil {
		return fleet.SignalStats{}, err
	}
	return st, nil
}

func (s *Source) stats(ctx context.Context, ses *session, q *queue) (fleet.SignalStats, error) {
	st := fleet.SignalStats{AsOf: time.Now()}
	var ci *jetstream.ConsumerInfo
	var errs [3]error
	var last uint64
	var wg sync.WaitGroup
	wg.Go(func() { ci, errs[0] = s.info(ctx, q) })
	if s.grave {
		wg.Go(func() { st.Dead, errs[1] = s.dead(ctx, ses) })
	}
	if q.whole {
		wg.Go(func() {
			var si *jetstream.StreamInfo
			if si, errs[2] = q.stream.Info(ctx); errs[2] == nil {
				last = si.State.LastSeq
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return st, err
		}
	}
	st.Backlog, st.InFlight = int64(ci.NumPending), int64(ci.NumAckPending) //nolint:gosec // below 2^63
	if st.Arrived = int64(last); !q.whole {                                 //nolint:gosec // as above
		// The stream counts what is not for us too. What waits and what was
		// delivered add up to what arrived, and to the deliveries again.
		st.Arrived = st.Backlog + int64(ci.Delivered.Consumer) //nolint:gosec // as above
	}
	oldest, ours := s.probe.waiting(ci.Delivered.Consumer)
	if ours {
		st.Backlog, st.InFlight, st.Oldest = st.Backlog+1, max(0, st.InFlight-1), oldest
	}
	if ci.NumPending > 0 {
		next, err := s.next(ctx, q, ci.Delivered.Stream)
		if err != nil {
			return st, err
		}
		if st.Oldest.IsZero() || !next.IsZero() && next.Before(st.Oldest) {
			st.Oldest = next
		}
	} else if st.Backlog == 0 {
		s.probe.empty()
	}
	return st, nil
}

// waiting tells of a message that the server counts as delivered and that waits
// for a consumer: the one that the probe holds, or gave back.
func (p *probe) waiting(deliveries uint64) (at time.Time, ours bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.got != nil && p.got.delivery <= deliveries:
		return time.Unix(0, p.got.at), true
	case p.back != nil && p.back.deliveries == deliveries:
		return time.Unix(0, p.back.at), true
	}
	return time.Time{}, false
}

// next returns when the message after the last one delivered was stored; zero
// where it cannot be told.
func (s *Source) next(ctx context.Context, q *queue, delivered uint64) (time.Time, error) {
	if q.filter == "" {
		return time.Time{}, nil
	}
	s.head.mu.Lock()
	defer s.head.mu.Unlock()
	created := q.stream.CachedInfo().Created
	if s.head.seq > delivered && s.head.stream.Equal(created) {
		return s.head.at, nil
	}
	m, err := q.stream.GetMsg(ctx, delivered+1, jetstream.WithGetMsgSubject(q.filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil // delivered or gone in between
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("next message: %w", explain(err))
	}
	s.head.stream, s.head.seq, s.head.at = created, m.Sequence, m.Time
	return m.Time, nil
}

// dead counts what was set aside.
func (s *Source) dead(ctx context.Context, ses *session) (int64, error) {
	d, err := ses.js.Stream(ctx, s.cfg.DeadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil // nothing ever was
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", s.cfg.DeadStream, explain(err))
	}
	return int64(d.CachedInfo().State.Msgs), nil //nolint:gosec // below 2^63
}
