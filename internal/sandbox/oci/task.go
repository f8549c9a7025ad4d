package oci

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Claim implements fleet.Sandboxes.
func (s *Sandboxes) Claim(ctx context.Context, id fleet.SandboxID, a fleet.Assignment, sink fleet.TaskSink) error {
	b, err := s.find(id)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	b.meter.claimed()
	if err := b.session.Claim(ctx, a, &judge{TaskSink: sink, s: s, b: b}); err != nil {
		return fmt.Errorf("claim sandbox %s: %w", id, err)
	}
	s.watchTask(b)
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

// judge passes a task's events on and corrects the reason in its report by
// what only the outside knows: that a limit was hit.
type judge struct {
	fleet.TaskSink
	s *Sandboxes
	b *box
}

// Done implements fleet.TaskSink.
func (j *judge) Done(r fleet.RunReport) error {
	if r.Reason == fleet.ReasonExit || r.Reason == fleet.ReasonSetup {
		if u, err := j.s.read(j.b); err == nil {
			if reason, why := j.b.meter.verdict(u); reason != fleet.ReasonNone {
				r.Reason, r.Message = reason, why.Error()
			}
		}
	}
	if err := j.TaskSink.Done(r); err != nil {
		return err
	}
	j.b.mu.Lock()
	j.b.done = true
	j.b.mu.Unlock()
	return nil
}

// Usage implements fleet.Sandboxes.
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
	select {
	case <-b.settled:
	default:
		return fleet.Usage{}, fmt.Errorf("usage of sandbox %s: it is starting: %w", id, fleet.ErrUnavailable)
	}
	u, err := s.read(b)
	if err != nil {
		return fleet.Usage{}, fmt.Errorf("usage of sandbox %s: %w", id, err)
	}
	return u, nil
}

// read reads the counters of a sandbox, from outside it. Of one that has just
// ended it is the last reading.
func (s *Sandboxes) read(b *box) (fleet.Usage, error) {
	u := fleet.Usage{At: time.Now()}
	if b.rec.Cgroup != "" {
		var err error
		if u, err = s.group(b.id).Usage(); err != nil && !errors.Is(err, fleet.ErrNotFound) {
			return fleet.Usage{}, err
		}
		if err != nil {
			if last, ok := b.meter.latest(); ok {
				return last, nil
			}
			return fleet.Usage{}, err
		}
	}
	b.mu.Lock()
	if b.volume != nil && !b.released {
		if f, err := filling(b.volume); err == nil {
			u.DiskBytes, u.DiskFull = f.used, f.full
		}
	}
	b.mu.Unlock()
	if b.proxy != nil {
		u.NetSentBytes, u.NetReceivedBytes = b.proxy.Counters()
	}
	return b.meter.add(u, b.rec.Began), nil
}

// watchEvery is how often a sandbox with a task is looked at: often enough to
// see a full disk before a failed program has cleaned up behind itself, and to
// integrate memory over time.
const watchEvery = 500 * time.Millisecond

// watchTask reads the counters while a task runs.
func (s *Sandboxes) watchTask(b *box) {
	if !b.meter.beginWatch() {
		return
	}
	s.wg.Go(func() {
		t := time.NewTicker(watchEvery)
		defer t.Stop()
		for b.ready() {
			select {
			case <-s.ctx.Done():
				return
			case <-t.C:
				if _, err := s.read(b); err != nil {
					s.o.Logger.Debug("reading counters", "sandbox", b.id, "error", err)
				}
			}
		}
	})
}
