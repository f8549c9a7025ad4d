package fleet

import "time"

// Stage is a part of the way from a task that finds no sandbox to its first
// instruction.
type Stage string

// The stages, in order of time, and two sums of them.
const (
	StageDetect  Stage = "detect"  // a task is due and finds no sandbox, until the decision that sees it
	StageDecide  Stage = "decide"  // until that decision is journaled and applied
	StageNode    Stage = "node"    // a node is asked for, until it is ready
	StageRoom    Stage = "room"    // of one reaction: until there is room for the sandbox, on a node that boots or below a bound
	StageImage   Stage = "image"   // a sandbox is asked for, until its image is there
	StageTurn    Stage = "turn"    // until it is its turn among the starts of its machine
	StageStart   Stage = "start"   // until its runner is there
	StagePrepare Stage = "prepare" // until the prepare commands of its template are done
	StageClaim   Stage = "claim"   // a task is leased, until its first instruction

	StageSandbox Stage = "sandbox" // a sandbox is asked for, until it is ready: image to prepare together
	StageReact   Stage = "react"   // a task is due and finds no sandbox, until the first such task runs
)

// StartStages is where the time of one start of a sandbox went. Prepare holds
// the runner's own start, too, where there are prepare commands.
type StartStages struct {
	Image, Turn, Start, Prepare time.Duration
}

// Stager is a Sandboxes that knows where the time of a start went.
type Stager interface {
	// Stages are those of a sandbox that this process has created and that is
	// still there; false: not known. Does not block; may be repeated.
	Stages(id SandboxID) (StartStages, bool)
}

// LeadTimes is how long each stage took lately.
type LeadTimes struct {
	At     time.Time   `json:"at"`
	Since  time.Time   `json:"since"` // of this process; "node" and "sandbox" are remembered from before
	Stages []StageLead `json:"stages"`
	// Reactions are the newest times that tasks found no sandbox, newest first.
	Reactions []Reaction `json:"reactions"`
}

// StageLead is the distribution of one stage, of the newest samples.
type StageLead struct {
	Stage    Stage         `json:"stage"`
	Template string        `json:"template,omitempty"` // empty: of all templates
	Samples  int           `json:"samples"`
	P50      time.Duration `json:"p50"`
	P95      time.Duration `json:"p95"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
	Newest   time.Time     `json:"newest"`
}

// ScaleOut is how long scaling out took lately: the distribution of
// [StageReact] over all templates, from a task that finds no sandbox to the
// first such task's first instruction.
type ScaleOut struct {
	Samples    int       `json:"samples" doc:"Times that tasks found no sandbox and the first of them has run: the newest 256 of each template since the control plane started; the rest is 0 where there was none"`
	P50Seconds float64   `json:"p50Seconds"`
	P95Seconds float64   `json:"p95Seconds"`
	MaxSeconds float64   `json:"maxSeconds"`
	Newest     time.Time `json:"newest,omitzero"`
}

// Reaction is one time that tasks found no sandbox, until the first of them
// ran. Times are zero where that has not come, or is not known.
type Reaction struct {
	Pool    PoolKey     `json:"pool"`
	Due     time.Time   `json:"due"`     // of the task that waited longest
	Seen    time.Time   `json:"seen"`    // by the decision
	Applied time.Time   `json:"applied"` // what was decided
	Asked   time.Time   `json:"asked"`   // for the sandbox that was ready first; later than Applied where a node had to come
	Ready   time.Time   `json:"ready"`   // that sandbox
	Ran     time.Time   `json:"ran"`     // the first task
	Start   StartStages `json:"start"`   // of that sandbox
}
