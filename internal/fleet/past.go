package fleet

import "time"

// PastQuery asks what a fleet was over a long time.
type PastQuery struct {
	Since, Until time.Time     // zero: 90 days before until, now
	Step         time.Duration // 1, 2, 3, 4, 6, 8 or 12 hours, or whole days; zero: one that gives at most about 400 points
}

// Past is what a fleet was over weeks and months, from its ledger, oldest
// first. It knows means over full hours, long after the journal of decisions,
// which says what was at each moment and why, has gone on.
type Past struct {
	Since       time.Time   `json:"since" doc:"Rounded down to a full step of UTC"`
	Until       time.Time   `json:"until" doc:"Rounded up to a full step of UTC"`
	StepSeconds float64     `json:"stepSeconds"`
	Began       time.Time   `json:"began,omitzero" doc:"When the ledger began; nothing is known of before"`
	KnownTo     time.Time   `json:"knownTo,omitzero" doc:"What came later is not in it yet"`
	Points      []PastPoint `json:"points" doc:"Steps of which nothing is known are left out; a fleet without a node is known, and has zeros"`
}

// PastPoint is one step of a Past. Means are over the hours that are known.
type PastPoint struct {
	At          time.Time `json:"at" doc:"Of the beginning of the step"`
	KnownHours  float64   `json:"knownHours" doc:"Of the step; less than the whole where nobody looked"`
	Running     float64   `json:"running" doc:"Sandboxes with a task, on average"`
	RunningPeak float64   `json:"runningPeak" doc:"Their average in the busiest hour of the step"`
	Warm        float64   `json:"warm" doc:"Sandboxes that start or wait for a task, on average"`
	Nodes       float64   `json:"nodes" doc:"On average"`
	NodesPeak   int       `json:"nodesPeak" doc:"Most nodes at once"`
	Ended       int64     `json:"ended" doc:"Tasks that had a sandbox and ended"`
	MicroUSD    int64     `json:"microUSD" doc:"The whole bill of the step"`
}
