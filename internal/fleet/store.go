package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"
)

// TaskFilter selects tasks; zero fields select all.
type TaskFilter struct {
	IDs    []TaskID // none: all; at most 10,000
	States []TaskState
	Labels map[string]string
	Pool   PoolKey
	Since  time.Time // submitted at or after
	Before TaskID    // page: ids sorting before this one
	Limit  int       // at most; 0: 100, largest 10,000
}

// Change moves an active task; only non-nil parts are written.
type Change struct {
	State     TaskState
	StartedAt time.Time
	RunningAt time.Time
	Phases    *Phases
}

// Settlement ends an attempt for good.
type Settlement struct {
	State   TaskState // final
	Result  Result
	Phases  Phases
	EndedAt time.Time
}

// Tasks keeps tasks. With the embedded queue a submitted task is queued in
// the same transaction.
type Tasks interface {
	// Submit stores new tasks and queues them, all or none, durably (it
	// survives power loss once it returns). A task whose tenant and idempotency
	// key were seen before is not stored again: the earlier task is returned in
	// its place, or ErrConflict when its spec differs. ErrFull past the bound
	// of the queue or when the disk is full.
	Submit(ctx context.Context, tasks []Task) ([]Task, error)
	Task(ctx context.Context, id TaskID) (Task, error)
	// Tasks lists newest first.
	Tasks(ctx context.Context, f TaskFilter) ([]Task, error)
	// Change updates an active task of this fence; ErrFenced otherwise.
	Change(ctx context.Context, id TaskID, fence int64, c Change) error
	// Settle records the one completion of a task and, with the embedded
	// queue, acknowledges it; durable. ErrFenced when a newer attempt owns the
	// task or it is settled already. Also frees the sandbox's claim.
	Settle(ctx context.Context, id TaskID, fence int64, s Settlement) (Task, error)
	// Retry returns an active task to the queue, due at the given time, with
	// the same fence rule; why is kept for people.
	Retry(ctx context.Context, id TaskID, fence int64, due time.Time, why string) (Task, error)
	// Cancel marks the task; a queued one is settled as cancelled at once.
	// Cancelling a final task changes nothing. Returns the task as it is after.
	Cancel(ctx context.Context, id TaskID, by string, now time.Time) (Task, error)
	// ExpireQueued settles queued tasks older than their timeouts.queue as
	// timed_out and returns them; at most limit.
	ExpireQueued(ctx context.Context, now time.Time, limit int) ([]Task, error)
	// PendingWebhooks returns settled tasks with a webhook that has not been
	// delivered or given up; oldest first.
	PendingWebhooks(ctx context.Context, limit int) ([]Task, error)
	// WebhookDone ends the delivery for a task; problem is empty on success.
	WebhookDone(ctx context.Context, id TaskID, problem string) error
	// Prune deletes settled tasks that ended before the given time and returns
	// their ids; at most limit.
	Prune(ctx context.Context, before time.Time, limit int) ([]TaskID, error)
}

// SandboxRecords keeps what sandboxes exist, so that a restart can adopt them.
type SandboxRecords interface {
	// PutSandbox writes a sandbox whole (insert or replace).
	PutSandbox(ctx context.Context, s Sandbox) error
	// ClaimSandbox is the compare-and-swap of a claim: sandbox ready → claimed
	// by this task and fence, task queued-and-leased → claimed, in one
	// transaction. ErrConflict when the sandbox is not ready or is another
	// owner's than the claim says; ErrFenced when the lease is not the newest.
	ClaimSandbox(ctx context.Context, l Lease, c Claim) (Task, error)
	Sandbox(ctx context.Context, id SandboxID) (Sandbox, error)
	// Sandboxes lists those not gone; with gone, also those gone since then.
	Sandboxes(ctx context.Context, goneSince time.Time) ([]Sandbox, error)
}

// DecisionRecord is one journaled decision. Observation and Plan are the
// planner's own JSON, kept whole for replay.
type DecisionRecord struct {
	Seq         int64     `json:"seq"`
	At          time.Time `json:"at"`
	Observation []byte    `json:"observation"`
	Plan        []byte    `json:"plan"`
	State       []byte    `json:"state"` // the planner's state before the decision
	Changed     bool      `json:"changed"`
	// Policy is the digest of the policy it was decided under, whose JSON is
	// kept apart, since it is large and rarely changes: see Journal.Policy.
	// Empty in records of before it was kept.
	Policy string `json:"policy,omitempty"`
	// Version is the planner's that decided; 0: of before it was recorded.
	Version int `json:"version,omitempty"`
}

// PolicyDigest names a policy by its JSON: the SHA-256, in hexadecimal.
func PolicyDigest(policy []byte) string {
	sum := sha256.Sum256(policy)
	return hex.EncodeToString(sum[:])
}

// DecisionFilter selects decisions; zero fields select all. Oldest first.
type DecisionFilter struct {
	After   int64     // Seq greater than
	Since   time.Time // at or after
	Until   time.Time // at or before
	Changed bool      // only those that changed something or said something new
	Limit   int       // 0: 100, largest 10,000
}

// Event is something the fleet did or that happened to it, for people.
type Event struct {
	Seq      int64              `json:"seq"` // assigned by the store
	At       time.Time          `json:"at"`
	Kind     string             `json:"kind"`  // scale_out, scale_in, hold, sandbox_ready, task_claimed, breaker_open, …
	Layer    string             `json:"layer"` // fleet, consumers, sandboxes, nodes, tasks
	Pool     PoolKey            `json:"pool,omitempty"`
	Task     TaskID             `json:"task,omitempty"`
	Sandbox  SandboxID          `json:"sandbox,omitempty"`
	Node     NodeID             `json:"node,omitempty"`
	From     int                `json:"from"`
	To       int                `json:"to"`
	Reason   string             `json:"reason"`          // a sentence with the numbers in it
	Bound    string             `json:"bound,omitempty"` // the constraint that bound
	Numbers  map[string]float64 `json:"numbers,omitempty"`
	Decision int64              `json:"decision,omitempty"` // Seq of the decision
}

// EventFilter selects events; zero fields select all. Oldest first.
type EventFilter struct {
	After   int64 // Seq greater than
	Since   time.Time
	Kinds   []string
	Layer   string
	Task    TaskID
	Sandbox SandboxID
	Limit   int  // 0: 100, largest 10,000
	Last    bool // the newest Limit ones, still oldest first
}

// Journal keeps decisions and events.
type Journal interface {
	// AppendDecision stores a decision before it is applied and returns its
	// Seq. Unchanged decisions may be thinned out by the store. policy is the
	// JSON of the policy it was decided under, from which the store sets
	// d.Policy; empty: not known. It is kept once for all decisions under it,
	// and at least as long as one of them is.
	AppendDecision(ctx context.Context, d DecisionRecord, policy []byte) (int64, error)
	Decision(ctx context.Context, seq int64) (DecisionRecord, error)
	Decisions(ctx context.Context, f DecisionFilter) ([]DecisionRecord, error)
	// Policy returns the JSON of a policy by its digest, byte for byte as it
	// was appended; ErrNotFound.
	Policy(ctx context.Context, digest string) ([]byte, error)
	AppendEvents(ctx context.Context, ev []Event) ([]Event, error)
	Events(ctx context.Context, f EventFilter) ([]Event, error)
	// WakeEvents delivers a value after events were appended; values may be
	// merged. Each caller gets a channel of its own; release frees it.
	WakeEvents() (wake <-chan struct{}, release func())
}

// HeldMessage is a message of an outside queue that became a task and is not
// settled there yet.
type HeldMessage struct {
	Task    TaskID
	Queue   string    // Origin.Queue
	Message string    // Origin.Message
	Receipt string    // of its newest delivery
	State   TaskState // of the task; only read, never written
}

// Messages keeps which messages are held. A task that is submitted with an
// Origin holds its message from that moment on, in one step, under
// Task.Receipt. A task that is pruned holds nothing.
type Messages interface {
	// HeldMessages lists what is held of a queue, by task.
	HeldMessages(ctx context.Context, queue string) ([]HeldMessage, error)
	// HoldMessage writes the message of a task anew, after another delivery;
	// ErrNotFound when there is no such task.
	HoldMessage(ctx context.Context, m HeldMessage) error
	// ReleaseMessage forgets the message of a task, which is settled; it is no
	// error when none is held.
	ReleaseMessage(ctx context.Context, id TaskID) error
}

// Schedule submits a task at the times of a cron expression.
type Schedule struct {
	Name      string    `json:"name"`
	Cron      string    `json:"cron"`     // five fields
	Timezone  string    `json:"timezone"` // IANA name
	Task      []byte    `json:"task"`     // the task as the user wrote it, JSON
	Paused    bool      `json:"paused"`
	Next      time.Time `json:"next"`
	LastAt    time.Time `json:"lastAt,omitzero"`
	LastTask  TaskID    `json:"lastTask,omitempty"`
	LastError string    `json:"lastError,omitempty"`
}

// Schedules keeps cron-scheduled tasks.
type Schedules interface {
	PutSchedule(ctx context.Context, s Schedule) error
	DeleteSchedule(ctx context.Context, name string) error
	Schedules(ctx context.Context) ([]Schedule, error)
}

// Settings keeps small named values: the planner's state, lead times, the
// fleet's specification in force.
type Settings interface {
	// Setting returns nil, nil when there is none.
	Setting(ctx context.Context, key string) ([]byte, error)
	PutSetting(ctx context.Context, key string, value []byte) error
}

// Store is everything a control plane keeps.
type Store interface {
	Tasks
	Messages
	SharedRecords
	Consumers
	Journal
	Schedules
	Settings
	Ledger
	Revisions
	// Ping reports whether the store answers.
	Ping(ctx context.Context) error
	Close() error
}

// LogRecord is one piece of a task's log.
type LogRecord struct {
	Offset int64 // of the first byte, counted over all streams
	At     time.Time
	Stream Stream
	Data   []byte
}

// Archive keeps what tasks leave behind: log, patch, artifacts. Errors wrap
// ErrNotFound and ErrFull.
type Archive interface {
	// AppendLog appends at offset; bytes before LogSize are skipped, a gap is
	// ErrInvalid. Safe against kill -9: a torn record is cut on the next open.
	AppendLog(id TaskID, attempt int, r LogRecord) error
	// LogSize is the number of log bytes stored for this attempt.
	LogSize(id TaskID, attempt int) (int64, error)
	// ReadLog calls f for records from offset on until the end or f fails.
	ReadLog(id TaskID, attempt int, offset int64, f func(LogRecord) error) error
	// WatchLog delivers a value after AppendLog or EndLog; merged. ended tells
	// whether EndLog was called for the attempt.
	WatchLog(id TaskID, attempt int) (wake <-chan struct{}, release func())
	// EndLog says no more will be appended, and frees what is held for it.
	EndLog(id TaskID, attempt int) error
	// PutFile stores a patch (name "patch") or an artifact ("artifacts/…")
	// atomically, replacing an earlier one.
	PutFile(id TaskID, name string, r io.Reader) (int64, error)
	OpenFile(id TaskID, name string) (io.ReadSeekCloser, error)
	// Remove deletes everything of a task.
	Remove(id TaskID) error
	// Tasks calls f with every task that has left something, in no order,
	// until f fails. It may take long and reads what changes meanwhile.
	Tasks(f func(TaskID) error) error
}

// Secrets resolves names to values at claim time.
type Secrets interface {
	// Secret returns ErrNotFound for an unknown name. Values are never logged.
	Secret(ctx context.Context, name string) (string, error)
}
