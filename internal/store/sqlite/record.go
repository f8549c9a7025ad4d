package sqlite

import (
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// record is a row of tasks.
type record struct {
	fleet.Task
	seq      int64
	deadline time.Time
	hook     int
}

// place is where a task is for the queue.
type place int

// The values of the column place.
const (
	waits place = iota
	isHeld
	hasEnded
)

// The values of the column webhook.
const (
	hookNone = iota
	hookPending
	hookDone
)

const columns = `t.seq, t.id, s.spec, t.state, t.attempt, t.fence, t.due_at, t.deadline, t.submitted_at,
	t.sandbox, t.node, t.launch, t.phases, t.result, t.cancel, t.cancel_by,
	t.claimed_at, t.started_at, t.running_at, t.ended_at, t.webhook`

const selectTask = "SELECT " + columns + " FROM tasks t JOIN specs s ON s.seq = t.seq "

func scanTask(row scanner) (record, error) {
	var (
		r                                        record
		spec, phases, result                     []byte
		due, deadline, submitted, claimed, began int64
		running, ended                           int64
	)
	err := row.Scan(&r.seq, &r.ID, &spec, &r.State, &r.Attempt, &r.Fence, &due, &deadline, &submitted,
		&r.Sandbox, &r.Node, &r.Launch, &phases, &result, &r.Cancel, &r.CancelBy,
		&claimed, &began, &running, &ended, &r.hook)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(spec, &r.Spec); err != nil {
		return r, fmt.Errorf("spec of task %s: %w: %w", r.ID, fleet.ErrCorrupt, err)
	}
	if len(phases) > 0 {
		if err := json.Unmarshal(phases, &r.Phases); err != nil {
			return r, fmt.Errorf("phases of task %s: %w: %w", r.ID, fleet.ErrCorrupt, err)
		}
	}
	if len(result) > 0 {
		if err := json.Unmarshal(result, &r.Result); err != nil {
			return r, fmt.Errorf("result of task %s: %w: %w", r.ID, fleet.ErrCorrupt, err)
		}
	}
	r.DueAt, r.deadline, r.SubmittedAt = fromNano(due), fromNano(deadline), fromNano(submitted)
	r.ClaimedAt, r.StartedAt, r.RunningAt = fromNano(claimed), fromNano(began), fromNano(running)
	r.EndedAt = fromNano(ended)
	return r, nil
}

// insert writes a new task.
func (r *record) insert(t *tx, digest []byte) error {
	spec, err := json.Marshal(r.Spec)
	if err != nil {
		return fmt.Errorf("encode spec: %w: %w", fleet.ErrInvalid, err)
	}
	var key any
	if r.Spec.IdempotencyKey != "" {
		key = r.Spec.IdempotencyKey
	}
	_, err = t.exec(`INSERT INTO tasks (seq, id, tenant, pool, priority, idem_key, digest, submitted_at, state, due_at, deadline)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.seq, string(r.ID), string(r.Spec.Tenant), string(r.Spec.Pool), r.Spec.Priority, key, string(digest),
		nano(r.SubmittedAt), string(r.State), nano(r.DueAt), nano(r.deadline))
	if err != nil {
		return err
	}
	if _, err := t.exec("INSERT INTO specs (seq, spec) VALUES (?, ?)", r.seq, string(spec)); err != nil {
		return err
	}
	if o := r.Spec.Origin; o != nil {
		if err := t.hold(fleet.HeldMessage{Task: r.ID, Queue: o.Queue, Message: o.Message, Receipt: r.Receipt}); err != nil {
			return err
		}
	}
	for k, v := range r.Spec.Labels {
		if _, err := t.exec("INSERT INTO labels (key, value, task) VALUES (?, ?, ?)", k, v, string(r.ID)); err != nil {
			return err
		}
	}
	return nil
}

// rest writes a task that nobody holds any more: it waits or has ended.
func (r *record) rest(t *tx) error {
	phases, err := encodePhases(r.Phases)
	if err != nil {
		return err
	}
	result := ""
	if b, err := json.Marshal(r.Result); err != nil {
		return err
	} else if string(b) != emptyResult {
		result = string(b)
	}
	where := waits
	if r.State.Final() {
		where = hasEnded
	}
	_, err = t.exec(`UPDATE tasks SET state = ?, place = ?, due_at = ?, deadline = ?,
		sandbox = ?, node = ?, launch = ?, phases = ?, result = ?, cancel = ?, cancel_by = ?,
		claimed_at = ?, started_at = ?, running_at = ?, ended_at = ?, dead = ?, webhook = ? WHERE seq = ?`,
		string(r.State), where, nano(r.DueAt), nano(r.deadline),
		string(r.Sandbox), string(r.Node), string(r.Launch), phases, result, r.Cancel, r.CancelBy,
		nano(r.ClaimedAt), nano(r.StartedAt), nano(r.RunningAt), nano(r.EndedAt), lifecycle.Dead(r.Task), r.hook, r.seq)
	return err
}

// lease writes what a lease changes.
func (r *record) lease(t *tx) error {
	phases, err := encodePhases(r.Phases)
	if err != nil {
		return err
	}
	_, err = t.exec("UPDATE tasks SET place = ?, attempt = ?, fence = ?, phases = ? WHERE seq = ?",
		isHeld, r.Attempt, r.Fence, phases, r.seq)
	return err
}

// claim writes what a claim changes.
func (r *record) claim(t *tx) error {
	_, err := t.exec("UPDATE tasks SET state = ?, sandbox = ?, node = ?, launch = ?, claimed_at = ?, result = '' WHERE seq = ?",
		string(r.State), string(r.Sandbox), string(r.Node), string(r.Launch), nano(r.ClaimedAt), r.seq)
	return err
}

// progress writes what can change while a sandbox has the task.
func (r *record) progress(t *tx) error {
	phases, err := encodePhases(r.Phases)
	if err != nil {
		return err
	}
	_, err = t.exec("UPDATE tasks SET state = ?, started_at = ?, running_at = ?, phases = ?, cancel = ?, cancel_by = ? WHERE seq = ?",
		string(r.State), nano(r.StartedAt), nano(r.RunningAt), phases, r.Cancel, r.CancelBy, r.seq)
	return err
}

func encodePhases(p fleet.Phases) (string, error) {
	if p == (fleet.Phases{}) {
		return "", nil
	}
	b, err := json.Marshal(p)
	return string(b), err
}

var emptyResult = func() string {
	b, _ := json.Marshal(fleet.Result{})
	return string(b)
}()

func (t *tx) task(seq int64) (record, error) {
	return scanTask(t.row(selectTask+"WHERE t.seq = ?", seq))
}

func (t *tx) taskByID(id fleet.TaskID) (record, error) {
	return scanTask(t.row(selectTask+"WHERE t.id = ?", string(id)))
}

func (r *record) spot() spot { return spot{r.DueAt.UnixNano(), r.seq} }
func (r *record) rowKey() rowKey {
	return rowKey{r.Spec.Tenant, r.Spec.Priority}
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
