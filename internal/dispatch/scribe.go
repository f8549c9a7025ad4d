package dispatch

import (
	"context"
	"log/slog"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// Scribe is a journal that writes events in the background, those that come
// while a write is under way together in the next one, so that a thousand
// tasks a second cost a few writes and no task waits for its event. Order is
// kept. A kill loses the events of the last milliseconds, and no task: the
// store's records are the truth.
type Scribe struct {
	fleet.Journal
	log *slog.Logger

	mu      sync.Mutex
	room    sync.Cond
	pending []fleet.Event
	closed  bool
	kick    chan struct{}
	done    chan struct{}
}

// mostPending bounds events in memory; beyond it writers wait.
const mostPending = 10_000

// NewScribe returns a Scribe over j; Run writes.
func NewScribe(j fleet.Journal, log *slog.Logger) *Scribe {
	s := &Scribe{Journal: j, log: log, kick: make(chan struct{}, 1), done: make(chan struct{})}
	s.room.L = &s.mu
	return s
}

// AppendEvents queues events; it returns them without their sequence.
func (s *Scribe) AppendEvents(_ context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	s.mu.Lock()
	for len(s.pending) >= mostPending && !s.closed {
		s.room.Wait()
	}
	s.pending = append(s.pending, ev...)
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
	return ev, nil
}

// Run writes until close; then it writes the rest and returns.
func (s *Scribe) Run(ctx context.Context) {
	defer close(s.done)
	for {
		s.mu.Lock()
		batch, closed := s.pending, s.closed
		s.pending = nil
		s.room.Broadcast()
		s.mu.Unlock()
		if len(batch) > 0 {
			if _, err := s.Journal.AppendEvents(ctx, batch); err != nil {
				s.log.Warn("cannot journal events", "count", len(batch), "first", batch[0].Kind, "error", err)
			}
			continue
		}
		if closed {
			return
		}
		<-s.kick
	}
}

// Close writes what is left and ends Run, which must have been started.
func (s *Scribe) Close() {
	s.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
	<-s.done
}
