package fleet

import "time"

// WhatIfQuery asks what a fleet would have cost, and how long tasks would have
// waited, on its own history.
type WhatIfQuery struct {
	// Since and Until bound the history, by arrival; zero: the last 14 days, now.
	Since, Until time.Time
	// Patch is a piece of a Fleet in JSON, {"spec": {…}}, that is simulated beside
	// the fleet as it is; empty: none.
	Patch []byte
	// Policies names rival policies of the simulator to set beside it, each at
	// most once.
	Policies []string
}

// WhatIf is what the simulator says to a WhatIfQuery.
type WhatIf struct {
	Basis   WhatIfBasis   `json:"basis"`
	Present WhatIfOutcome `json:"present" doc:"The fleet as it is, simulated"`
	// Changed is the fleet with the patch.
	Changed  *WhatIfOutcome  `json:"changed,omitempty" doc:"With the patch; absent without one"`
	Saved    *WhatIfSaving   `json:"saved,omitempty" doc:"Present less changed; absent without a patch"`
	Policies []WhatIfOutcome `json:"policies" doc:"The rivals that were asked for, in order"`
	Changes  []string        `json:"changes" doc:"What the patch changes, field by field"`
	Sentence string          `json:"sentence"`
}

// WhatIfSaving is the difference of two outcomes; negative: the change costs
// more.
type WhatIfSaving struct {
	MicroUSD      int64   `json:"microUSD" doc:"In the time that was simulated"`
	MonthMicroUSD int64   `json:"monthMicroUSD" doc:"In 30 days at that rate"`
	Share         float64 `json:"share" doc:"Of what the fleet costs as it is; 0 where that is nothing"`
}

// WhatIfOutcome is what one simulated fleet did in the counted time. A wait is
// from a task's arrival to its first instruction.
type WhatIfOutcome struct {
	Policy        string  `json:"policy" doc:"muster, or the name of a rival"`
	Tasks         int64   `json:"tasks"`
	MicroUSD      int64   `json:"microUSD" doc:"What its nodes cost"`
	MonthMicroUSD int64   `json:"monthMicroUSD" doc:"In 30 days at that rate"`
	NodeHours     float64 `json:"nodeHours"`
	WaitP50       float64 `json:"waitP50Seconds"`
	WaitP95       float64 `json:"waitP95Seconds"`
	WaitP99       float64 `json:"waitP99Seconds"`
	Within        float64 `json:"within" doc:"Share of tasks that start within the objective, 0 to 1"`
	Meets         bool    `json:"meets" doc:"At least 99 of 100 do"`
	Lost          int64   `json:"lost,omitempty" doc:"Tasks begun again because a node was lost, where that is simulated"`
	Launches      int     `json:"launches" doc:"Nodes requested"`
	PeakNodes     int     `json:"peakNodes"`
	Slots         int     `json:"slots" doc:"Sandboxes that a node was taken to hold"`
}

// WhatIfBasis is what a simulation rests on.
type WhatIfBasis struct {
	Since     time.Time `json:"since" doc:"The first arrival"`
	Until     time.Time `json:"until"`
	Counted   time.Time `json:"countedFrom" doc:"What is before only warms the simulated fleet up"`
	Tasks     int64     `json:"tasks" doc:"Counted"`
	WarmUp    int64     `json:"warmUpTasks"`
	LeftOut   int       `json:"leftOut" doc:"Tasks that never started or are not over"`
	Truncated bool      `json:"truncated,omitempty" doc:"There were more tasks; the newest are taken"`
	// ObjectiveSeconds is the wait that 99 of 100 tasks should stay under.
	ObjectiveSeconds float64 `json:"objectiveSeconds"`
	BootSeconds      float64 `json:"bootSeconds" doc:"Request of a node to its first sandbox"`
	BootSamples      int     `json:"bootSamples" doc:"0: assumed, as the fleet's spec or the default says"`
	ColdStartSeconds float64 `json:"coldStartSeconds" doc:"Start of a sandbox to ready"`
	ColdStartSamples int     `json:"coldStartSamples" doc:"0: assumed"`
	NodeHourMicroUSD int64   `json:"nodeHourMicroUSD" doc:"Price of a node; 0: none is known, and money says nothing"`
	MinBillSeconds   float64 `json:"minBillSeconds"`
	FixedNodes       int     `json:"fixedNodes,omitempty" doc:"Nodes that are there, and paid for, at all times, so that no setting changes the bill; absent: they come and go"`
	// Measured are the waits that the same tasks really had.
	Measured WhatIfMeasured `json:"measured" doc:"What the same tasks really waited, to judge the simulation by"`
	Sentence string         `json:"sentence"`
}

// WhatIfMeasured are waits on record.
type WhatIfMeasured struct {
	WaitP50 float64 `json:"waitP50Seconds"`
	WaitP95 float64 `json:"waitP95Seconds"`
	WaitP99 float64 `json:"waitP99Seconds"`
	Within  float64 `json:"within"`
}
