package fleet

import "time"

// EvidenceQuery asks for evidence; zero times: the last 30 days, now. At most 31
// days.
type EvidenceQuery struct{ Since, Until time.Time }

// Evidence is what can be shown of a fleet from its own records: what it ran
// on, how that was sized, how fast it reacted, how each agent was confined.
type Evidence struct {
	Fleet     string              `json:"fleet"`
	Version   string              `json:"version" doc:"Of the control plane that wrote this"`
	At        time.Time           `json:"at"`
	Since     time.Time           `json:"since"`
	Until     time.Time           `json:"until"`
	Began     time.Time           `json:"began,omitzero" doc:"When the fleet's records begin, where that is within this time; before there was nothing to observe"`
	Gaps      []EvidenceGap       `json:"gaps" doc:"When nobody looked, for three minutes or more; nothing is shown of them"`
	Unseen    float64             `json:"unseenShare" doc:"Part of the time, from began on, that the gaps are, 0 to 1"`
	Compute   EvidenceCompute     `json:"compute"`
	Changes   []EvidenceChange    `json:"changes" doc:"Of the specification, oldest first; the first is the one in force at the beginning"`
	Spec      string              `json:"spec" doc:"In force, as written, YAML"`
	Events    []Event             `json:"events" doc:"Scaling events with their reasons, the newest, oldest first"`
	MoreEvent bool                `json:"moreEvents,omitempty" doc:"There were more, which are left out"`
	Reaction  EvidenceReaction    `json:"reaction"`
	Profiles  []EvidenceIsolation `json:"profiles" doc:"The ways in which agents were confined, most used first"`
	Agents    []EvidenceAgent     `json:"agents" doc:"The sandboxes that had a task, the newest"`
	MoreAgent int                 `json:"moreAgents,omitempty" doc:"Left out of agents; they are in profiles"`
	Weeks     []EvidenceWeek      `json:"weeks" doc:"What an agent-hour cost, by week from Monday 00:00 UTC"`
	Notes     []string            `json:"notes" doc:"What could not be read or is not known"`
}

// EvidenceGap is a time that nothing was observed in.
type EvidenceGap struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

// EvidenceCompute is what agents ran on.
type EvidenceCompute struct {
	Nodes    []EvidenceNode   `json:"nodes" doc:"Those that had agents"`
	Watched  bool             `json:"watched" doc:"It is looked, every 30 s, whether agents are alone on their nodes"`
	LookedAt time.Time        `json:"lookedAt,omitzero" doc:"Of the last look that succeeded"`
	Error    string           `json:"error,omitempty" doc:"Of the last look, where it failed"`
	Breaches []EvidenceBreach `json:"breaches" doc:"Oldest first"`
	Sentence string           `json:"sentence"`
}

// EvidenceNode is a node that had agents.
type EvidenceNode struct {
	ID        NodeID    `json:"id"`
	Kind      NodeKind  `json:"kind,omitzero" doc:"Of nodes that are there still"`
	Sandboxes int       `json:"sandboxes"`
	Agents    int       `json:"agents" doc:"Of them, those that had a task"`
	First     time.Time `json:"first" doc:"Creation of its first sandbox in this time"`
	Last      time.Time `json:"last" doc:"End of its last one; until, where there is one still"`
}

// EvidenceBreach is a time in which agents were not alone.
type EvidenceBreach struct {
	From   time.Time `json:"from,omitzero" doc:"Absent: before this time"`
	Until  time.Time `json:"until,omitzero" doc:"Absent: not over"`
	Node   NodeID    `json:"node"`
	Reason string    `json:"reason"`
}

// EvidenceChange is a change of the specification.
type EvidenceChange struct {
	Number  int64     `json:"number"`
	At      time.Time `json:"at"`
	Author  string    `json:"author"`
	Source  string    `json:"source"`
	Note    string    `json:"note,omitempty"`
	Changes []string  `json:"changes"`
}

// EvidenceReaction is how long tasks waited from when they were due to their
// first instruction, against what is promised.
type EvidenceReaction struct {
	PromiseSeconds float64          `json:"promiseSeconds" doc:"objective.reactWithin"`
	Tasks          int              `json:"tasks" doc:"That started, or waited longer than promised without"`
	Within         float64          `json:"within" doc:"Share of them, 0 to 1"`
	P50            float64          `json:"p50Seconds"`
	P95            float64          `json:"p95Seconds"`
	P99            float64          `json:"p99Seconds"`
	Max            float64          `json:"maxSeconds"`
	ScaleOut       ScaleOut         `json:"scaleOut" doc:"Of the times since the control plane started that no sandbox was free, whatever the time asked about"`
	Buckets        []EvidenceBucket `json:"buckets"`
	Breaches       []EvidenceLate   `json:"breaches" doc:"The longest first"`
	MoreLate       int              `json:"moreBreaches,omitempty" doc:"Left out"`
}

// EvidenceBucket counts waits up to a bound.
type EvidenceBucket struct {
	UpTo  float64 `json:"upToSeconds" doc:"0: longer than all others"`
	Tasks int     `json:"tasks"`
}

// EvidenceLate is a task that waited longer than promised.
type EvidenceLate struct {
	Task    TaskID    `json:"task"`
	Name    string    `json:"name,omitempty"`
	Due     time.Time `json:"due"`
	Wait    float64   `json:"waitSeconds" doc:"Up to its start, its end, or now"`
	Started bool      `json:"started"`
	Cause   string    `json:"cause"`
}

// EvidenceIsolation is one way of being confined.
type EvidenceIsolation struct {
	Isolation Isolation `json:"isolation"`
	Observed  bool      `json:"observed" doc:"By the kernel's word from inside; false: not observed, what is said is what was asked for"`
	Limits    Resources `json:"limits" doc:"As set when it was made; not observed"`
	Sandboxes int       `json:"sandboxes"`
	Agents    int       `json:"agents"`
}

// EvidenceAgent is a sandbox that had a task.
type EvidenceAgent struct {
	Sandbox    SandboxID `json:"sandbox"`
	Task       TaskID    `json:"task"`
	Name       string    `json:"name,omitempty"`
	Node       NodeID    `json:"node"`
	Template   string    `json:"template"`
	Claimed    time.Time `json:"claimed"`
	Gone       time.Time `json:"gone,omitzero"`
	Profile    int       `json:"profile" doc:"Index into profiles"`
	CPUSeconds float64   `json:"cpuSeconds"`
	CPUShare   float64   `json:"cpuShare" doc:"Of its limit, over its time with the task"`
	MemoryPeak int64     `json:"memoryPeakBytes"`
	MemoryPart float64   `json:"memoryShare" doc:"The peak, of the limit"`
}

// EvidenceWeek is what agents cost in a week.
type EvidenceWeek struct {
	From              time.Time `json:"from"`
	Until             time.Time `json:"until"`
	MicroUSD          int64     `json:"microUSD"`
	AgentHours        float64   `json:"agentHours"`
	NodeHours         float64   `json:"nodeHours"`
	AgentHourMicroUSD *int64    `json:"agentHourMicroUSD,omitempty" doc:"Absent where no agent ran"`
	IdleShare         float64   `json:"idleShare"`
}
