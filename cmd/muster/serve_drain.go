package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
)

// lastWord is how long tasks that are ended have to report.
const lastWord = time.Minute

// Drain implements operator.Runner.
func (r *fleetInCluster) Drain(ctx context.Context, patience time.Duration) error {
	r.k.front.Close(r.f.Namespace, r.f.Name, r.server)
	if !r.ended() {
		r.takeOver(ctx)
		patient, cancel := context.WithTimeout(ctx, patience)
		err := r.control.Quiesce(patient, false)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.log.Info("ending the tasks of a deleted fleet", "error", err)
			last, cancel := context.WithTimeout(ctx, lastWord)
			err = r.control.Quiesce(last, true)
			cancel()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.log.Warn("the sandboxes of tasks that do not end are removed with them", "error", err)
		}
		r.told.close()
		select {
		case <-r.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(r.giveBack(ctx), operator.Sweep(ctx, r.k.dynamic, r.f.Key))
}

// takeOver waits for what an earlier process has left, where this one was begun
// only to drain: its tasks have the same patience, and nodes that are not known
// are not given back. What cannot be taken over is removed all the same.
func (r *fleetInCluster) takeOver(ctx context.Context) {
	r.control.Freeze()
	ctx, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	select {
	case <-r.control.Recovered():
	case <-r.over:
		return
	case <-ctx.Done():
		return
	}
	if r.boxes == nil || !r.elastic() {
		return
	}
	for {
		if _, err := r.nodes.List(ctx); err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.over:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *fleetInCluster) ended() bool {
	select {
	case <-r.over:
		return true
	default:
		return false
	}
}

// giveBack removes the sandboxes that are left and returns the nodes.
func (r *fleetInCluster) giveBack(ctx context.Context) error {
	if r.boxes == nil {
		return nil
	}
	ids, err := r.boxes.List(ctx)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, id := range ids {
		g.Go(func() error { return r.boxes.Destroy(gctx, id) })
	}
	if err := g.Wait(); err != nil || !r.elastic() {
		return err
	}
	return r.giveNodesBack(ctx)
}

func (r *fleetInCluster) giveNodesBack(ctx context.Context) error {
	list, err := r.nodes.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range list {
		// One that another fleet's sandboxes are on, or that was cordoned by hand,
		// is theirs.
		if err := r.nodes.Release(ctx, n.ID); err != nil && !errors.Is(err, fleet.ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
