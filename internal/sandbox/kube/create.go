package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Create implements fleet.Sandboxes.
func (s *Sandboxes) Create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	iso, err := s.create(ctx, spec)
	if err != nil {
		return fleet.Isolation{}, fmt.Errorf("create sandbox %s: %w", spec.ID, err)
	}
	return iso, nil
}

func (s *Sandboxes) create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	if err := errors.Join(ctx.Err(), s.open(), s.check(spec)); err != nil {
		return fleet.Isolation{}, err
	}
	making, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(s.ctx, func() { fail(errClosed) })()
	s.mu.Lock()
	if b := s.boxes[spec.ID]; b != nil {
		s.mu.Unlock()
		return b.await(ctx)
	}
	b := newBox(spec, fail)
	b.attempt = s.process + "." + string(spec.ID)
	s.boxes[spec.ID] = b
	s.mu.Unlock()

	b.err = s.bringUp(making, b)
	if b.err != nil {
		s.undo(b)
	}
	close(b.settled)
	return b.isolation, b.err
}

// bringUp makes the pod and waits until its runner is ready.
func (s *Sandboxes) bringUp(ctx context.Context, b *box) error {
	var err error
	if b.class, b.runtime, err = s.classFor(ctx, b.spec.Runtime); err != nil {
		return err
	}
	if b.spec.Startup > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, b.spec.Startup, errStartup)
		defer cancel()
	}
	began := s.o.Clock()
	pod, err := s.maker.create(ctx, b)
	if err != nil {
		return s.startError(ctx, b, err)
	}
	if err := s.establish(b, pod); err != nil {
		return err
	}
	if err := b.session.Ready(ctx); err != nil {
		return s.startError(ctx, b, err)
	}
	if b.isolation, err = s.isolationOf(ctx, b); err != nil {
		return s.startError(ctx, b, err)
	}
	s.o.Logger.Debug("sandbox ready", "sandbox", b.id, "node", b.isolation.Node, "took", s.o.Clock().Sub(began))
	return nil
}

var errStartup = errors.New("the startup time was used up")

// startError says why a start failed: what the cluster said of the pod where
// that is known, and what it was waiting for where the time was used up.
func (s *Sandboxes) startError(ctx context.Context, b *box, err error) error {
	cause := context.Cause(ctx)
	var r *fleet.ReasonError
	switch {
	case errors.As(err, &r), cause == nil:
		return err
	case errors.Is(cause, errStartup):
		return &fleet.ReasonError{Reason: fleet.ReasonTimeoutStartup,
			Err: fmt.Errorf("not ready after %v (timeouts.startup): %w", b.spec.Startup, s.waitingFor(b, err))}
	}
	return cause
}

// waitingFor says what a start was waiting for when it was given up.
func (s *Sandboxes) waitingFor(b *box, err error) error {
	if pod := b.seen(); pod != nil {
		if text := pendingWords(pod); text != "" {
			return errors.New(text)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blind != nil {
		return fmt.Errorf("%w; what happens to pods cannot be watched: %w", err, s.blind)
	}
	return err
}

// undoTime bounds the removal of what a failed Create left.
const undoTime = 30 * time.Second

// undo removes what a failed Create left, also when its context has ended.
func (s *Sandboxes) undo(b *box) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), undoTime)
	defer cancel()
	b.mu.Lock()
	sent := b.sent
	b.mu.Unlock()
	if sent {
		if err := s.maker.remove(ctx, b); err != nil {
			s.o.Logger.Error("removing a sandbox that did not start", "sandbox", b.id, "error", err)
			return // stays in List for the reaper
		}
	}
	s.forget(b)
}
