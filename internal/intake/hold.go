package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// parallel bounds calls to the backend at once.
const parallel = 16

// forgetAfter is how long a message whose lease was lost is remembered after
// its task is over, so that it can be told when it comes again.
const forgetAfter = 24 * time.Hour

// each calls f for every item, a few at a time, and waits.
func each(items []*held, f func(*held)) {
	limit := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, h := range items {
		limit <- struct{}{}
		wg.Go(func() { defer func() { <-limit }(); f(h) })
	}
	wg.Wait()
}

// extendLoop keeps the leases of held messages.
func (q *Queue) extendLoop(ctx context.Context) {
	tick := time.NewTicker(q.Visibility / 3)
	defer tick.Stop()
	for {
		q.extendAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (q *Queue) extendAll(ctx context.Context) {
	q.mu.Lock()
	var all []*held
	for _, h := range q.held {
		if h.attached {
			all = append(all, h)
		}
	}
	q.mu.Unlock()
	each(all, func(h *held) { q.extend(ctx, h) })
}

func (q *Queue) extend(ctx context.Context, h *held) {
	q.mu.Lock()
	m := h.msg
	q.mu.Unlock()
	_, err := q.Source.Extend(ctx, m, q.Visibility)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, fleet.ErrFenced):
		q.lost(ctx, h, m)
	default:
		q.Logger.Warn("cannot extend the lease of a message; trying again", "queue", q.Name, "task", h.task, "error", err)
	}
}

// lost notes that a message was taken from us. Its task goes on: when the
// message comes to us again it is matched to it, and another fleet that gets it
// cannot be helped by ending ours.
func (q *Queue) lost(ctx context.Context, h *held, m fleet.Message) {
	q.mu.Lock()
	if !h.attached || h.msg.Receipt != m.Receipt {
		q.mu.Unlock()
		return // it came again meanwhile
	}
	h.attached = false
	if h.final {
		h.since = q.Clock()
	}
	q.mu.Unlock()
	q.event(ctx, fleet.Event{Kind: "message_lost", Task: h.task, Reason: fmt.Sprintf(
		"the lease of message %s of %s was lost; the task goes on, and the message is matched to it when it comes again", h.name, q.Name)})
}

// settleLoop settles the messages of tasks that are over.
func (q *Queue) settleLoop(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	q.look(ctx)
	for {
		q.settleAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-q.settle:
		case <-tick.C:
			q.look(ctx)
		}
	}
}

func (q *Queue) look(ctx context.Context) {
	if err := q.findOver(ctx); err != nil && ctx.Err() == nil {
		q.Logger.Warn("cannot read which tasks are over; trying again", "queue", q.Name, "error", err)
	}
}

// Settled tells of a task that became final, so that its message is settled at
// once. It implements part of dispatch.Observer; those not told of are found by
// looking.
func (q *Queue) Settled(t fleet.Task) {
	if t.Spec.Origin == nil || t.Spec.Origin.Queue != q.Name {
		return
	}
	q.mu.Lock()
	if h := q.held[t.ID]; h != nil {
		q.over(h, t)
	} else {
		q.came(&t, &t)
	}
	q.mu.Unlock()
	poke(q.settle)
}

// over notes how the task of a message ended; the lock must be held.
func (q *Queue) over(h *held, t fleet.Task) {
	if h.final {
		return
	}
	h.final = true
	delete(q.unleased, h.task)
	h.success = t.State == fleet.TaskSucceeded || t.State == fleet.TaskCancelled || !q.DeadLetterFailed
	h.why = fmt.Sprintf("task %s %s", t.ID, t.State)
	if t.Result.Message != "" {
		h.why += ": " + t.Result.Message
	}
	if !h.attached {
		h.since = q.Clock()
	}
}

func (q *Queue) settleAll(ctx context.Context) {
	now := q.Clock()
	q.mu.Lock()
	var due, stale []*held
	for _, h := range q.held {
		switch {
		case h.final && h.attached && !h.retry.After(now):
			due = append(due, h)
		case h.final && !h.attached && !h.since.IsZero() && now.Sub(h.since) > forgetAfter:
			stale = append(stale, h)
		}
	}
	q.mu.Unlock()
	each(due, func(h *held) { q.settleOne(ctx, h) })
	for _, h := range stale {
		q.forget(ctx, h)
	}
}

// findOver looks for tasks that ended without our being told: cancelled or
// expired while they waited, settled by an earlier process, or pruned.
func (q *Queue) findOver(ctx context.Context) error {
	all, err := q.Messages.HeldMessages(ctx, q.Name)
	if err != nil {
		return err
	}
	for _, m := range all {
		if !m.State.Final() {
			continue
		}
		q.mu.Lock()
		h := q.held[m.Task]
		q.mu.Unlock()
		if h == nil || h.final {
			continue
		}
		t, err := q.Tasks.Task(ctx, m.Task)
		if err != nil {
			return err
		}
		q.mu.Lock()
		q.over(h, t)
		q.mu.Unlock()
	}
	return nil
}

// settleOne settles a message whose task is over.
func (q *Queue) settleOne(ctx context.Context, h *held) {
	q.mu.Lock()
	m, success, why := h.msg, h.success, h.why
	q.mu.Unlock()
	var err error
	if success || m.Body == nil { // after a restart the body is not at hand; the task has it all
		err = q.Source.Ack(ctx, m)
	} else {
		err = q.Source.DeadLetter(ctx, m, why)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		q.ended(1)
		q.forget(ctx, h)
		poke(q.read)
	case errors.Is(err, fleet.ErrFenced):
		q.lost(ctx, h, m)
	default:
		q.Logger.Warn("cannot settle a message; trying again", "queue", q.Name, "task", h.task, "error", err)
		q.mu.Lock()
		h.retry = q.Clock().Add(time.Second)
		q.mu.Unlock()
		time.AfterFunc(time.Second, func() { poke(q.settle) })
	}
}

// forget ends the holding of a message.
func (q *Queue) forget(ctx context.Context, h *held) {
	if err := q.Messages.ReleaseMessage(ctx, h.task); err != nil {
		if ctx.Err() == nil {
			q.Logger.Warn("cannot forget a settled message; trying again after the next delivery", "queue", q.Name, "task", h.task, "error", err)
		}
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.held, h.task)
	rest := q.byName[h.name][:0]
	for _, x := range q.byName[h.name] {
		if x != h {
			rest = append(rest, x)
		}
	}
	if len(rest) == 0 {
		delete(q.byName, h.name)
	} else {
		q.byName[h.name] = rest
	}
}
