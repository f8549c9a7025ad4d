package fleet

import (
	"context"
	"io"
	"time"
)

// SandboxState is where a sandbox is in its life; see the package comment.
type SandboxState string

// The states of a sandbox.
const (
	SandboxStarting SandboxState = "starting"
	SandboxReady    SandboxState = "ready"
	SandboxClaimed  SandboxState = "claimed"
	SandboxDraining SandboxState = "draining" // chosen for scale-in; takes no task
	SandboxFailed   SandboxState = "failed"   // never became ready
	SandboxGone     SandboxState = "gone"     // destroyed
)

// SandboxSpec is everything needed to create one sandbox.
type SandboxSpec struct {
	ID        SandboxID         `json:"id"`
	Pool      PoolKey           `json:"pool"`
	Template  string            `json:"template"`
	Revision  string            `json:"revision"`
	Node      NodeID            `json:"node"`
	Runtime   Runtime           `json:"runtime"`
	Image     string            `json:"image"`
	Resources Resources         `json:"resources"`
	Network   Network           `json:"network"`
	Env       map[string]string `json:"env,omitempty"`
	Prepare   []string          `json:"prepare,omitempty"`
	Mounts    []Mount           `json:"mounts,omitempty"`
	// Startup bounds creation to ready, prepare included.
	Startup time.Duration `json:"startup"`
}

// Isolation is how a sandbox is really confined, as observed after its start.
type Isolation struct {
	// Node is where it runs, where the adapter does not choose that itself (a
	// cluster's scheduler does); empty: where the spec says.
	Node          NodeID      `json:"node,omitempty"`
	Runtime       Runtime     `json:"runtime"`
	UserNamespace bool        `json:"userNamespace"`
	UID           int         `json:"uid"` // of the agent, inside
	HostUID       int         `json:"hostUID"`
	Capabilities  []string    `json:"capabilities"` // of the agent; empty when all are dropped
	NoNewPrivs    bool        `json:"noNewPrivs"`
	Seccomp       bool        `json:"seccomp"`
	ReadOnlyRoot  bool        `json:"readOnlyRoot"`
	Cgroups       string      `json:"cgroups"` // v1, v2, hybrid, none
	Volume        string      `json:"volume"`  // loop, tmpfs, quota: how the disk limit is enforced
	Network       NetworkMode `json:"network"`
	Lost          []string    `json:"lost,omitempty"` // protections this host cannot give, in words
}

// Sandbox is a sandbox as the store keeps it.
type Sandbox struct {
	Spec      SandboxSpec  `json:"spec"`
	State     SandboxState `json:"state"`
	Isolation Isolation    `json:"isolation"`
	Task      TaskID       `json:"task,omitempty"`
	Fence     int64        `json:"fence,omitempty"` // of the task that claimed it
	Message   string       `json:"message,omitempty"`
	// Owner is the consumer that creates, drives and ends it; empty: the
	// control plane itself does.
	Owner string `json:"owner,omitempty"`
	// RunFence is the fence its runner was given, where a take-over has raised
	// Fence since; 0: Fence.
	RunFence int64 `json:"runFence,omitempty"`
	// Order is why its owner shall end it; empty: there is no such order.
	Order string `json:"order,omitempty"`
	// Failure is why it never became ready or ended by itself.
	Failure   TaskReason `json:"failure,omitempty"`
	CreatedAt time.Time  `json:"createdAt"`
	ReadyAt   time.Time  `json:"readyAt,omitzero"`
	ClaimedAt time.Time  `json:"claimedAt,omitzero"`
	GoneAt    time.Time  `json:"goneAt,omitzero"`
	Usage     Usage      `json:"usage"`
}

// HeldFence is the fence in the assignment that its runner holds.
func (s *Sandbox) HeldFence() int64 {
	if s.RunFence != 0 {
		return s.RunFence
	}
	return s.Fence
}

// Assignment is the one message of a claim: the task with its environment and
// secrets in the clear. It is never stored.
type Assignment struct {
	Task    TaskID            `json:"task"`
	Fence   int64             `json:"fence"`
	Repo    *Repo             `json:"repo,omitempty"`
	Prompt  string            `json:"prompt,omitempty"`
	Input   *Input            `json:"input,omitempty"`
	Setup   []string          `json:"setup,omitempty"`
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"` // secrets included
	// Redact lists secret values the runner must not echo; informational.
	Artifacts []string `json:"artifacts,omitempty"`
	Timeouts  Timeouts `json:"timeouts"`
	LogBytes  int64    `json:"logBytes"`
}

// Stream tells standard output from standard error and Muster's own notes.
type Stream byte

// The streams of a task's log.
const (
	StreamStdout Stream = 1
	StreamStderr Stream = 2
	StreamSystem Stream = 3 // lines written by muster: "cloning …", "log limit reached"
)

// RunReport is what the runner says at the end of a task.
type RunReport struct {
	Task         TaskID        `json:"task"`
	Fence        int64         `json:"fence"`
	Reason       TaskReason    `json:"reason,omitempty"` // exit, setup, command, cancelled, timeout_*; empty on exit 0
	Message      string        `json:"message,omitempty"`
	ExitCode     int           `json:"exitCode"` // -1 where none
	Signal       string        `json:"signal,omitempty"`
	Start        time.Duration `json:"start"`
	Setup        time.Duration `json:"setup"`
	Run          time.Duration `json:"run"`
	Collect      time.Duration `json:"collect"`
	LogDropped   int64         `json:"logDropped,omitempty"`
	PatchBytes   int64         `json:"patchBytes"`
	PatchNote    string        `json:"patchNote,omitempty"`
	Artifacts    []Artifact    `json:"artifacts,omitempty"`
	ArtifactNote string        `json:"artifactNote,omitempty"`
}

// TaskSink receives what a runner sends for one task. Calls for one task come
// from one goroutine, in order; an error ends the connection and the runner
// sends again from what was acknowledged, so every method is idempotent at
// the offsets given. A sink that blocks slows only its own sandbox down.
type TaskSink interface {
	// LogOffset is how many log bytes (over all streams) are stored safely.
	LogOffset() int64
	// Log appends data at offset (over all streams); data before LogOffset
	// was seen already and is skipped.
	Log(offset int64, at time.Time, stream Stream, data []byte) error
	// Phase reports that the task entered starting, running or collecting, at
	// the runner's clock corrected to ours.
	Phase(state TaskState, at time.Time) error
	// Patch and Artifact store a collected file; called with a fresh reader
	// again after a reconnect. The reader yields at most size bytes.
	Patch(size int64, r io.Reader) error
	Artifact(a Artifact, r io.Reader) error
	// Done delivers the report. Once it returns nil the runner is released.
	Done(RunReport) error
	// Lost says the sandbox ended or cannot be reached any more without a
	// report; err may wrap a ReasonError (oom, disk).
	Lost(err error)
}

// ExecRequest runs a further command in a running sandbox.
type ExecRequest struct {
	Command    []string
	Env        map[string]string
	TTY        bool
	Rows, Cols uint16
	Stdin      io.Reader // may be nil
	Stdout     io.Writer
	Stderr     io.Writer        // unused with TTY
	Resize     <-chan [2]uint16 // rows, cols; may be nil
}

// Sandboxes creates and drives sandboxes on nodes. All methods are safe for
// concurrent use.
type Sandboxes interface {
	// Create makes a sandbox and returns when its runner is ready, prepare
	// done, or with an error; then nothing of it is left behind. Idempotent
	// by spec.ID: creating one that is ready returns at once. Errors wrap a
	// ReasonError with ReasonImage, ReasonPrepare, ReasonTimeoutStartup, or
	// ErrInvalid, ErrUnavailable. Blocks up to spec.Startup, or until ctx ends.
	Create(ctx context.Context, spec SandboxSpec) (Isolation, error)
	// Claim hands the assignment to the waiting runner and returns once the
	// runner has accepted it; from then on events flow to sink. Claiming again
	// with the same task and fence re-attaches sink (after a restart); any
	// other claim of a claimed sandbox is ErrConflict. ErrNotFound when the
	// sandbox is not there or has ended.
	Claim(ctx context.Context, id SandboxID, a Assignment, sink TaskSink) error
	// Stop asks the runner to end the task: SIGTERM, then SIGKILL after grace;
	// reason is what the report will carry. Returns when the request is sent.
	Stop(ctx context.Context, id SandboxID, reason TaskReason, grace time.Duration) error
	// Exec runs a command beside the task and returns its exit code.
	Exec(ctx context.Context, id SandboxID, r ExecRequest) (int, error)
	// Usage reads the sandbox's counters from outside it.
	Usage(ctx context.Context, id SandboxID) (Usage, error)
	// Destroy ends the sandbox and removes every trace. Idempotent; destroying
	// what is not there succeeds.
	Destroy(ctx context.Context, id SandboxID) error
	// List returns the ids of everything this adapter owns on the node, whole
	// or in part, running or not, for adoption and reaping after a restart.
	List(ctx context.Context) ([]SandboxID, error)
	// Adopt takes over a sandbox made by an earlier process: true when its
	// runner is alive and (re)connected within a few seconds, with the task it
	// holds (empty when it is waiting). False: it cannot be saved; Destroy it.
	Adopt(ctx context.Context, spec SandboxSpec) (held TaskID, fence int64, alive bool, err error)
	// Exited returns a channel of sandboxes that ended by themselves.
	Exited() <-chan SandboxExit
	// Close releases what the process holds without touching the sandboxes,
	// which go on and can be adopted.
	Close() error
}

// Releaser is a Sandboxes that can let go of a single sandbox, which another
// process is to drive. Safe for concurrent use.
type Releaser interface {
	// Release lets go of what this process holds of a sandbox without touching
	// it: its task goes on, its runner looks for who adopts it, in this process
	// or another. From the return on, which waits for a call that is under way,
	// the sink of its task hears nothing more (so a sink may not call it), the
	// sandbox is ErrNotFound here until it is adopted, and Exited says nothing
	// new of it; what it said before may still be in the channel. A Create that
	// is under way fails with ErrConflict and is undone, as by Close. Idempotent;
	// releasing what is not held succeeds.
	Release(ctx context.Context, id SandboxID) error
}

// Hurrier is a Sandboxes that can be told what its starts are for. While tasks
// wait for a sandbox it starts as many at once as it can; otherwise it leaves
// room on the machine for the tasks that start from what is ready. A fresh one
// is not hurried. Does not block; may be repeated.
type Hurrier interface {
	Hurry(tasksWait bool)
}

// SandboxExit says a sandbox ended without being asked to.
type SandboxExit struct {
	ID     SandboxID
	At     time.Time
	Reason TaskReason // oom, node_lost
	Err    error
}
