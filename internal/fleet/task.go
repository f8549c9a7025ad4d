package fleet

import "time"

// TaskState is where a task is in its life; see the package comment.
type TaskState string

// The states of a task. The last five are final.
const (
	TaskQueued     TaskState = "queued"
	TaskClaimed    TaskState = "claimed"
	TaskStarting   TaskState = "starting"
	TaskRunning    TaskState = "running"
	TaskCollecting TaskState = "collecting"
	TaskSucceeded  TaskState = "succeeded"
	TaskFailed     TaskState = "failed"
	TaskTimedOut   TaskState = "timed_out"
	TaskCancelled  TaskState = "cancelled"
	TaskLost       TaskState = "lost"
)

// TaskStates lists every state, in order of life.
var TaskStates = []TaskState{
	TaskQueued, TaskClaimed, TaskStarting, TaskRunning, TaskCollecting,
	TaskSucceeded, TaskFailed, TaskTimedOut, TaskCancelled, TaskLost,
}

// Final reports whether the task has been settled.
func (s TaskState) Final() bool {
	switch s {
	case TaskSucceeded, TaskFailed, TaskTimedOut, TaskCancelled, TaskLost:
		return true
	}
	return false
}

// Active reports whether the task holds a sandbox.
func (s TaskState) Active() bool { return !s.Final() && s != TaskQueued }

// TaskReason says why a task ended as it did; never a bare "failed".
type TaskReason string

// The reasons.
const (
	ReasonNone           TaskReason = ""                // not final, or succeeded
	ReasonExit           TaskReason = "exit"            // the command's own exit code or signal
	ReasonOOM            TaskReason = "oom"             // the memory limit killed it
	ReasonDisk           TaskReason = "disk"            // the writable layer was full
	ReasonPids           TaskReason = "pids"            // the process limit was hit
	ReasonTimeoutQueue   TaskReason = "timeout_queue"   // waited longer than timeouts.queue
	ReasonTimeoutStartup TaskReason = "timeout_startup" // start or setup exceeded timeouts.startup
	ReasonTimeoutRun     TaskReason = "timeout_run"     // ran longer than timeouts.run
	ReasonTimeoutIdle    TaskReason = "timeout_idle"    // no output for timeouts.idle
	ReasonCancelled      TaskReason = "cancelled"       // by a user
	ReasonNodeLost       TaskReason = "node_lost"       // sandbox or node vanished, attempts used up
	ReasonBudget         TaskReason = "budget"          // its money was used up
	ReasonImage          TaskReason = "image"           // the image could not be had
	ReasonPrepare        TaskReason = "prepare"         // a prepare command of the template failed
	ReasonSetup          TaskReason = "setup"           // clone, checkout or a setup command failed
	ReasonCommand        TaskReason = "command"         // the command could not be executed at all
	ReasonSecret         TaskReason = "secret"          // a named secret does not exist
	ReasonPoison         TaskReason = "poison"          // dead-lettered: unreadable, or attempts used up
)

// Launch says whether a task found its sandbox waiting.
type Launch string

// The launch kinds.
const (
	LaunchWarm Launch = "warm" // the sandbox was ready when the task became due
	LaunchCold Launch = "cold" // the sandbox became ready after that
)

// Repo is what a task works on.
type Repo struct {
	URL   string `json:"url"`
	Ref   string `json:"ref,omitempty"`   // branch, tag or commit; empty: the default branch
	Depth int    `json:"depth,omitempty"` // 0: full history
}

// RetryPolicy bounds attempts. Infrastructure losses are always retried, up to
// Max further attempts; an exit of the command's own only when OnExit is set.
type RetryPolicy struct {
	Max     int           `json:"max"`     // further attempts after the first; 0 or more
	OnExit  bool          `json:"onExit"`  // also retry a non-zero exit
	Backoff time.Duration `json:"backoff"` // before the first retry; doubles, at most 5 min
}

// TaskSpec is what a user asked for, parsed, defaulted and resolved against
// the fleet.
type TaskSpec struct {
	Name           string            `json:"name,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Tenant         TenantID          `json:"tenant"`
	Template       string            `json:"template"`
	Pool           PoolKey           `json:"pool"`
	Repo           *Repo             `json:"repo,omitempty"`
	Prompt         string            `json:"prompt,omitempty"`
	Command        []string          `json:"command"`
	Setup          []string          `json:"setup,omitempty"` // shell commands before the command
	Env            map[string]string `json:"env,omitempty"`
	Secrets        []string          `json:"secrets,omitempty"` // names only
	Image          string            `json:"image"`
	Resources      Resources         `json:"resources"`
	Network        Network           `json:"network"`
	Timeouts       Timeouts          `json:"timeouts"`
	MaxMicroUSD    int64             `json:"maxMicroUSD,omitempty"` // 0: no bound
	Retries        RetryPolicy       `json:"retries"`
	Priority       int               `json:"priority"` // -1000..1000, larger first
	Artifacts      []string          `json:"artifacts,omitempty"`
	Webhook        string            `json:"webhook,omitempty"`
	IdempotencyKey string            `json:"idempotencyKey,omitempty"`
	NotBefore      time.Time         `json:"notBefore,omitzero"` // delayed start
	Origin         *Origin           `json:"origin,omitempty"`   // nil: submitted to us
	Input          *Input            `json:"input,omitempty"`
	Trace          Trace             `json:"trace,omitzero"` // of the submitter
}

// InputTo says how a command gets its input.
type InputTo string

// The ways of an input.
const (
	InputFile  InputTo = "file"  // in the file $MUSTER_INPUT_FILE alone
	InputStdin InputTo = "stdin" // on its standard input, too
	InputEnv   InputTo = "env"   // in a variable, too
)

// Input is bytes for the command. They are always in the file that
// $MUSTER_INPUT_FILE names.
type Input struct {
	Data []byte  `json:"data"`
	To   InputTo `json:"to"`
	Name string  `json:"name,omitempty"` // of the variable, with InputEnv
}

// Origin is the message of an outside queue that a task was made from.
type Origin struct {
	Queue   string    `json:"queue"`       // its name in the fleet
	Message string    `json:"message"`     // the backend's name for it, or a digest of its content where it gives none
	At      time.Time `json:"at,omitzero"` // enqueued there; zero where it cannot be told
}

// Phases are the durations of a task's parts, in nanoseconds; zero where a
// phase was not entered.
type Phases struct {
	Queue   time.Duration `json:"queue"`   // due to leased
	Claim   time.Duration `json:"claim"`   // leased to accepted by the runner
	Start   time.Duration `json:"start"`   // accepted to first setup or command instruction
	Setup   time.Duration `json:"setup"`   // clone and setup commands
	Run     time.Duration `json:"run"`     // command start to exit
	Collect time.Duration `json:"collect"` // patch, artifacts
}

// Usage is what a sandbox used. Counters never fall during its life.
type Usage struct {
	At                time.Time     `json:"at,omitzero"`
	CPU               time.Duration `json:"cpu"`
	MilliCPUNow       int64         `json:"milliCPUNow,omitempty"` // thousandths of a processor in use over the last moment; 0 in a record
	CPUThrottled      time.Duration `json:"cpuThrottled"`
	MemoryBytes       int64         `json:"memoryBytes"`
	MemoryPeakBytes   int64         `json:"memoryPeakBytes"`
	MemoryByteSeconds int64         `json:"memoryByteSeconds"`
	Pids              int64         `json:"pids"`
	PidsPeak          int64         `json:"pidsPeak"`
	IOReadBytes       int64         `json:"ioReadBytes"`
	IOWriteBytes      int64         `json:"ioWriteBytes"`
	DiskBytes         int64         `json:"diskBytes"`
	NetSentBytes      int64         `json:"netSentBytes"`     // through the proxy
	NetReceivedBytes  int64         `json:"netReceivedBytes"` // through the proxy
	OOMKills          int64         `json:"oomKills"`
	PidsDenied        int64         `json:"pidsDenied"` // forks refused by the limit
	DiskFull          bool          `json:"diskFull"`   // the writable layer was seen full
}

// ModelUse is what an agent reports in its output of the models it used. It
// stands beside what compute cost, and is never part of it.
type ModelUse struct {
	Reports          int64 `json:"reports" doc:"Calls of the agent that said so"`
	InputTokens      int64 `json:"inputTokens" doc:"Not from a cache"`
	CacheReadTokens  int64 `json:"cacheReadTokens,omitempty"`
	CacheWriteTokens int64 `json:"cacheWriteTokens,omitempty"`
	OutputTokens     int64 `json:"outputTokens"`
	Priced           int64 `json:"priced,omitempty" doc:"Of the reports, those that said what they cost"`
	MicroUSD         int64 `json:"microUSD,omitempty" doc:"What those cost by the agent's own reckoning, in millionths of a US dollar"`
}

// Add adds another's.
func (m *ModelUse) Add(o ModelUse) {
	m.Reports, m.Priced, m.MicroUSD = m.Reports+o.Reports, m.Priced+o.Priced, m.MicroUSD+o.MicroUSD
	m.InputTokens, m.OutputTokens = m.InputTokens+o.InputTokens, m.OutputTokens+o.OutputTokens
	m.CacheReadTokens, m.CacheWriteTokens = m.CacheReadTokens+o.CacheReadTokens, m.CacheWriteTokens+o.CacheWriteTokens
}

// Artifact is one collected file.
type Artifact struct {
	Path  string `json:"path"` // slash-separated, relative to the workspace
	Bytes int64  `json:"bytes"`
}

// Result is how a task ended.
type Result struct {
	Reason       TaskReason `json:"reason,omitempty"`
	Message      string     `json:"message,omitempty"` // one sentence for a person
	ExitCode     int        `json:"exitCode"`          // -1 where the command did not exit
	Signal       string     `json:"signal,omitempty"`  // SIGKILL, …
	LogBytes     int64      `json:"logBytes"`
	LogDropped   int64      `json:"logDropped,omitempty"` // bytes beyond the log limit
	PatchBytes   int64      `json:"patchBytes"`
	PatchNote    string     `json:"patchNote,omitempty"` // why there is no patch, or it was cut
	Artifacts    []Artifact `json:"artifacts,omitempty"`
	ArtifactNote string     `json:"artifactNote,omitempty"`
	Usage        Usage      `json:"usage"`
	Model        *ModelUse  `json:"model,omitempty"` // over all attempts; nil: its output reports nothing
}

// Task is a task as the store keeps it.
type Task struct {
	ID       TaskID    `json:"id"`
	Spec     TaskSpec  `json:"spec"`
	State    TaskState `json:"state"`
	Attempt  int       `json:"attempt"` // 0 before the first lease; counts leases
	Fence    int64     `json:"fence"`   // fencing token of the newest lease
	Sandbox  SandboxID `json:"sandbox,omitempty"`
	Node     NodeID    `json:"node,omitempty"`
	Launch   Launch    `json:"launch,omitempty"`
	Phases   Phases    `json:"phases"`
	Result   Result    `json:"result"`
	Cancel   bool      `json:"cancel,omitempty"` // cancellation asked for
	CancelBy string    `json:"cancelBy,omitempty"`
	// Receipt is that of the message the task was made from. It is there to be
	// submitted; what is read has none.
	Receipt string `json:"-"`

	SubmittedAt time.Time `json:"submittedAt"`
	DueAt       time.Time `json:"dueAt"` // SubmittedAt, NotBefore or the end of a back-off
	ClaimedAt   time.Time `json:"claimedAt,omitzero"`
	StartedAt   time.Time `json:"startedAt,omitzero"` // first instruction of setup or command
	RunningAt   time.Time `json:"runningAt,omitzero"` // the command
	EndedAt     time.Time `json:"endedAt,omitzero"`
}
