package fleet

import (
	"encoding/json"
	"time"
)

// AdviceQuery asks for advice.
type AdviceQuery struct {
	Since, Until time.Time      // of the history, as in WhatIfQuery
	Zone         *time.Location // of the peaks; nil: UTC
}

// The kinds of advice.
const (
	AdviceMemory   = "template_memory"
	AdviceMinimum  = "minimum"
	AdviceNodesMin = "nodes_minimum"
	AdviceFloor    = "floor"
	AdviceHold     = "hold"
	AdviceNodeSize = "node_size"
	AdviceSpot     = "spot"
	AdviceCPU      = "template_cpu"
)

// Advice is what the simulator, on a fleet's own history, says could be set
// better.
type Advice struct {
	At       time.Time     `json:"at"`
	Basis    WhatIfBasis   `json:"basis"`
	Present  WhatIfOutcome `json:"present" doc:"The fleet as it is, simulated"`
	Items    []AdviceItem  `json:"items" doc:"The one that saves most first"`
	Withheld []AdviceNote  `json:"withheld" doc:"What was looked at and is not advised, and why"`
	Use      []TemplateUse `json:"use" doc:"What tasks were measured to use, by template"`
	Sentence string        `json:"sentence"`
}

// AdviceItem is one piece of advice. Each is simulated by itself: two together
// may save less than the sum.
type AdviceItem struct {
	Number  int             `json:"number" doc:"1 is the first"`
	Kind    string          `json:"kind" enum:"template_memory,minimum,nodes_minimum,floor,hold,node_size,spot"`
	Title   string          `json:"title"`
	Why     string          `json:"why" doc:"What was measured"`
	Effect  string          `json:"effect" doc:"What the simulator says of money and waits"`
	Saved   WhatIfSaving    `json:"saved"`
	After   WhatIfOutcome   `json:"after"`
	Patch   json.RawMessage `json:"patch" doc:"For POST /v1/fleet/patch"`
	Changes []string        `json:"changes"`
	Note    string          `json:"note,omitempty" doc:"What has to hold for it"`
}

// AdviceNote is what is not advised.
type AdviceNote struct {
	Kind string `json:"kind" enum:"template_memory,template_cpu,minimum,nodes_minimum,floor,hold,node_size,spot"`
	Text string `json:"text"`
}

// TemplateUse is what the tasks of a template used of its limits. Tasks with
// limits of their own are not in it.
type TemplateUse struct {
	Template      string  `json:"template"`
	Tasks         int     `json:"tasks" doc:"Whose use was measured"`
	MemoryLimit   int64   `json:"memoryLimitBytes"`
	MemoryP50     int64   `json:"memoryPeakP50Bytes" doc:"Of the tasks' peaks"`
	MemoryP95     int64   `json:"memoryPeakP95Bytes"`
	MemoryMax     int64   `json:"memoryPeakMaxBytes"`
	MemoryMean    int64   `json:"memoryMeanBytes" doc:"Over the time of all tasks"`
	PeakOverMean  float64 `json:"peakOverMean" doc:"Median of each task's peak over its own mean"`
	OutOfMemory   int     `json:"outOfMemory" doc:"Tasks that the limit killed"`
	MilliCPULimit int64   `json:"milliCPULimit"`
	MilliCPUP50   int64   `json:"milliCPUMeanP50" doc:"Of the tasks' means; peaks of processors are not recorded"`
	MilliCPUP95   int64   `json:"milliCPUMeanP95"`
	Throttled     float64 `json:"throttledShare" doc:"Part of their time that tasks were held back by the limit"`
}
