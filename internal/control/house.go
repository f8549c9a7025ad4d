package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

const (
	settingPools = "control.pools"
	saveEvery    = 30 * time.Second
	pruneEvery   = time.Minute
	batch        = 1000
)

// keepHouse does what is due on the ticks: tasks that waited too long, old
// tasks, measurements to keep.
func (e *Engine) keepHouse(ctx context.Context) {
	now := e.c.Clock()
	old, err := e.c.Store.ExpireQueued(ctx, now, batch)
	if err != nil && ctx.Err() == nil {
		e.c.Logger.Warn("cannot expire tasks that waited too long", "error", err)
	}
	for _, t := range old {
		e.record(ctx, fleet.Event{Kind: "task_settled", Layer: "tasks", Task: t.ID, Pool: t.Spec.Pool, Reason: "timed_out: " + t.Result.Message})
	}
	if due(&e.pruned, now, pruneEvery) {
		e.prune(ctx, now)
		e.forget()
	}
	if due(&e.saved, now, saveEvery) {
		if err := errors.Join(e.save(ctx), e.saveShadow(ctx)); err != nil && ctx.Err() == nil {
			e.c.Logger.Warn("cannot keep measurements", "error", err)
		}
	}
	e.guard(ctx, false)
	if due(&e.kept, now, keepEvery) {
		if err := e.keepHistory(ctx, false); err != nil && ctx.Err() == nil {
			e.c.Logger.Warn("cannot keep the history", "error", err)
		}
	}
}

// due reports whether a span has passed since last, and notes now if so.
func due(last *time.Time, now time.Time, every time.Duration) bool {
	if now.Sub(*last) < every && !now.Before(*last) {
		return false
	}
	*last = now
	return true
}

func (e *Engine) prune(ctx context.Context, now time.Time) {
	e.mu.Lock()
	keep := e.spec.Retention
	e.mu.Unlock()
	if keep <= 0 {
		return
	}
	gone, err := e.c.Store.Prune(ctx, now.Add(-keep), batch)
	if err != nil {
		if ctx.Err() == nil {
			e.c.Logger.Warn("cannot prune old tasks", "error", err)
		}
		return
	}
	for _, id := range gone {
		if e.c.Archive == nil {
			break
		}
		if err := e.c.Archive.Remove(id); err != nil {
			e.c.Logger.Warn("cannot remove what a pruned task left", "task", id, "error", err)
		}
	}
}

// sweep removes what tasks have left that the store does not know any more: a
// kill between pruning a task and removing what it left. A task is stored
// before it can leave anything.
func (e *Engine) sweep(ctx context.Context) error {
	if e.c.Archive == nil {
		return nil // no task ever ran here
	}
	return e.c.Archive.Tasks(func(id fleet.TaskID) error {
		if _, err := e.c.Store.Task(ctx, id); !errors.Is(err, fleet.ErrNotFound) {
			return errors.Join(ctx.Err(), err)
		}
		return e.c.Archive.Remove(id)
	})
}

// forget drops what is remembered of pools that are no longer there: variants
// come and go with the tasks that ask for them.
func (e *Engine) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key := range e.pools {
		if _, seen := slices.BinarySearchFunc(e.last.o.Pools, key, func(p plan.Pool, key fleet.PoolKey) int {
			return cmp.Compare(p.Key, key)
		}); !seen {
			delete(e.pools, key)
			delete(e.said, key)
		}
	}
}

// load reads what an earlier process measured. What cannot be decoded is left
// out and measured anew: none of it is truth, the store and the host are.
func (e *Engine) load(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, to := range map[string]any{settingState: e.state, settingPools: &e.pools, settingLayer: &e.layer, settingShadow: &e.shadow} {
		b, err := e.c.Store.Setting(ctx, key)
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if b == nil {
			continue
		}
		if err := json.Unmarshal(b, to); err != nil {
			e.c.Logger.Warn("measurements of an earlier process cannot be read; beginning anew", "setting", key, "error", err)
		}
	}
	if e.pools == nil {
		e.pools = map[fleet.PoolKey]*poolMemory{}
	}
	for key, m := range e.pools {
		if m == nil {
			delete(e.pools, key)
		}
	}
	e.layer.restart()
	return nil
}

// save keeps the measurements.
func (e *Engine) save(ctx context.Context) error {
	e.mu.Lock()
	if !e.dirty {
		e.mu.Unlock()
		return nil
	}
	e.dirty = false
	pools, err := json.Marshal(e.pools)
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode measurements: %w", err)
	}
	if err := e.c.Store.PutSetting(ctx, settingPools, pools); err != nil {
		return fmt.Errorf("keep lead times: %w", err)
	}
	return e.saveLayer(ctx)
}
