package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Submit implements fleet.Tasks.
func (s *Store) Submit(ctx context.Context, tasks []fleet.Task) ([]fleet.Task, error) {
	if err := s.begin(ctx, "Submit"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := make([]fleet.Task, len(tasks))
	var fresh []*entry
	keys, ids := map[key]*entry{}, map[fleet.TaskID]bool{}
	for i, t := range tasks {
		e, known, err := s.admit(t, keys, ids)
		if err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
		if !known {
			fresh = append(fresh, e)
		}
		out[i] = lifecycle.CloneTask(e.task)
		out[i].Receipt = ""
	}
	if b := s.opt.MaxBacklog; b > 0 && len(fresh) > 0 && s.waiting()+len(fresh) > b {
		return nil, fmt.Errorf("submit: %d tasks wait and the queue is bounded to %d (spec.queue.maxBacklog): %w", s.waiting(), b, fleet.ErrFull)
	}
	for _, e := range fresh {
		s.order++
		e.order = s.order
		s.tasks[e.task.ID] = e
		if k := e.task.Spec.IdempotencyKey; k != "" {
			s.keys[key{e.task.Spec.Tenant, k}] = e.task.ID
		}
		s.arrived[e.task.Spec.Pool]++
		if o := e.task.Spec.Origin; o != nil {
			s.messages[e.task.ID] = fleet.HeldMessage{Task: e.task.ID, Queue: o.Queue, Message: o.Message, Receipt: e.task.Receipt}
			e.task.Receipt = ""
		}
	}
	s.notify()
	return out, nil
}

// admit makes the entry of a submitted task, or finds the one an earlier
// submission made.
func (s *Store) admit(t fleet.Task, keys map[key]*entry, ids map[fleet.TaskID]bool) (e *entry, known bool, err error) {
	n, err := lifecycle.Submitted(t, s.now())
	if err != nil {
		return nil, false, err
	}
	digest, err := lifecycle.Digest(n.Spec)
	if err != nil {
		return nil, false, err
	}
	k := key{n.Spec.Tenant, n.Spec.IdempotencyKey}
	if k.key != "" {
		prior := keys[k]
		if id, ok := s.keys[k]; ok {
			prior = s.tasks[id]
		}
		if prior != nil {
			if prior.digest != string(digest) {
				return nil, false, fmt.Errorf("idempotency key %q was used by task %s with another content: %w", k.key, prior.task.ID, fleet.ErrConflict)
			}
			return prior, true, nil
		}
	}
	if s.tasks[n.ID] != nil || ids[n.ID] {
		return nil, false, fmt.Errorf("task %s exists: %w", n.ID, fleet.ErrConflict)
	}
	e = &entry{task: lifecycle.CloneTask(n), digest: string(digest), deadline: lifecycle.ExpiresAt(n)}
	ids[n.ID] = true
	if k.key != "" {
		keys[k] = e
	}
	return e, false, nil
}

// Task implements fleet.Tasks.
func (s *Store) Task(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	if err := s.begin(ctx, "Task"); err != nil {
		return fleet.Task{}, err
	}
	defer s.mu.Unlock()
	e := s.tasks[id]
	if e == nil {
		return fleet.Task{}, fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
	}
	return lifecycle.CloneTask(e.task), nil
}

// Tasks implements fleet.Tasks.
func (s *Store) Tasks(ctx context.Context, f fleet.TaskFilter) ([]fleet.Task, error) {
	if err := s.begin(ctx, "Tasks"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Task{}
	for _, e := range s.tasks {
		if lifecycle.MatchesTask(f, e.task) {
			out = append(out, lifecycle.CloneTask(e.task))
		}
	}
	slices.SortFunc(out, func(a, b fleet.Task) int { return cmp.Compare(b.ID, a.ID) })
	return out[:min(len(out), lifecycle.Limit(f.Limit))], nil
}

// Change implements fleet.Tasks.
func (s *Store) Change(ctx context.Context, id fleet.TaskID, fence int64, c fleet.Change) error {
	if err := s.begin(ctx, "Change"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	e, err := s.held(id, fence)
	if err != nil {
		return fmt.Errorf("change: %w", err)
	}
	if !e.task.State.Active() {
		return fmt.Errorf("change: task %s has claimed no sandbox: %w", id, fleet.ErrFenced)
	}
	t, err := lifecycle.Changed(e.task, c)
	if err != nil {
		return err
	}
	e.task = t
	return nil
}

// Settle implements fleet.Tasks.
func (s *Store) Settle(ctx context.Context, id fleet.TaskID, fence int64, st fleet.Settlement) (fleet.Task, error) {
	if err := s.begin(ctx, "Settle"); err != nil {
		return fleet.Task{}, err
	}
	defer s.mu.Unlock()
	e, err := s.held(id, fence)
	if err != nil {
		return fleet.Task{}, fmt.Errorf("settle: %w", err)
	}
	t, err := lifecycle.Settled(e.task, st)
	if err != nil {
		return fleet.Task{}, err
	}
	return s.write(e, t), nil
}

// Retry implements fleet.Tasks.
func (s *Store) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	if err := s.begin(ctx, "Retry"); err != nil {
		return fleet.Task{}, err
	}
	defer s.mu.Unlock()
	e, err := s.held(id, fence)
	if err != nil {
		return fleet.Task{}, fmt.Errorf("retry: %w", err)
	}
	t := s.write(e, lifecycle.Retried(e.task, due, why, s.now()))
	e.deadline = lifecycle.ExpiresAt(t)
	return t, nil
}

// Cancel implements fleet.Tasks.
func (s *Store) Cancel(ctx context.Context, id fleet.TaskID, by string, now time.Time) (fleet.Task, error) {
	if err := s.begin(ctx, "Cancel"); err != nil {
		return fleet.Task{}, err
	}
	defer s.mu.Unlock()
	e := s.tasks[id]
	switch {
	case e == nil:
		return fleet.Task{}, fmt.Errorf("cancel task %s: %w", id, fleet.ErrNotFound)
	case e.task.State == fleet.TaskQueued:
		return s.write(e, lifecycle.Cancelled(e.task, by, now)), nil
	case !e.task.State.Final() && !e.task.Cancel:
		e.task.Cancel, e.task.CancelBy = true, by
		s.notify()
	}
	return lifecycle.CloneTask(e.task), nil
}

// ExpireQueued implements fleet.Tasks.
func (s *Store) ExpireQueued(ctx context.Context, now time.Time, limit int) ([]fleet.Task, error) {
	if err := s.begin(ctx, "ExpireQueued"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	s.reap()
	var old []*entry
	for _, e := range s.tasks {
		if e.task.State == fleet.TaskQueued && !e.leased && !e.deadline.IsZero() && !e.deadline.After(now) {
			old = append(old, e)
		}
	}
	slices.SortFunc(old, func(a, b *entry) int {
		return cmp.Or(a.deadline.Compare(b.deadline), cmp.Compare(a.order, b.order))
	})
	out := []fleet.Task{}
	for _, e := range old[:min(len(old), lifecycle.Limit(limit))] {
		out = append(out, s.write(e, lifecycle.Expired(e.task, now)))
	}
	return out, nil
}

// PendingWebhooks implements fleet.Tasks.
func (s *Store) PendingWebhooks(ctx context.Context, limit int) ([]fleet.Task, error) {
	if err := s.begin(ctx, "PendingWebhooks"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Task{}
	for _, e := range s.tasks {
		if e.hook == hookPending {
			out = append(out, lifecycle.CloneTask(e.task))
		}
	}
	slices.SortFunc(out, func(a, b fleet.Task) int {
		return cmp.Or(a.EndedAt.Compare(b.EndedAt), cmp.Compare(a.ID, b.ID))
	})
	return out[:min(len(out), lifecycle.Limit(limit))], nil
}

// WebhookDone implements fleet.Tasks.
func (s *Store) WebhookDone(ctx context.Context, id fleet.TaskID, _ string) error {
	if err := s.begin(ctx, "WebhookDone"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	e := s.tasks[id]
	if e == nil {
		return fmt.Errorf("webhook of task %s: %w", id, fleet.ErrNotFound)
	}
	if e.hook == hookPending {
		e.hook = hookDone
	}
	return nil
}

// Prune implements fleet.Tasks. Tasks whose webhook is still to be delivered
// are kept.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) ([]fleet.TaskID, error) {
	if err := s.begin(ctx, "Prune"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var old []fleet.Task
	for _, e := range s.tasks {
		if e.task.State.Final() && e.task.EndedAt.Before(before) && e.hook != hookPending {
			old = append(old, e.task)
		}
	}
	slices.SortFunc(old, func(a, b fleet.Task) int {
		return cmp.Or(a.EndedAt.Compare(b.EndedAt), cmp.Compare(a.ID, b.ID))
	})
	out := []fleet.TaskID{}
	for _, t := range old[:min(len(old), lifecycle.Limit(limit))] {
		delete(s.tasks, t.ID)
		delete(s.messages, t.ID)
		delete(s.keys, key{t.Spec.Tenant, t.Spec.IdempotencyKey})
		out = append(out, t.ID)
	}
	return out, nil
}

// errSettleFirst is what Ack of a task without a completion says: removing it
// would lose it.
var errSettleFirst = errors.New("not settled: call Settle, which acknowledges too")
