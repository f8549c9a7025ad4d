package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Clean is a time as stores keep it: UTC, no monotonic reading, nanoseconds.
func Clean(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(0, t.UnixNano()).UTC()
}

// Submitted returns a task as it is first stored: queued, without anything a
// submitter must not set, with what was left out filled in (id, tenant, time
// of submission, due time).
func Submitted(t fleet.Task, now time.Time) (fleet.Task, error) {
	if t.ID == "" {
		t.ID = fleet.NewTaskID(now)
	}
	if !fleet.ValidID("t", string(t.ID)) {
		return fleet.Task{}, fmt.Errorf("task id %q: want \"t\" and 20 characters: %w", t.ID, fleet.ErrInvalid)
	}
	if t.State != "" && t.State != fleet.TaskQueued {
		return fleet.Task{}, fmt.Errorf("task %s is %s: only queued tasks can be submitted: %w", t.ID, t.State, fleet.ErrInvalid)
	}
	n := fleet.Task{ID: t.ID, Spec: t.Spec, State: fleet.TaskQueued, SubmittedAt: Clean(t.SubmittedAt), Receipt: t.Receipt}
	n.Spec.NotBefore = Clean(n.Spec.NotBefore)
	if n.Spec.Tenant == "" {
		n.Spec.Tenant = "default"
	}
	if n.SubmittedAt.IsZero() {
		n.SubmittedAt = Clean(now)
	}
	n.DueAt = n.SubmittedAt
	if n.Spec.NotBefore.After(n.DueAt) {
		n.DueAt = n.Spec.NotBefore
	}
	return n, nil
}

// Digest identifies what a submitter asked for: two submissions under one
// idempotency key must have the same digest. NotBefore is left out: users
// write it relative to the moment of submission ("+10m"), so an honest repeat
// differs in it; so does each from another in its trace.
func Digest(s fleet.TaskSpec) ([]byte, error) {
	s.NotBefore, s.Origin, s.Trace = time.Time{}, nil, fleet.Trace{}
	if s.Tenant == "" {
		s.Tenant = "default"
	}
	b, err := json.Marshal(s) // map keys are sorted
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	sum := sha256.Sum256(b)
	return []byte(hex.EncodeToString(sum[:16])), nil
}

// ExpiresAt is when a task that became due at t.DueAt has waited too long;
// zero when it may wait for ever.
func ExpiresAt(t fleet.Task) time.Time {
	if t.Spec.Timeouts.Queue <= 0 {
		return time.Time{}
	}
	return t.DueAt.Add(t.Spec.Timeouts.Queue)
}

// Leased is the task as it is delivered.
func Leased(t fleet.Task, now time.Time) fleet.Task {
	t.Attempt++
	t.Fence++
	t.Phases = fleet.Phases{Queue: max(0, now.Sub(t.DueAt))}
	return t
}

// Claimed joins a leased task and a ready sandbox.
func Claimed(t fleet.Task, s fleet.Sandbox, launch fleet.Launch, at time.Time) (fleet.Task, fleet.Sandbox) {
	at = Clean(at)
	t.State, t.Sandbox, t.Node, t.Launch, t.ClaimedAt = fleet.TaskClaimed, s.Spec.ID, s.Spec.Node, launch, at
	t.Result = fleet.Result{}
	s.State, s.Task, s.Fence, s.ClaimedAt = fleet.SandboxClaimed, t.ID, t.Fence, at
	return t, s
}

// rank orders the states of a task that holds a sandbox.
func rank(s fleet.TaskState) int {
	switch s {
	case fleet.TaskClaimed:
		return 1
	case fleet.TaskStarting:
		return 2
	case fleet.TaskRunning:
		return 3
	case fleet.TaskCollecting:
		return 4
	}
	return 0
}

// Changed applies c to an active task. A state that lies behind the present
// one is not gone back to: a runner that reconnects repeats its phases.
func Changed(t fleet.Task, c fleet.Change) (fleet.Task, error) {
	if c.State != "" {
		if !c.State.Active() {
			return t, fmt.Errorf("change of task %s to %q: not a state of a running task: %w", t.ID, c.State, fleet.ErrInvalid)
		}
		if rank(c.State) > rank(t.State) {
			t.State = c.State
		}
	}
	if !c.StartedAt.IsZero() {
		t.StartedAt = Clean(c.StartedAt)
	}
	if !c.RunningAt.IsZero() {
		t.RunningAt = Clean(c.RunningAt)
	}
	if c.Phases != nil {
		t.Phases = *c.Phases
	}
	return t, nil
}

// Settled is the task after its one completion.
func Settled(t fleet.Task, s fleet.Settlement) (fleet.Task, error) {
	if !s.State.Final() {
		return t, fmt.Errorf("settle task %s as %q: not a final state: %w", t.ID, s.State, fleet.ErrInvalid)
	}
	t.State, t.Result, t.Phases, t.EndedAt = s.State, s.Result, s.Phases, Clean(s.EndedAt)
	t.Result.Usage.At = Clean(t.Result.Usage.At)
	return t, nil
}

// Nacked is a leased task back in the queue without having held a sandbox.
func Nacked(t fleet.Task, due time.Time, why string) fleet.Task {
	t.State = fleet.TaskQueued
	t.DueAt = Clean(due)
	t.Phases = fleet.Phases{}
	t.Result = fleet.Result{Message: why}
	return t
}

// Retried is a task back in the queue after it lost its sandbox. A task whose
// cancellation was asked for ends as cancelled in place of running again.
func Retried(t fleet.Task, due time.Time, why string, now time.Time) fleet.Task {
	if t.Cancel {
		return Cancelled(t, t.CancelBy, now)
	}
	t = Nacked(t, due, why)
	t.Sandbox, t.Node, t.Launch = "", "", ""
	t.ClaimedAt, t.StartedAt, t.RunningAt = time.Time{}, time.Time{}, time.Time{}
	return t
}

// Cancelled is a task that ended because someone asked for it.
func Cancelled(t fleet.Task, by string, now time.Time) fleet.Task {
	t.Cancel, t.CancelBy = true, by
	t.State, t.EndedAt = fleet.TaskCancelled, Clean(now)
	msg := "cancelled"
	if by != "" {
		msg += " by " + by
	}
	t.Result = fleet.Result{Reason: fleet.ReasonCancelled, Message: msg, ExitCode: -1}
	return t
}

// Expired is a task that waited longer than its timeouts.queue.
func Expired(t fleet.Task, now time.Time) fleet.Task {
	t.State, t.EndedAt = fleet.TaskTimedOut, Clean(now)
	t.Phases.Queue = max(0, now.Sub(t.DueAt))
	msg := fmt.Sprintf("waited %s in the queue; timeouts.queue is %s",
		now.Sub(t.DueAt).Round(time.Second), t.Spec.Timeouts.Queue)
	if t.Result.Message != "" {
		msg += "; last: " + t.Result.Message
	}
	t.Result = fleet.Result{Reason: fleet.ReasonTimeoutQueue, Message: msg, ExitCode: -1}
	return t
}

// Poisoned is a task set aside for a person.
func Poisoned(t fleet.Task, why string, now time.Time) fleet.Task {
	t.State, t.EndedAt = fleet.TaskFailed, Clean(now)
	t.Result = fleet.Result{Reason: fleet.ReasonPoison, Message: why, ExitCode: -1}
	return t
}

// Dead reports whether a task counts as set aside: dead-lettered, or lost with
// no attempt left.
func Dead(t fleet.Task) bool {
	return t.State == fleet.TaskLost || t.State.Final() && t.Result.Reason == fleet.ReasonPoison
}

// Freed is a sandbox whose task was settled or went back to the queue: it
// takes no other task and waits to be destroyed. Task and Fence stay, so that
// it can be told later what ran in it.
func Freed(s fleet.Sandbox) fleet.Sandbox {
	s.State = fleet.SandboxDraining
	return s
}

// CleanSandbox is a sandbox as stores keep it.
func CleanSandbox(s fleet.Sandbox) fleet.Sandbox {
	s.CreatedAt, s.ReadyAt = Clean(s.CreatedAt), Clean(s.ReadyAt)
	s.ClaimedAt, s.GoneAt = Clean(s.ClaimedAt), Clean(s.GoneAt)
	s.Usage.At = Clean(s.Usage.At)
	return s
}

// Overlooks reports whether writing next over a record would forget what
// happened to the sandbox since the writer read it: that a running task has
// claimed it (a busy sandbox is never drained by someone who believed it
// idle), or that a task was in it (no second one ever is).
func Overlooks(stored, next fleet.Sandbox) bool {
	if stored.Task == "" {
		return false
	}
	switch next.State {
	case fleet.SandboxStarting, fleet.SandboxReady:
		return true
	case fleet.SandboxDraining, fleet.SandboxClaimed:
		return stored.State == fleet.SandboxClaimed && (next.Task != stored.Task || next.Fence != stored.Fence)
	}
	return false
}

// Limit is the page size for a requested limit.
func Limit(n int) int {
	switch {
	case n <= 0:
		return 100
	case n > 10_000:
		return 10_000
	}
	return n
}
