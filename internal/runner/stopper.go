//go:build linux

package runner

import (
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// stopper carries a request to end the task. A nil stopper never does.
type stopper struct {
	mu     sync.Mutex
	set    bool
	reason fleet.TaskReason
	grace  time.Duration
	ch     chan struct{}
}

func newStopper() *stopper { return &stopper{ch: make(chan struct{}, 1)} }

// request asks to stop; a later request may only shorten the grace.
func (s *stopper) request(reason fleet.TaskReason, grace time.Duration) {
	s.mu.Lock()
	if !s.set {
		s.set, s.reason, s.grace = true, reason, grace
	}
	s.grace = min(s.grace, max(grace, 0))
	s.mu.Unlock()
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

func (s *stopper) asked() (fleet.TaskReason, time.Duration, bool) {
	if s == nil {
		return "", 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.grace, s.set
}

func (s *stopper) signal() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.ch
}
