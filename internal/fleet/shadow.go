package fleet

import "time"

// ShadowHour is an hour of a comparison between what Muster would have had and
// what there was, in sums over time.
type ShadowHour struct {
	From    time.Time `json:"from"`
	Seconds float64   `json:"seconds"` // observed
	Arrived int64     `json:"arrived"` // tasks
	// Sandboxes and Nodes are what Muster would have had, in sandbox-seconds and
	// node-seconds; Waiting what would have waited for a sandbox, in task-seconds,
	// had the demand been the one that was seen.
	Sandboxes float64 `json:"sandboxSeconds"`
	Nodes     float64 `json:"nodeSeconds"`
	Waiting   float64 `json:"waitingSeconds"`
	// ActualWaiting is what did wait, in task-seconds.
	ActualWaiting float64 `json:"actualWaitingSeconds"`
	// Known is for how long it was known how many workers there were; Workers
	// are their worker-seconds then, KnownSandboxes the sandbox-seconds of
	// Muster's in the same time.
	Known          float64 `json:"knownSeconds"`
	Workers        float64 `json:"workerSeconds"`
	KnownSandboxes float64 `json:"knownSandboxSeconds"`
}

// Add adds another hour.
func (h *ShadowHour) Add(o ShadowHour) {
	if h.From.IsZero() {
		h.From = o.From
	}
	h.Seconds += o.Seconds
	h.Arrived += o.Arrived
	h.Sandboxes += o.Sandboxes
	h.Nodes += o.Nodes
	h.Waiting += o.Waiting
	h.ActualWaiting += o.ActualWaiting
	h.Known += o.Known
	h.Workers += o.Workers
	h.KnownSandboxes += o.KnownSandboxes
}

// Shadow is a comparison over many hours.
type Shadow struct {
	Slots            int          `json:"slots"`            // sandboxes or workers to a node
	NodeHourMicroUSD int64        `json:"nodeHourMicroUSD"` // 0: not known
	Sum              ShadowHour   `json:"sum"`
	Hours            []ShadowHour `json:"hours"` // oldest first
}

// Evaluation is one decision that was not carried out.
type Evaluation struct {
	View    View     `json:"view"`
	Actions []string `json:"actions"` // with their reasons
}
