package v1alpha1

import (
	"encoding/json"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TaskView is a task as the API shows it. Times are RFC 3339, durations are
// seconds, sizes are bytes.
type TaskView struct {
	ID       fleet.TaskID      `json:"id" doc:"The task's identifier: t and 20 characters; sorts by submission time"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Tenant   fleet.TenantID    `json:"tenant"`
	Template string            `json:"template"`
	Pool     fleet.PoolKey     `json:"pool"`
	Priority int               `json:"priority,omitempty"`

	State    fleet.TaskState  `json:"state" enum:"queued,claimed,starting,running,collecting,succeeded,failed,timed_out,cancelled,lost"`
	Reason   fleet.TaskReason `json:"reason,omitempty" doc:"Why it ended as it did; never a bare failed"`
	Message  string           `json:"message,omitempty" doc:"One sentence for a person"`
	ExitCode *int             `json:"exitCode,omitempty" doc:"Absent where the command did not exit by itself"`
	Signal   string           `json:"signal,omitempty"`

	Attempt     int             `json:"attempt" doc:"Counts leases; 0 before the first"`
	Launch      fleet.Launch    `json:"launch,omitempty" doc:"warm when a ready sandbox was waiting, else cold"`
	Sandbox     fleet.SandboxID `json:"sandbox,omitempty"`
	Node        fleet.NodeID    `json:"node,omitempty"`
	Cancelling  bool            `json:"cancelling,omitempty" doc:"Cancellation was asked for and the task has not ended yet"`
	CancelledBy string          `json:"cancelledBy,omitempty"`

	SubmittedAt time.Time `json:"submittedAt"`
	DueAt       time.Time `json:"dueAt"`
	ClaimedAt   time.Time `json:"claimedAt,omitzero"`
	StartedAt   time.Time `json:"startedAt,omitzero" doc:"First instruction of setup or command"`
	RunningAt   time.Time `json:"runningAt,omitzero" doc:"The command"`
	EndedAt     time.Time `json:"endedAt,omitzero"`

	Phases PhasesView `json:"phases"`
	Usage  *UsageView `json:"usage,omitempty"`
	// Model is what the agent says, and stands beside Cost.
	Model *fleet.ModelUse `json:"model,omitempty" doc:"What the agent's own output reports of the models it used, over all attempts; absent where it reports nothing"`
	// Cost is there for one task, not in lists.
	Cost *TaskCostView `json:"cost,omitempty" doc:"What it has cost so far; absent in lists, and where nothing was charged yet"`

	LogBytes     int64            `json:"logBytes"`
	LogDropped   int64            `json:"logDropped,omitempty" doc:"Bytes beyond the log limit"`
	PatchBytes   int64            `json:"patchBytes"`
	PatchNote    string           `json:"patchNote,omitempty" doc:"Why there is no patch, or that it was cut"`
	Artifacts    []fleet.Artifact `json:"artifacts,omitempty"`
	ArtifactNote string           `json:"artifactNote,omitempty"`

	Origin *fleet.Origin `json:"origin,omitempty" doc:"The message of an outside queue it was made from"`

	Spec TaskSpec `json:"spec" doc:"The task with every default filled in; submitting it again asks for the same"`
}

// TaskCostView is what a task has cost: its share of the nodes its sandboxes
// were on.
type TaskCostView struct {
	ComputeMicroUSD int64   `json:"computeMicroUSD" doc:"Millionths of a US dollar, for all attempts"`
	BusySeconds     float64 `json:"busySeconds" doc:"How long sandboxes were held for it"`
}

// Final reports whether the task has ended.
func (t TaskView) Final() bool { return t.State.Final() }

// PhasesView is how long each part of a task took, in seconds.
type PhasesView struct {
	QueueSeconds   float64 `json:"queueSeconds" doc:"Due to leased"`
	ClaimSeconds   float64 `json:"claimSeconds" doc:"Leased to accepted by the runner"`
	StartSeconds   float64 `json:"startSeconds" doc:"Accepted to the first instruction"`
	SetupSeconds   float64 `json:"setupSeconds" doc:"Clone and setup commands"`
	RunSeconds     float64 `json:"runSeconds" doc:"The command"`
	CollectSeconds float64 `json:"collectSeconds" doc:"Patch and artifacts"`
}

// UsageView is what a sandbox used, read from outside it.
type UsageView struct {
	At                  time.Time `json:"at,omitzero"`
	CPUSeconds          float64   `json:"cpuSeconds"`
	CPUNow              float64   `json:"cpuNow,omitempty" doc:"Processors in use over the last moment"`
	CPUThrottledSeconds float64   `json:"cpuThrottledSeconds"`
	MemoryBytes         int64     `json:"memoryBytes"`
	MemoryPeakBytes     int64     `json:"memoryPeakBytes"`
	MemoryByteSeconds   int64     `json:"memoryByteSeconds"`
	Pids                int64     `json:"pids"`
	PidsPeak            int64     `json:"pidsPeak"`
	IOReadBytes         int64     `json:"ioReadBytes"`
	IOWriteBytes        int64     `json:"ioWriteBytes"`
	DiskBytes           int64     `json:"diskBytes"`
	NetSentBytes        int64     `json:"netSentBytes"`
	NetReceivedBytes    int64     `json:"netReceivedBytes"`
	OOMKills            int64     `json:"oomKills,omitempty"`
	PidsDenied          int64     `json:"pidsDenied,omitempty"`
	DiskFull            bool      `json:"diskFull,omitempty"`
}

// NewTaskView shows a task.
func NewTaskView(t fleet.Task) TaskView {
	v := TaskView{
		ID: t.ID, Name: t.Spec.Name, Labels: t.Spec.Labels, Tenant: t.Spec.Tenant,
		Template: t.Spec.Template, Pool: t.Spec.Pool, Priority: t.Spec.Priority,
		State: t.State, Reason: t.Result.Reason, Message: t.Result.Message, Signal: t.Result.Signal,
		Attempt: t.Attempt, Launch: t.Launch, Sandbox: t.Sandbox, Node: t.Node,
		Cancelling: t.Cancel && !t.State.Final(), CancelledBy: t.CancelBy,
		SubmittedAt: t.SubmittedAt, DueAt: t.DueAt, ClaimedAt: t.ClaimedAt,
		StartedAt: t.StartedAt, RunningAt: t.RunningAt, EndedAt: t.EndedAt,
		Phases:   newPhasesView(t.Phases),
		LogBytes: t.Result.LogBytes, LogDropped: t.Result.LogDropped,
		PatchBytes: t.Result.PatchBytes, PatchNote: t.Result.PatchNote,
		Artifacts: t.Result.Artifacts, ArtifactNote: t.Result.ArtifactNote,
		Model: t.Result.Model, Origin: t.Spec.Origin, Spec: NewTaskSpec(t.Spec),
	}
	if t.State.Final() && t.Result.ExitCode >= 0 && exited(t) {
		code := t.Result.ExitCode
		v.ExitCode = &code
	}
	if t.Result.Usage != (fleet.Usage{}) {
		u := NewUsageView(t.Result.Usage)
		v.Usage = &u
	}
	return v
}

// exited tells an exit code of 0 that was observed from one that is only the
// zero value of a task that never ran its command.
func exited(t fleet.Task) bool {
	return t.State == fleet.TaskSucceeded || t.Result.ExitCode > 0 || !t.RunningAt.IsZero()
}

func newPhasesView(p fleet.Phases) PhasesView {
	return PhasesView{
		QueueSeconds: p.Queue.Seconds(), ClaimSeconds: p.Claim.Seconds(), StartSeconds: p.Start.Seconds(),
		SetupSeconds: p.Setup.Seconds(), RunSeconds: p.Run.Seconds(), CollectSeconds: p.Collect.Seconds(),
	}
}

// NewUsageView shows what a sandbox used.
func NewUsageView(u fleet.Usage) UsageView {
	return UsageView{
		At: u.At, CPUSeconds: u.CPU.Seconds(), CPUNow: float64(u.MilliCPUNow) / 1000, CPUThrottledSeconds: u.CPUThrottled.Seconds(),
		MemoryBytes: u.MemoryBytes, MemoryPeakBytes: u.MemoryPeakBytes, MemoryByteSeconds: u.MemoryByteSeconds,
		Pids: u.Pids, PidsPeak: u.PidsPeak, IOReadBytes: u.IOReadBytes, IOWriteBytes: u.IOWriteBytes,
		DiskBytes: u.DiskBytes, NetSentBytes: u.NetSentBytes, NetReceivedBytes: u.NetReceivedBytes,
		OOMKills: u.OOMKills, PidsDenied: u.PidsDenied, DiskFull: u.DiskFull,
	}
}

// SandboxView is a sandbox as the API shows it. Environment values are left
// out.
type SandboxView struct {
	ID        fleet.SandboxID    `json:"id"`
	Pool      fleet.PoolKey      `json:"pool"`
	Template  string             `json:"template"`
	Revision  string             `json:"revision" doc:"Of the template it was made from"`
	Node      fleet.NodeID       `json:"node"`
	State     fleet.SandboxState `json:"state" enum:"starting,ready,claimed,draining,failed,gone"`
	Message   string             `json:"message,omitempty"`
	Task      fleet.TaskID       `json:"task,omitempty"`
	Image     string             `json:"image"`
	Resources fleet.Resources    `json:"resources"`
	Isolation fleet.Isolation    `json:"isolation"`
	CreatedAt time.Time          `json:"createdAt"`
	ReadyAt   time.Time          `json:"readyAt,omitzero"`
	ClaimedAt time.Time          `json:"claimedAt,omitzero"`
	GoneAt    time.Time          `json:"goneAt,omitzero"`
	Usage     UsageView          `json:"usage"`
	// Work is there while the sandbox has a task, Trail where it was asked for.
	Work  *SandboxWork  `json:"work,omitempty" doc:"The task it has"`
	Trail *SandboxTrail `json:"trail,omitempty" doc:"What it used of late; only with ?trail=true or in a stream"`
}

// NewSandboxView shows a sandbox.
func NewSandboxView(s fleet.Sandbox) SandboxView {
	return SandboxView{
		ID: s.Spec.ID, Pool: s.Spec.Pool, Template: s.Spec.Template, Revision: s.Spec.Revision,
		Node: s.Spec.Node, State: s.State, Message: s.Message, Task: s.Task,
		Image: s.Spec.Image, Resources: s.Spec.Resources, Isolation: s.Isolation,
		CreatedAt: s.CreatedAt, ReadyAt: s.ReadyAt, ClaimedAt: s.ClaimedAt, GoneAt: s.GoneAt,
		Usage: NewUsageView(s.Usage),
	}
}

// DecisionView is one journaled decision, for reading and replay.
type DecisionView struct {
	Seq         int64           `json:"seq"`
	At          time.Time       `json:"at"`
	Changed     bool            `json:"changed"`
	Observation json.RawMessage `json:"observation"`
	Plan        json.RawMessage `json:"plan"`
	State       json.RawMessage `json:"state,omitempty" doc:"The planner's state before the decision"`
	Policy      string          `json:"policy,omitempty" doc:"Digest of the policy it was decided under; absent when that was not recorded yet"`
	Version     int             `json:"version,omitempty" doc:"Of the planner that decided; absent when that was not recorded yet"`
}

// Record is the decision as it was journaled.
func (v DecisionView) Record() fleet.DecisionRecord {
	return fleet.DecisionRecord{
		Seq: v.Seq, At: v.At, Changed: v.Changed, Observation: v.Observation, Plan: v.Plan, State: v.State,
		Policy: v.Policy, Version: v.Version,
	}
}

// PolicyView is a policy that decisions were made under.
type PolicyView struct {
	Digest string          `json:"digest" doc:"SHA-256 of the policy's JSON as it is here"`
	Policy json.RawMessage `json:"policy"`
}

// NewDecisionView shows a decision.
func NewDecisionView(d fleet.DecisionRecord) DecisionView {
	return DecisionView{
		Seq: d.Seq, At: d.At, Changed: d.Changed,
		Observation: rawJSON(d.Observation), Plan: rawJSON(d.Plan), State: rawJSON(d.State),
		Policy: d.Policy, Version: d.Version,
	}
}

// rawJSON never yields text that would break the document around it.
func rawJSON(b []byte) json.RawMessage {
	if len(b) == 0 {
		return json.RawMessage("null")
	}
	if !json.Valid(b) {
		quoted, err := json.Marshal(string(b))
		if err != nil {
			return json.RawMessage("null")
		}
		return quoted
	}
	return json.RawMessage(b)
}

// ExplanationView says why a task waited or an event happened.
type ExplanationView struct {
	Summary  string        `json:"summary" doc:"One sentence with the numbers"`
	Task     *TaskView     `json:"task,omitempty"`
	Event    *fleet.Event  `json:"event,omitempty"`
	Steps    []fleet.Event `json:"steps" doc:"What happened, in order"`
	Decision *DecisionView `json:"decision,omitempty"`
}

// NewExplanationView shows an explanation.
func NewExplanationView(e fleet.Explanation) ExplanationView {
	v := ExplanationView{Summary: e.Summary, Event: e.Event, Steps: nonNil(e.Steps)}
	if e.Task != nil {
		t := NewTaskView(*e.Task)
		v.Task = &t
	}
	if e.Decision != nil {
		d := NewDecisionView(*e.Decision)
		v.Decision = &d
	}
	return v
}

// ScheduleView is a schedule as the API shows it.
type ScheduleView struct {
	Name      string       `json:"name"`
	Cron      string       `json:"cron"`
	Timezone  string       `json:"timezone"`
	Paused    bool         `json:"paused,omitempty"`
	Next      time.Time    `json:"next,omitzero" doc:"When it fires next; absent while paused"`
	LastAt    time.Time    `json:"lastAt,omitzero"`
	LastTask  fleet.TaskID `json:"lastTask,omitempty"`
	LastError string       `json:"lastError,omitempty"`
	Task      TaskSpec     `json:"task"`
}

// NewScheduleView shows a schedule.
func NewScheduleView(s fleet.Schedule) ScheduleView {
	v := ScheduleView{
		Name: s.Name, Cron: s.Cron, Timezone: s.Timezone, Paused: s.Paused,
		Next: s.Next, LastAt: s.LastAt, LastTask: s.LastTask, LastError: s.LastError,
	}
	if s.Paused {
		v.Next = time.Time{}
	}
	if err := json.Unmarshal(s.Task, &v.Task); err != nil && v.LastError == "" {
		v.LastError = "the stored task cannot be read: " + err.Error()
	}
	return v
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
