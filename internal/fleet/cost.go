package fleet

import "time"

// CostQuery asks what a fleet has cost.
type CostQuery struct {
	Since, Until time.Time // full hours count; zero: the last 30 days, now; at most 31 days by task
	// By is what it is split by: tenant, team, project, template, task, node, hour
	// or label:KEY; empty: nothing.
	By    string
	Fixed int // nodes of a fixed fleet to compare with, beside that of the same peak; 0: none
	Limit int // most groups, the dearest; 0: 1000
	// OffFrom and OffUntil are the off-hours, as time of the day in Zone; a
	// saving in them is told where they differ. OffUntil may be before OffFrom:
	// the off-hours then span midnight. Saturdays and Sundays are off as a whole
	// with Weekends.
	OffFrom, OffUntil time.Duration
	Weekends          bool
	Zone              *time.Location // nil: UTC
}

// CostReport is what a fleet has cost, from its ledger. All amounts are of
// compute alone, in millionths of a US dollar.
type CostReport struct {
	Since     time.Time `json:"since" doc:"Rounded down to a full hour"`
	Until     time.Time `json:"until" doc:"Rounded up to a full hour"`
	Began     time.Time `json:"began,omitzero" doc:"When the ledger began; nothing is known of before"`
	ChargedTo time.Time `json:"chargedTo,omitzero" doc:"What came later is not in it yet"`
	By        string    `json:"by,omitempty"`

	MicroUSD     int64      `json:"microUSD" doc:"The whole bill"`
	TaskMicroUSD int64      `json:"taskMicroUSD" doc:"Of it, what sandboxes with a task took of their nodes"`
	Idle         []CostIdle `json:"idle" doc:"The rest of it, by cause"`
	IdleShare    float64    `json:"idleShare" doc:"Part of the bill that no task was charged, 0 to 1"`
	WarmMicroUSD int64      `json:"warmMicroUSD" doc:"Warm overhead: sandboxes that start or wait"`
	NodeHours    float64    `json:"nodeHours"`
	Unpriced     float64    `json:"unpricedNodeHours" doc:"Of them, those for which no price was known; they are in the bill as 0"`
	PeakNodes    int        `json:"peakNodes" doc:"Most nodes at once"`

	BusyHours         float64 `json:"busyHours" doc:"Agent-hours: time that sandboxes were held for tasks"`
	AgentHourMicroUSD *int64  `json:"agentHourMicroUSD,omitempty" doc:"The bill over the agent-hours; absent where there were none"`
	Settled           int64   `json:"settled" doc:"Tasks that had a sandbox and ended"`
	Succeeded         int64   `json:"succeeded"`
	SuccessMicroUSD   *int64  `json:"succeededTaskMicroUSD,omitempty" doc:"The bill over the tasks that succeeded; absent where none did"`

	UsedMicroUSD     int64    `json:"usedMicroUSD" doc:"What tasks that ended used of their nodes, as measured: the mean of their parts of the processor time and of the memory over time"`
	MeasuredMicroUSD int64    `json:"measuredMicroUSD" doc:"What the same tasks were charged for what was allocated to them"`
	Model            ModelUse `json:"model" doc:"What agents reported of the models they used, by the hour their tasks ended; not part of any other amount"`

	Fixed    []CostFixed   `json:"fixed" doc:"Beside fleets of a fixed size"`
	OffHours *CostOffHours `json:"offHours,omitempty"`
	Groups   []CostGroup   `json:"groups" doc:"The dearest first; hours in order of time"`
	More     int           `json:"more,omitempty" doc:"Groups left out"`
	Budgets  []BudgetView  `json:"budgets" doc:"How the budgets are kept now, whatever the query's time; the fleet's first"`
	Sentence string        `json:"sentence"`
}

// CostIdle is what nobody used, of one cause.
type CostIdle struct {
	Cause    string  `json:"cause" enum:"warm_pool,headroom,boot,drain,system,minimum"`
	MicroUSD int64   `json:"microUSD"`
	Share    float64 `json:"share" doc:"Of the bill, 0 to 1"`
}

// CostFixed is what a fixed fleet would have cost at the same mean price.
type CostFixed struct {
	Kind           string  `json:"kind" enum:"same_peak,asked"`
	Nodes          int     `json:"nodes"`
	MicroUSD       int64   `json:"microUSD"`
	SavingMicroUSD int64   `json:"savingMicroUSD" doc:"Negative: the fixed fleet would have cost less"`
	SavingShare    float64 `json:"savingShare" doc:"Of what it would have cost"`
	Short          bool    `json:"short,omitempty" doc:"It has fewer nodes than there were at the peak: tasks would have waited"`
}

// CostOffHours is what was saved at night and on weekends.
type CostOffHours struct {
	From           string  `json:"from" doc:"HH:MM"`
	Until          string  `json:"until" doc:"HH:MM"`
	Weekends       bool    `json:"weekends,omitempty"`
	Timezone       string  `json:"timezone"`
	Hours          float64 `json:"hours"`
	MicroUSD       int64   `json:"microUSD" doc:"Spent in them"`
	FixedMicroUSD  int64   `json:"fixedMicroUSD" doc:"What a fixed fleet of the same peak would have cost in them"`
	SavingMicroUSD int64   `json:"savingMicroUSD"`
}

// CostGroup is one row of a split.
type CostGroup struct {
	Name              string    `json:"name" doc:"Empty: tasks that name none"`
	MicroUSD          int64     `json:"microUSD" doc:"Charged to it"`
	SharedMicroUSD    int64     `json:"sharedMicroUSD,omitempty" doc:"Its share of what no task used, in proportion to what is charged"`
	BusyHours         float64   `json:"busyHours"`
	AgentHourMicroUSD *int64    `json:"agentHourMicroUSD,omitempty"`
	Settled           int64     `json:"settled"`
	Succeeded         int64     `json:"succeeded"`
	Outcome           TaskState `json:"outcome,omitempty" doc:"Of a task"`
	UsedMicroUSD      int64     `json:"usedMicroUSD,omitempty" doc:"As measured, of tasks that ended; absent by node and hour"`
	MeasuredMicroUSD  int64     `json:"measuredMicroUSD,omitempty" doc:"What the same tasks were charged"`
	Model             *ModelUse `json:"model,omitempty" doc:"What agents reported; absent where nothing was, and by node and hour"`
}
