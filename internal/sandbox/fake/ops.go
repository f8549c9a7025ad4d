package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Create implements fleet.Sandboxes.
func (s *Sandboxes) Create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	if !fleet.ValidID("s", string(spec.ID)) {
		return fleet.Isolation{}, fmt.Errorf("create %q: not a sandbox id: %w", spec.ID, fleet.ErrInvalid)
	}
	w := s.w
	w.mu.Lock()
	if b := w.boxes[spec.ID]; b != nil {
		w.mu.Unlock()
		return w.isolation(spec), b.awaitReady(ctx)
	}
	w.mu.Unlock()
	if err := s.enter(ctx, OpCreate); err != nil {
		return fleet.Isolation{}, err
	}
	b, first, err := w.begin(spec, s)
	if err != nil {
		return fleet.Isolation{}, err
	}
	if !first {
		return w.isolation(spec), b.awaitReady(ctx)
	}
	err = w.start(ctx, b)
	w.mu.Lock()
	if err != nil {
		w.stats.Failed++
		if w.boxes[spec.ID] == b {
			delete(w.boxes, spec.ID)
		}
	} else {
		w.stats.Created++
	}
	w.mu.Unlock()
	b.settle(err)
	if err != nil {
		return fleet.Isolation{}, fmt.Errorf("create %s: %w", spec.ID, err)
	}
	return w.isolation(spec), nil
}

func (w *world) begin(spec fleet.SandboxSpec, s *Sandboxes) (b *box, first bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.boxes[spec.ID]; b != nil {
		return b, false, nil
	}
	if w.o.MaxLive > 0 && len(w.boxes) >= w.o.MaxLive {
		return nil, false, fmt.Errorf("create %s: %d sandboxes exist: %w", spec.ID, len(w.boxes), fleet.ErrFull)
	}
	b = newBox(spec, s)
	w.boxes[spec.ID] = b
	w.stats.Creates++
	w.stats.MaxLive = max(w.stats.MaxLive, len(w.boxes))
	return b, true, nil
}

// start waits the lead time, bounded by the spec's startup time.
func (w *world) start(ctx context.Context, b *box) error {
	w.mu.Lock()
	leadOf, failure := w.o.Lead, w.o.CreateErr
	w.mu.Unlock()
	var lead time.Duration
	if leadOf != nil {
		lead = leadOf(b.spec)
	}
	late := b.spec.Startup > 0 && lead > b.spec.Startup
	if late {
		lead = b.spec.Startup
	}
	t := time.NewTimer(lead)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ended:
		return b.cause()
	case <-t.C:
	}
	if late {
		return &fleet.ReasonError{Reason: fleet.ReasonTimeoutStartup,
			Err: fmt.Errorf("not ready after %v (timeouts.startup)", b.spec.Startup)}
	}
	if failure != nil {
		return failure(b.spec)
	}
	return nil
}

func (w *world) isolation(spec fleet.SandboxSpec) fleet.Isolation {
	if w.o.Isolation.Runtime != "" {
		return w.o.Isolation
	}
	return fleet.Isolation{
		Runtime: fleet.RuntimeFake, UserNamespace: true, UID: 1000, HostUID: 201000,
		NoNewPrivs: true, Seccomp: true, ReadOnlyRoot: true, Cgroups: "v2",
		Volume: "loop", Network: spec.Network.Mode,
	}
}

// Claim implements fleet.Sandboxes.
func (s *Sandboxes) Claim(ctx context.Context, id fleet.SandboxID, a fleet.Assignment, sink fleet.TaskSink) error {
	if err := s.enter(ctx, OpClaim); err != nil {
		return err
	}
	b, err := s.find(id)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	s.w.mu.Lock()
	script := s.w.o.Script
	s.w.mu.Unlock()
	first, err := b.claim(a, script)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	if first {
		s.w.mu.Lock()
		s.w.stats.Claims++
		s.w.mu.Unlock()
	}
	gen := b.attach()
	s.pumps.Go(func() { b.pump(gen, sink, s.closed) })
	return nil
}

// Stop implements fleet.Sandboxes.
func (s *Sandboxes) Stop(ctx context.Context, id fleet.SandboxID, reason fleet.TaskReason, grace time.Duration) error {
	if err := s.enter(ctx, OpStop); err != nil {
		return err
	}
	b, err := s.find(id)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	b.stop(reason, grace)
	return nil
}

// Exec implements fleet.Sandboxes.
func (s *Sandboxes) Exec(ctx context.Context, id fleet.SandboxID, r fleet.ExecRequest) (int, error) {
	if err := s.enter(ctx, OpExec); err != nil {
		return -1, err
	}
	b, err := s.find(id)
	if err != nil {
		return -1, fmt.Errorf("exec: %w", err)
	}
	if s.w.o.Exec != nil {
		return s.w.o.Exec(ctx, b.spec, r)
	}
	if r.Stdout != nil {
		_, _ = fmt.Fprintln(r.Stdout, strings.Join(r.Command, " "))
	}
	return 0, nil
}

// Usage implements fleet.Sandboxes.
func (s *Sandboxes) Usage(ctx context.Context, id fleet.SandboxID) (fleet.Usage, error) {
	if err := s.enter(ctx, OpUsage); err != nil {
		return fleet.Usage{}, err
	}
	s.w.mu.Lock()
	b := s.w.boxes[id]
	s.w.mu.Unlock()
	if b == nil || !b.drivenBy(s) {
		return fleet.Usage{}, fmt.Errorf("usage: sandbox %s: %w", id, fleet.ErrNotFound)
	}
	now := time.Now()
	age := now.Sub(b.created)
	if s.w.o.Usage != nil {
		return s.w.o.Usage(b.spec, age), nil
	}
	const idle = 2 << 20 // bytes a waiting runner holds
	u := fleet.Usage{
		At: now, CPU: age / 100, MemoryBytes: idle, MemoryPeakBytes: idle,
		MemoryByteSeconds: int64(age.Seconds() * idle), Pids: 5, PidsPeak: 5,
	}
	return u, nil
}

// Destroy implements fleet.Sandboxes.
func (s *Sandboxes) Destroy(ctx context.Context, id fleet.SandboxID) error {
	if err := s.enter(ctx, OpDestroy); err != nil {
		return err
	}
	s.w.mu.Lock()
	b := s.w.boxes[id]
	if b != nil {
		delete(s.w.boxes, id)
		s.w.stats.Destroyed++
	}
	s.w.mu.Unlock()
	if b == nil {
		return nil
	}
	why := errors.New("sandbox was destroyed")
	if was := b.end(why); (was == stateReady || was == stateBusy) && !b.drivenBy(s) {
		s.w.announce(b, fleet.SandboxExit{ID: id, At: time.Now(), Reason: fleet.ReasonNodeLost, Err: why}) // behind the back of who holds it
	}
	b.wait()
	return nil
}

// List implements fleet.Sandboxes.
func (s *Sandboxes) List(ctx context.Context) ([]fleet.SandboxID, error) {
	if err := s.enter(ctx, OpList); err != nil {
		return nil, err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.Sorted(maps.Keys(s.w.boxes)), nil
}

// Adopt implements fleet.Sandboxes.
func (s *Sandboxes) Adopt(ctx context.Context, spec fleet.SandboxSpec) (fleet.TaskID, int64, bool, error) {
	if err := s.enter(ctx, OpAdopt); err != nil {
		return "", 0, false, err
	}
	s.w.mu.Lock()
	b := s.w.boxes[spec.ID]
	s.w.mu.Unlock()
	if b == nil || !b.isReady() {
		return "", 0, false, nil
	}
	if err := b.adopt(ctx, s); err != nil {
		if ctx.Err() != nil || s.isClosed() {
			return "", 0, false, fmt.Errorf("adopt %s: %w", spec.ID, err)
		}
		return "", 0, false, nil
	}
	if !b.alive() {
		return "", 0, false, nil
	}
	task, fence := b.held()
	return task, fence, true, nil
}
