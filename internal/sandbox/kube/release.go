package kube

import (
	"context"
	"errors"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// Release implements fleet.Releaser.
func (s *Sandboxes) Release(ctx context.Context, id fleet.SandboxID) error {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return fmt.Errorf("release sandbox %s: %w", id, err)
	}
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil {
		return nil
	}
	b.fail(errReleased) // a Create that is under way is undone
	select {
	case <-b.settled:
	case <-ctx.Done():
		return fmt.Errorf("release sandbox %s: %w", id, ctx.Err())
	}
	b.mu.Lock()
	over := b.ended || b.err != nil // what a failed Create left is still the watch's
	b.mu.Unlock()
	// Forgotten first, so that it can be adopted at once; and known to be let go
	// before that, so that the watch takes its pod for nobody's orphan.
	s.mu.Lock()
	held := s.boxes[id] == b
	if held {
		if b.uid != "" && !over {
			s.let[b.uid] = true
		}
		delete(s.boxes, id)
	}
	s.mu.Unlock()
	if !held {
		return nil
	}
	return s.release(b)
}

var errReleased = fmt.Errorf("the sandbox was let go while it started: %w", fleet.ErrConflict)
