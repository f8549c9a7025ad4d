package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// adoptTime is how long a living runner may take to connect again: its pauses
// are at most 5 s, and it may have begun one just now.
const adoptTime = 8 * time.Second

// Adopt implements fleet.Sandboxes.
func (s *Sandboxes) Adopt(ctx context.Context, spec fleet.SandboxSpec) (fleet.TaskID, int64, bool, error) {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return "", 0, false, fmt.Errorf("adopt sandbox %s: %w", spec.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.mu.Lock()
	b, held := s.boxes[spec.ID]
	if !held {
		b = newBox(spec, func(error) {})
		s.boxes[spec.ID] = b
	}
	s.mu.Unlock()
	if !held {
		b.err = s.takeOver(ctx, b)
		close(b.settled)
	}
	select {
	case <-b.settled:
	case <-ctx.Done():
		return "", 0, false, fmt.Errorf("adopt sandbox %s: %w", spec.ID, ctx.Err())
	}
	if b.err != nil {
		s.drop(b)
		if errors.Is(b.err, fleet.ErrUnavailable) || errors.Is(b.err, fleet.ErrDenied) {
			return "", 0, false, fmt.Errorf("adopt sandbox %s: %w", spec.ID, b.err)
		}
		s.o.Logger.Info("sandbox cannot be adopted", "sandbox", spec.ID, "error", b.err)
		return "", 0, false, nil
	}
	task, fence, alive := b.session.Held(ctx)
	if !alive && !s.holds(b) {
		return "", 0, false, fmt.Errorf("adopt sandbox %s: it was let go meanwhile: %w", spec.ID, fleet.ErrUnavailable)
	}
	if !alive {
		s.drop(b)
		return "", 0, false, nil
	}
	if pod := b.seen(); task != "" && (pod == nil || pod.Labels[kube.LabelState] != stateTaken) {
		s.taken(b, task) // the mark may not have been written any more
	}
	return task, fence, true, nil
}

// takeOver finds the pod of an earlier process and listens for its runner.
func (s *Sandboxes) takeOver(ctx context.Context, b *box) error {
	pod, err := s.maker.find(ctx, b.id)
	if err != nil {
		return err
	}
	switch e := ending(pod); {
	case e != nil:
		return e
	case pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodRunning:
		return errors.New("its pod is being deleted")
	}
	return s.establish(b, pod)
}
