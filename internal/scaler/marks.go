package scaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// remark marks the chosen and takes the marks of everybody else away.
func (s *Scaler) remark(ctx context.Context, now time.Time, ws []worker, chosen []*worker) error {
	going := make(map[*worker]bool, len(chosen))
	for _, w := range chosen {
		going[w] = true
	}
	if len(chosen) > 0 {
		s.marked = true
	}
	return each(ws, func(w *worker) error {
		switch marked := !w.leaving.IsZero(); {
		case going[w] && !marked:
			if err := s.mark(ctx, now, w); err != nil {
				return err
			}
			w.leaving = now
		case !going[w] && marked:
			return s.spare(ctx, w)
		}
		return nil
	})
}

// unmark takes all marks away once the last step is carried out: nobody who
// stays keeps a cost of ours, or refuses work.
func (s *Scaler) unmark(ctx context.Context, sc *scaleObject, out *outcome) error {
	if s.o.Reports == ReportsOff || s.swept && !s.marked {
		return nil
	}
	ws, err := s.workers(ctx, s.o.Clock(), sc)
	if err != nil {
		return err
	}
	if len(ws) > out.replicas {
		// Some are still to be chosen from, and the marks say whom to choose.
		s.marked = s.marked || anyMarked(ws)
		out.again = stepEvery
		return nil
	}
	err = each(ws, func(w *worker) error {
		if w.leaving.IsZero() {
			return nil
		}
		return s.spare(ctx, w)
	})
	if err != nil {
		return err
	}
	s.swept, s.marked = true, false
	return nil
}

func anyMarked(ws []worker) bool {
	for i := range ws {
		if !ws[i].leaving.IsZero() {
			return true
		}
	}
	return false
}

// each calls f for all workers, some at a time; the first error is returned.
func each(ws []worker, f func(*worker) error) error {
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for i := range ws {
		g.Go(func() error { return f(&ws[i]) })
	}
	return g.Wait()
}

// mark says that a pod is to go first.
func (s *Scaler) mark(ctx context.Context, now time.Time, w *worker) error {
	a := map[string]any{AnnotationLeaving: now.UTC().Format(time.RFC3339Nano)}
	if w.kind == "ReplicaSet" || w.kind == "ReplicationController" {
		a[kube.AnnotationDeletionCost] = leavingCost
		if w.cost != "" {
			a[AnnotationCostBefore] = w.cost
		}
	}
	return s.annotate(ctx, w, a)
}

// spare says that a pod stays after all, as it was before.
func (s *Scaler) spare(ctx context.Context, w *worker) error {
	if w.drains && w.ask != "" {
		if err := s.undrain(ctx, w.ask); err != nil {
			return fmt.Errorf("let pod %s take work again: %w", w.name, err)
		}
	}
	a := map[string]any{AnnotationLeaving: nil, AnnotationCostBefore: nil}
	if w.cost == leavingCost {
		a[kube.AnnotationDeletionCost] = nil
		if w.before != "" {
			a[kube.AnnotationDeletionCost] = w.before
		}
	}
	return s.annotate(ctx, w, a)
}

// annotate sets annotations, and removes those that are nil. A pod that is gone
// needs none.
func (s *Scaler) annotate(ctx context.Context, w *worker, a map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": a}})
	if err != nil {
		return fmt.Errorf("encode annotations: %w", err)
	}
	_, err = s.c.kube.CoreV1().Pods(s.o.Namespace).Patch(ctx, w.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: kube.Owner})
	if err = (call{"patch", schema.GroupResource{Resource: "pods"}, "", &s.o}).wrapAny(err); errors.Is(err, fleet.ErrNotFound) {
		return nil
	}
	return err
}

// undrain tells a worker to take work again.
func (s *Scaler) undrain(ctx context.Context, host string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+host+"/drain", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := s.c.web.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", err, fleet.ErrUnavailable)
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("DELETE /drain: %s: %w", resp.Status, fleet.ErrUnavailable)
	}
	return nil
}
