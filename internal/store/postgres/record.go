package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// record is a row of tasks.
type record struct {
	fleet.Task
	place    place
	deadline time.Time
	until    time.Time // of a lease
	hook     int
}

// place is where a task is for the queue.
type place int

// The values of the column place.
const (
	isDue place = iota
	isDelayed
	isLeased
	isClaimed
	hasEnded
)

// The values of the column webhook.
const (
	hookNone = iota
	hookPending
	hookDone
)

const columns = `t.id, s.spec, t.place, t.state, t.attempt, t.fence, t.due_at, t.deadline, t.lease_until, t.submitted_at,
	t.sandbox, t.node, t.launch, t.phases, t.result, t.cancel, t.cancel_by,
	t.claimed_at, t.started_at, t.running_at, t.ended_at, t.webhook`

const selectTask = "SELECT " + columns + " FROM tasks t JOIN specs s ON s.id = t.id "

func scanTask(row pgx.Row) (record, error) {
	var (
		r                               record
		spec, phases, result            []byte
		due, deadline, until, submitted int64
		claimed, began, running, ended  int64
	)
	err := row.Scan(&r.ID, &spec, &r.place, &r.State, &r.Attempt, &r.Fence, &due, &deadline, &until, &submitted,
		&r.Sandbox, &r.Node, &r.Launch, &phases, &result, &r.Cancel, &r.CancelBy,
		&claimed, &began, &running, &ended, &r.hook)
	if err != nil {
		return r, err
	}
	for _, part := range []struct {
		name string
		b    []byte
		to   any
	}{{"spec", spec, &r.Spec}, {"phases", phases, &r.Phases}, {"result", result, &r.Result}} {
		if len(part.b) == 0 && part.name != "spec" {
			continue
		}
		if err := json.Unmarshal(part.b, part.to); err != nil {
			return r, fmt.Errorf("%s of task %s: %w: %w", part.name, r.ID, fleet.ErrCorrupt, err)
		}
	}
	r.DueAt, r.deadline, r.until, r.SubmittedAt = fromNano(due), fromNano(deadline), fromNano(until), fromNano(submitted)
	r.ClaimedAt, r.StartedAt, r.RunningAt, r.EndedAt = fromNano(claimed), fromNano(began), fromNano(running), fromNano(ended)
	return r, nil
}

// scanTasks reads all rows.
func scanTasks(rows pgx.Rows) ([]record, error) {
	defer rows.Close()
	var out []record
	for rows.Next() {
		r, err := scanTask(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// lockTask reads a task for a call that will write it. What cannot be read is
// the call's error and nobody else's.
func lockTask(b *pgx.Batch, id fleet.TaskID, to *record, problem *error) {
	*to, *problem = record{}, nil
	b.Queue(selectTask+"WHERE t.id = $1 FOR UPDATE OF t", string(id)).QueryRow(func(row pgx.Row) error {
		r, err := scanTask(row)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			*problem = fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
		case errors.Is(err, fleet.ErrCorrupt):
			*problem = err
		case err != nil:
			return err
		}
		*to = r
		return nil
	})
}

// owned is fleet.ErrFenced unless fence owns the task now.
func (r *record) owned(fence int64, now time.Time) error {
	if r.Fence == fence && (r.place == isClaimed || r.place == isLeased && r.until.After(now)) {
		return nil
	}
	return fmt.Errorf("task %s (%s, fence %d) with fence %d: %w", r.ID, r.State, r.Fence, fence, fleet.ErrFenced)
}

// settled says where a task is that nobody holds any more.
func (r *record) settled(now time.Time) {
	switch {
	case r.State.Final():
		r.place = hasEnded
	case r.DueAt.After(now):
		r.place = isDelayed
	default:
		r.place = isDue
	}
	if r.State.Final() && r.Spec.Webhook != "" && r.hook == hookNone {
		r.hook = hookPending
	}
}

// encoded are the parts of a record that are JSON.
func (r *record) encoded() (phases, result string, err error) {
	if phases, err = encodePhases(r.Phases); err != nil {
		return "", "", err
	}
	b, err := json.Marshal(r.Result)
	if err != nil {
		return "", "", fmt.Errorf("encode result: %w: %w", fleet.ErrInvalid, err)
	}
	if result = string(b); result == emptyResult {
		result = ""
	}
	return phases, result, nil
}

// rest writes a task that nobody holds any more: it waits or has ended.
func (r *record) rest(b *pgx.Batch, phases, result string) {
	outcome := ""
	if r.State.Final() {
		outcome = string(r.State)
	}
	b.Queue(`UPDATE tasks SET place = $2, state = $3, outcome = $4, due_at = $5, deadline = $6, lease_until = 0,
		sandbox = $7, node = $8, launch = $9, phases = $10, result = $11, cancel = $12, cancel_by = $13,
		claimed_at = $14, started_at = $15, running_at = $16, ended_at = $17, dead = $18, webhook = $19 WHERE id = $1`,
		string(r.ID), int(r.place), string(r.State), outcome, nano(r.DueAt), nano(r.deadline),
		string(r.Sandbox), string(r.Node), string(r.Launch), phases, result, r.Cancel, clean(r.CancelBy),
		nano(r.ClaimedAt), nano(r.StartedAt), nano(r.RunningAt), nano(r.EndedAt), lifecycle.Dead(r.Task), r.hook)
}

// progress writes what can change while a sandbox has the task.
func (r *record) progress(b *pgx.Batch, phases string) {
	b.Queue("UPDATE tasks SET state = $2, started_at = $3, running_at = $4, phases = $5, cancel = $6, cancel_by = $7 WHERE id = $1",
		string(r.ID), string(r.State), nano(r.StartedAt), nano(r.RunningAt), phases, r.Cancel, clean(r.CancelBy))
}

// free lets go of the sandbox that a task held.
func free(b *pgx.Batch, id fleet.SandboxID, task fleet.TaskID, fence int64) {
	b.Queue("UPDATE sandboxes SET state = 'draining' WHERE id = $1 AND state = 'claimed' AND task = $2 AND fence = $3",
		string(id), string(task), fence)
}

func encodePhases(p fleet.Phases) (string, error) {
	if p == (fleet.Phases{}) {
		return "", nil
	}
	b, err := json.Marshal(p)
	return string(b), err
}

var emptyResult = func() string {
	b, _ := json.Marshal(fleet.Result{}) // of plain values: it cannot fail
	return string(b)
}()

// clean is text as PostgreSQL takes it.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "�"), "�")
}

// nano and fromNano turn times into column values and back; 0 is no time.
func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
