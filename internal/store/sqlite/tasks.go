package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Submit implements fleet.Tasks.
func (db *DB) Submit(ctx context.Context, tasks []fleet.Task) ([]fleet.Task, error) {
	fresh := make([]fleet.Task, len(tasks))
	digests := make([][]byte, len(tasks))
	for i, t := range tasks {
		var err error
		if fresh[i], err = lifecycle.Submitted(t, db.now()); err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
		if digests[i], err = lifecycle.Digest(fresh[i].Spec); err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
	}
	var out []fleet.Task
	err := db.write(ctx, "submit", durable, func(t *tx) error {
		var err error
		out, err = db.submit(t, fresh, digests)
		return err
	})
	if err != nil { // it may have failed after this call's part of it
		return nil, err
	}
	return out, nil
}

func (db *DB) submit(t *tx, fresh []fleet.Task, digests [][]byte) ([]fleet.Task, error) {
	db.mu.Lock()
	seq, waiting := db.line.lastSeq, db.line.waiting
	db.mu.Unlock()
	out := make([]fleet.Task, len(fresh))
	var added []record
	for i, task := range fresh {
		earlier, known, err := t.earlier(task, digests[i])
		if err != nil {
			return nil, err
		}
		if known {
			out[i] = earlier
			continue
		}
		if b := db.opt.MaxBacklog; b > 0 && waiting+len(added)+1 > b {
			return nil, fmt.Errorf("%d tasks wait and the queue is bounded to %d (spec.queue.maxBacklog): %w", waiting, b, fleet.ErrFull)
		}
		seq++
		r := record{Task: task, seq: seq, deadline: lifecycle.ExpiresAt(task)}
		if err := r.insert(t, digests[i]); err != nil {
			return nil, fmt.Errorf("task %s: %w", r.ID, err)
		}
		added = append(added, r)
		task.Receipt = ""
		out[i] = task
	}
	arrived := map[fleet.PoolKey]int64{}
	for _, r := range added {
		arrived[r.Spec.Pool]++
	}
	for key, n := range arrived {
		if _, err := t.exec(`INSERT INTO pools (pool, arrived) VALUES (?, ?)
			ON CONFLICT (pool) DO UPDATE SET arrived = arrived + excluded.arrived`, string(key), n); err != nil {
			return nil, err
		}
	}
	if len(added) == 0 {
		return out, nil
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.line.lastSeq = seq
	for _, r := range added {
		db.line.join(r.spot(), r.Spec.Pool, r.rowKey())
	}
	for key, n := range arrived {
		db.line.pool(key).arrived += n
	}
	t.moved, t.woken = true, true
	return out, nil
}

// earlier finds the task of an earlier submission under the same key.
func (t *tx) earlier(task fleet.Task, digest []byte) (fleet.Task, bool, error) {
	if task.Spec.IdempotencyKey == "" {
		return fleet.Task{}, false, nil
	}
	var seq int64
	var had string
	err := t.row("SELECT seq, digest FROM tasks WHERE tenant = ? AND idem_key = ?",
		string(task.Spec.Tenant), task.Spec.IdempotencyKey).Scan(&seq, &had)
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Task{}, false, nil
	}
	if err != nil {
		return fleet.Task{}, false, err
	}
	r, err := t.task(seq)
	if err == nil && had != string(digest) {
		err = fmt.Errorf("idempotency key %q was used by task %s with another content: %w", task.Spec.IdempotencyKey, r.ID, fleet.ErrConflict)
	}
	return r.Task, true, err
}

// held returns the hold when fence owns the task now.
func (db *DB) held(t *tx, id fleet.TaskID, fence int64) (*hold, error) {
	db.mu.Lock()
	h := db.line.holds[id]
	ok := h != nil && h.fence == fence && (h.state != fleet.TaskQueued || h.until.After(db.now()))
	db.mu.Unlock()
	if ok {
		return h, nil
	}
	r, err := t.taskByID(id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("task %s (%s, fence %d) with fence %d: %w", id, r.State, r.Fence, fence, fleet.ErrFenced)
}

// Change implements fleet.Tasks.
func (db *DB) Change(ctx context.Context, id fleet.TaskID, fence int64, c fleet.Change) error {
	return db.write(ctx, "change", prompt, func(t *tx) error {
		h, err := db.held(t, id, fence)
		if err != nil {
			return err
		}
		if !h.state.Active() {
			return fmt.Errorf("task %s has claimed no sandbox: %w", id, fleet.ErrFenced)
		}
		r, err := t.held(h)
		if err != nil {
			return err
		}
		if r.Task, err = lifecycle.Changed(r.Task, c); err != nil {
			return err
		}
		if err := r.progress(t); err != nil {
			return err
		}
		db.remember(t, h, r)
		return nil
	})
}

// held is the task of a hold, as it is. It shares what it refers to with the
// hold: a copy is given out (lifecycle.CloneTask).
func (t *tx) held(h *hold) (record, error) {
	if h.rec == nil {
		r, err := t.task(h.seq)
		if err != nil {
			return r, err
		}
		h.rec = &r
	}
	return *h.rec, nil
}

// remember keeps what was written of a held task.
func (db *DB) remember(t *tx, h *hold, r record) {
	db.mu.Lock()
	defer db.mu.Unlock()
	h.rec, h.state = &r, r.State
	t.moved = true
}

// Settle implements fleet.Tasks.
func (db *DB) Settle(ctx context.Context, id fleet.TaskID, fence int64, s fleet.Settlement) (fleet.Task, error) {
	return db.finish(ctx, "settle", id, fence, func(r *record) (err error) {
		r.Task, err = lifecycle.Settled(r.Task, s)
		return err
	})
}

// Retry implements fleet.Tasks.
func (db *DB) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	return db.finish(ctx, "retry", id, fence, func(r *record) error {
		r.Task = lifecycle.Retried(r.Task, due, why, db.now())
		r.deadline = lifecycle.ExpiresAt(r.Task)
		return nil
	})
}

// finish ends the hold that fence has on a task, durably: it is final or back
// in line afterwards, as step says.
func (db *DB) finish(ctx context.Context, op string, id fleet.TaskID, fence int64, step func(*record) error) (fleet.Task, error) {
	var out fleet.Task
	err := db.write(ctx, op, durable, func(t *tx) error {
		h, err := db.held(t, id, fence)
		if err != nil {
			return err
		}
		out, err = db.letGo(t, h, step)
		return err
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return out, nil
}

// letGo takes a task off its holder: step decides what becomes of it.
func (db *DB) letGo(t *tx, h *hold, step func(*record) error) (fleet.Task, error) {
	r, err := t.held(h)
	if err != nil {
		return fleet.Task{}, err
	}
	sandbox, fence := r.Sandbox, r.Fence
	if err := step(&r); err != nil {
		return fleet.Task{}, err
	}
	r.dueHook()
	if err := r.rest(t); err != nil {
		return fleet.Task{}, err
	}
	if sandbox != "" {
		t.boxed = true
		if _, err := t.exec("UPDATE sandboxes SET state = 'draining' WHERE id = ? AND state = 'claimed' AND task = ? AND fence = ?",
			string(sandbox), string(r.ID), fence); err != nil {
			return fleet.Task{}, err
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.line.release(h)
	db.placed(t, r)
	return lifecycle.CloneTask(r.Task), nil
}

// placed puts a task that nobody holds where it belongs in the line.
func (db *DB) placed(t *tx, r record) {
	if !r.State.Final() {
		db.line.join(r.spot(), r.Spec.Pool, r.rowKey())
	} else if lifecycle.Dead(r.Task) {
		db.line.dead++
	}
	t.moved, t.woken = true, true
}

// dueHook makes the webhook of a task that has become final due.
func (r *record) dueHook() {
	if r.State.Final() && r.Spec.Webhook != "" && r.hook == hookNone {
		r.hook = hookPending
	}
}

// Cancel implements fleet.Tasks.
func (db *DB) Cancel(ctx context.Context, id fleet.TaskID, by string, now time.Time) (fleet.Task, error) {
	var out fleet.Task
	err := db.write(ctx, "cancel", durable, func(t *tx) error {
		r, err := t.taskByID(id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
		}
		if err != nil {
			return err
		}
		cancelled := func(r *record) error {
			r.Task = lifecycle.Cancelled(r.Task, by, now)
			return nil
		}
		db.mu.Lock()
		h := db.line.holds[id]
		db.mu.Unlock()
		switch {
		case r.State.Final() || r.Cancel:
			out = r.Task
		case r.State == fleet.TaskQueued && h != nil:
			out, err = db.letGo(t, h, cancelled)
		case r.State == fleet.TaskQueued:
			out, err = db.settleWaiting(t, r, cancelled)
		default:
			r.Cancel, r.CancelBy = true, by
			if err = r.progress(t); err == nil {
				db.remember(t, h, r)
			}
			out, t.woken = lifecycle.CloneTask(r.Task), true
		}
		return err
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return out, nil
}

// settleWaiting ends a task that nobody has leased.
func (db *DB) settleWaiting(t *tx, r record, step func(*record) error) (fleet.Task, error) {
	at, pool, in := r.spot(), r.Spec.Pool, r.rowKey()
	if err := step(&r); err != nil {
		return fleet.Task{}, err
	}
	r.dueHook()
	if err := r.rest(t); err != nil {
		return fleet.Task{}, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.line.leave(at, pool, in)
	db.placed(t, r)
	return r.Task, nil
}
