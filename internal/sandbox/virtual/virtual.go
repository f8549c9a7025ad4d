// Package virtual is an adapter of fleet.Sandboxes that only counts: for a
// fleet whose workers somebody else starts and stops (a KEDA ScaledObject that
// takes Muster's plan as its metric) and for shadow mode, in which nothing is
// started at all. A sandbox becomes ready when its assumed start time is over.
// No task can run in one. It may import fleet only.
package virtual

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Sandboxes implements fleet.Sandboxes.
type Sandboxes struct {
	start time.Duration
	mu    sync.Mutex
	ids   map[fleet.SandboxID]bool
}

var _ fleet.Sandboxes = (*Sandboxes)(nil)

// New returns sandboxes that take start (0 or more) to become ready.
func New(start time.Duration) *Sandboxes {
	return &Sandboxes{start: start, ids: map[fleet.SandboxID]bool{}}
}

// Create implements fleet.Sandboxes: it waits for the start time.
func (s *Sandboxes) Create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	t := time.NewTimer(s.start)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fleet.Isolation{}, ctx.Err()
	case <-t.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[spec.ID] = true
	return fleet.Isolation{}, nil
}

func (s *Sandboxes) none(id fleet.SandboxID) error {
	return fmt.Errorf("sandbox %s is only counted, nothing runs in it: %w", id, fleet.ErrInvalid)
}

// Claim implements fleet.Sandboxes; ErrInvalid.
func (s *Sandboxes) Claim(_ context.Context, id fleet.SandboxID, _ fleet.Assignment, _ fleet.TaskSink) error {
	return s.none(id)
}

// Stop implements fleet.Sandboxes; ErrInvalid.
func (s *Sandboxes) Stop(_ context.Context, id fleet.SandboxID, _ fleet.TaskReason, _ time.Duration) error {
	return s.none(id)
}

// Exec implements fleet.Sandboxes; ErrInvalid.
func (s *Sandboxes) Exec(_ context.Context, id fleet.SandboxID, _ fleet.ExecRequest) (int, error) {
	return 0, s.none(id)
}

// Usage implements fleet.Sandboxes; ErrInvalid: what others' workers use is not
// known.
func (s *Sandboxes) Usage(_ context.Context, id fleet.SandboxID) (fleet.Usage, error) {
	return fleet.Usage{}, s.none(id)
}

// Destroy implements fleet.Sandboxes.
func (s *Sandboxes) Destroy(_ context.Context, id fleet.SandboxID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
	return nil
}

// List implements fleet.Sandboxes.
func (s *Sandboxes) List(context.Context) ([]fleet.SandboxID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]fleet.SandboxID, 0, len(s.ids))
	for id := range s.ids {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// Adopt implements fleet.Sandboxes: what is on record goes on being counted.
func (s *Sandboxes) Adopt(_ context.Context, spec fleet.SandboxSpec) (fleet.TaskID, int64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[spec.ID] = true
	return "", 0, true, nil
}

// Exited implements fleet.Sandboxes: none ever ends by itself.
func (s *Sandboxes) Exited() <-chan fleet.SandboxExit { return nil }

// Close implements fleet.Sandboxes.
func (s *Sandboxes) Close() error { return nil }
