package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Claim implements fleet.Sandboxes: one message over the link. The API server
// hears of it later, if at all.
func (s *Sandboxes) Claim(ctx context.Context, id fleet.SandboxID, a fleet.Assignment, sink fleet.TaskSink) error {
	b, err := s.find(id)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	if err := b.session.Claim(ctx, a, &ear{TaskSink: sink, b: b}); err != nil {
		return fmt.Errorf("claim sandbox %s: %w", id, err)
	}
	s.taken(b, a.Task)
	return nil
}

// ear passes a task's events on and remembers that there was a report: the end
// of the pod is no surprise then.
type ear struct {
	fleet.TaskSink
	b *box
}

// Done implements fleet.TaskSink.
func (e *ear) Done(r fleet.RunReport) error {
	if err := e.TaskSink.Done(r); err != nil {
		return err
	}
	e.b.mu.Lock()
	e.b.done = true
	e.b.mu.Unlock()
	return nil
}

// Stop implements fleet.Sandboxes.
func (s *Sandboxes) Stop(ctx context.Context, id fleet.SandboxID, reason fleet.TaskReason, grace time.Duration) error {
	b, err := s.find(id)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := b.session.Stop(ctx, reason, grace); err != nil {
		return fmt.Errorf("stop sandbox %s: %w", id, err)
	}
	return nil
}

// Exec implements fleet.Sandboxes.
func (s *Sandboxes) Exec(ctx context.Context, id fleet.SandboxID, r fleet.ExecRequest) (int, error) {
	b, err := s.find(id)
	if err != nil {
		return -1, fmt.Errorf("exec: %w", err)
	}
	code, err := b.session.Exec(ctx, r)
	if err != nil {
		return code, fmt.Errorf("exec in sandbox %s: %w", id, err)
	}
	return code, nil
}

// Usage implements fleet.Sandboxes. What the cluster does not measure is
// fleet.ErrUnavailable, never zero.
func (s *Sandboxes) Usage(ctx context.Context, id fleet.SandboxID) (fleet.Usage, error) {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return fleet.Usage{}, fmt.Errorf("usage of sandbox %s: %w", id, err)
	}
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil {
		return fleet.Usage{}, fmt.Errorf("usage of sandbox %s: %w", id, fleet.ErrNotFound)
	}
	name := string(id)
	if pod := b.seen(); pod != nil {
		name = pod.Name
	}
	r, err := s.metrics.of(ctx, name)
	if err != nil {
		return fleet.Usage{}, fmt.Errorf("usage of sandbox %s: %w", id, err)
	}
	u := b.meter.add(r)
	if b.proxy != nil {
		u.NetSentBytes, u.NetReceivedBytes = b.proxy.Counters()
	}
	return u, nil
}
