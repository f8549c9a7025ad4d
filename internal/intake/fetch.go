package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// most bounds the messages of one round.
const most = 256

// ahead is how many tasks made from messages may wait for a sandbox: those that
// turned out to be for a pool that has none free. While as many wait, nothing
// more is taken, so that what cannot start stays with the queue.
const ahead = 32

// wantFor is how long free sandboxes are believed to be free without being
// offered again; the dispatcher offers them every second.
const wantFor = 3 * time.Second

// wanting is how many messages are wanted; the lock must be held.
func (q *Queue) wanting() int {
	if q.Clock().Sub(q.wantAt) > wantFor {
		return 0
	}
	waits := 0
	if len(q.unleased) > ahead {
		waits = len(q.unleased)
	}
	return min(q.want-waits, most)
}

// fetchLoop takes messages while sandboxes are free.
func (q *Queue) fetchLoop(ctx context.Context) {
	// Where nothing wakes us, looking once a second is the reading's part.
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.fetch:
		}
		for ctx.Err() == nil && q.fetchOnce(ctx) {
		}
	}
}

// fetchOnce takes what is wanted; true when there may be more.
func (q *Queue) fetchOnce(ctx context.Context) bool {
	q.mu.Lock()
	n := q.wanting()
	q.mu.Unlock()
	if n <= 0 {
		return false
	}
	q.io.Lock()
	defer q.io.Unlock()
	got, err := q.Source.Receive(ctx, n, q.Visibility)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, fleet.ErrUnavailable) {
			q.Logger.Warn("cannot take messages; trying again", "queue", q.Name, "error", err)
		}
		poke(q.read) // which looks again, and says so when it cannot
		return false
	}
	q.mu.Lock()
	q.received += int64(len(got))
	q.want = max(0, q.want-len(got))
	q.mu.Unlock()
	q.take(ctx, got)
	return len(got) == n
}

// name is what a message is known by.
func (q *Queue) name(m fleet.Message) string {
	if m.ID != "" {
		return m.ID
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%s", len(m.Body), m.Body)
	keys := make([]string, 0, len(m.Headers))
	for k := range m.Headers {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(h, "%q=%q\n", k, m.Headers[k])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// take makes tasks of messages, or finds the task that a message has become
// already.
func (q *Queue) take(ctx context.Context, got []fleet.Message) {
	var tasks []fleet.Task
	var from []fleet.Message
	for _, m := range got {
		if q.again(ctx, m) {
			continue
		}
		if m.Attempt > q.MaxDeliveries {
			q.setAside(ctx, m, fmt.Sprintf("delivered %d times and never became a task", m.Attempt))
			continue
		}
		t, err := q.Decode(m)
		switch {
		case errors.Is(err, fleet.ErrInvalid):
			q.setAside(ctx, m, err.Error())
			continue
		case err != nil:
			q.giveBack(ctx, m, 5*time.Second, err)
			continue
		}
		tasks = append(tasks, q.stamp(t, m))
		from = append(from, m)
	}
	q.submit(ctx, tasks, from)
	q.mu.Lock()
	q.raw.Backlog = max(0, q.raw.Backlog-int64(len(got)))
	if q.reading.Err == nil {
		q.reading.Stats = q.stats(q.raw)
	}
	q.mu.Unlock()
	poke(q.read)
}

// stamp says in the task which message it is from. Its wait counts from when
// the message was enqueued, where that is known.
func (q *Queue) stamp(t fleet.Task, m fleet.Message) fleet.Task {
	name := q.name(m)
	t.Spec.Origin = &fleet.Origin{Queue: q.Name, Message: name, At: m.At}
	t.Spec.Trace = traceOf(m)
	t.Receipt = m.Receipt
	if now := q.Clock(); !m.At.IsZero() && m.At.Before(now) {
		t.SubmittedAt = m.At
	}
	if t.Spec.IdempotencyKey == "" && m.ID != "" {
		t.Spec.IdempotencyKey = idempotencyKey(q.Name, name)
	}
	return t
}

// traceOf is the trace context in the headers of a message; backends spell their
// names as they like.
func traceOf(m fleet.Message) fleet.Trace {
	var parent, state string
	for name, v := range m.Headers {
		switch strings.ToLower(name) {
		case "traceparent":
			parent = v
		case "tracestate":
			state = v
		}
	}
	return fleet.ParseTrace(parent, state)
}

// idempotencyKey is that of a message with a name; long names are digested,
// since keys are bounded to 255 characters.
func idempotencyKey(queue, name string) string {
	key := "message of " + queue + ": " + name
	if len(key) > 255 {
		sum := sha256.Sum256([]byte(key))
		key = "message of " + queue + ": sha256:" + hex.EncodeToString(sum[:])
	}
	return key
}

// submit stores the tasks, together where possible.
func (q *Queue) submit(ctx context.Context, tasks []fleet.Task, from []fleet.Message) {
	if len(tasks) == 0 {
		return
	}
	out, err := q.Tasks.Submit(ctx, tasks)
	if err == nil {
		for i, t := range out {
			q.accepted(ctx, t, tasks[i], from[i])
		}
		return
	}
	if len(tasks) > 1 && !errors.Is(err, fleet.ErrFull) && !errors.Is(err, fleet.ErrUnavailable) && ctx.Err() == nil {
		for i := range tasks { // one of them is at fault
			q.submit(ctx, tasks[i:i+1], from[i:i+1])
		}
		return
	}
	for i, m := range from {
		switch {
		case errors.Is(err, fleet.ErrConflict) && tasks[i].Spec.IdempotencyKey == idempotencyKey(q.Name, q.name(m)):
			// It was worked off, and what it would be made into has changed since.
			q.drop(ctx, m, "was accepted before")
		case errors.Is(err, fleet.ErrInvalid), errors.Is(err, fleet.ErrConflict):
			q.setAside(ctx, m, err.Error())
		default:
			q.giveBack(ctx, m, time.Second, err)
		}
	}
}

// accepted files the message of a task, or deals with one whose task was there
// before.
func (q *Queue) accepted(ctx context.Context, t, asked fleet.Task, m fleet.Message) {
	o := t.Spec.Origin
	if o == nil || o.Queue != q.Name || o.Message != asked.Spec.Origin.Message {
		q.drop(ctx, m, fmt.Sprintf("has the idempotency key of task %s", t.ID))
		return
	}
	if t.State.Final() {
		q.drop(ctx, m, fmt.Sprintf("task %s is %s", t.ID, t.State))
		return
	}
	h := &held{task: t.ID, name: o.Message, msg: m, attached: true}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[t.ID] == nil {
		q.add(h)
		over, early := q.early[t.ID]
		delete(q.early, t.ID)
		switch {
		case over != nil:
			q.over(h, *over)
			poke(q.settle)
		case !early:
			q.unleased[t.ID] = true
		}
		q.mix.took(t.Spec.Pool)
		q.tookBy[t.Spec.Pool]++
	}
}

// again deals with a delivery of a message that is held; false when it is new.
func (q *Queue) again(ctx context.Context, m fleet.Message) bool {
	name := q.name(m)
	if m.ID == "" && m.Attempt > 1 {
		q.check(ctx, name)
	}
	q.mu.Lock()
	var h *held
	for _, x := range q.byName[name] {
		if m.ID != "" || !x.attached {
			h = x
			break
		}
	}
	if h == nil {
		q.mu.Unlock()
		return false
	}
	h.msg, h.attached, h.since = m, true, time.Time{}
	hm := fleet.HeldMessage{Task: h.task, Queue: q.Name, Message: h.name, Receipt: m.Receipt}
	q.mu.Unlock()
	if err := q.Messages.HoldMessage(ctx, hm); err != nil && ctx.Err() == nil {
		q.Logger.Warn("cannot keep a new delivery; after a restart it will come once more", "queue", q.Name, "task", h.task, "error", err)
	}
	poke(q.settle)
	return true
}

// check asks the backend whether messages that equal one delivered again are
// still ours: without names, only one whose lease was lost can be the one that
// came again.
func (q *Queue) check(ctx context.Context, name string) {
	q.mu.Lock()
	var equal []*held
	for _, x := range q.byName[name] {
		if x.attached {
			equal = append(equal, x)
		}
	}
	q.mu.Unlock()
	each(equal, func(h *held) { q.extend(ctx, h) })
}

// setAside sends a message to the dead letters.
func (q *Queue) setAside(ctx context.Context, m fleet.Message, why string) {
	if err := q.Source.DeadLetter(ctx, m, why); err != nil {
		if errors.Is(err, fleet.ErrFenced) {
			return // another consumer has it
		}
		// There may be no place for dead letters: it must not come back at once.
		q.giveBack(ctx, m, time.Minute, fmt.Errorf("it cannot be worked off (%s) nor set aside: %w", why, err))
		return
	}
	q.ended(1)
	q.event(ctx, fleet.Event{Kind: "message_dead_lettered", Reason: fmt.Sprintf("message %s of %s was set aside: %s", q.name(m), q.Name, why)})
}

// giveBack returns a message to its queue.
func (q *Queue) giveBack(ctx context.Context, m fleet.Message, after time.Duration, why error) {
	if ctx.Err() == nil {
		q.Logger.Warn("a message goes back to its queue", "queue", q.Name, "message", q.name(m), "error", why)
	}
	// Giving back goes on when the process is asked to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := q.Source.Nack(ctx, m, after); err != nil {
		return // its lease ends by itself
	}
	q.mu.Lock()
	q.received--
	q.mu.Unlock()
}

// drop acknowledges a message that needs no task.
func (q *Queue) drop(ctx context.Context, m fleet.Message, why string) {
	if err := q.Source.Ack(ctx, m); err != nil {
		if ctx.Err() == nil && !errors.Is(err, fleet.ErrFenced) {
			q.Logger.Warn("cannot acknowledge a message; it will be delivered again", "queue", q.Name, "message", q.name(m), "error", err)
		}
		return
	}
	q.ended(1)
	q.event(ctx, fleet.Event{Kind: "message_duplicate", Reason: fmt.Sprintf("message %s of %s was acknowledged unread: it %s", q.name(m), q.Name, why)})
}

func (q *Queue) ended(n int64) {
	q.mu.Lock()
	q.settled += n
	q.mu.Unlock()
}

func (q *Queue) event(ctx context.Context, e fleet.Event) {
	e.At, e.Layer = q.Clock(), "tasks"
	if _, err := q.Journal.AppendEvents(ctx, []fleet.Event{e}); err != nil && ctx.Err() == nil {
		q.Logger.Warn("cannot journal an event", "kind", e.Kind, "error", err)
	}
}
