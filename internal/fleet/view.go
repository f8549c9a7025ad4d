package fleet

import "time"

// Lead is a measured distribution of lead times, in nanoseconds.
type Lead struct {
	P50     time.Duration `json:"p50"`
	P95     time.Duration `json:"p95"`
	P99     time.Duration `json:"p99"`
	Samples int           `json:"samples"` // 0: the figures are priors
}

// Breaker tells whether starts of a template are held back.
type Breaker struct {
	Open     bool      `json:"open"`
	Failures int       `json:"failures"` // in a row
	RetryAt  time.Time `json:"retryAt,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// PoolView is one pool as people see it.
type PoolView struct {
	Pool        PoolKey       `json:"pool"`
	Template    string        `json:"template"`
	Backlog     int           `json:"backlog"`
	Delayed     int           `json:"delayed"`
	InFlight    int           `json:"inFlight"`
	OldestAge   time.Duration `json:"oldestAge"`
	ArrivalRate float64       `json:"arrivalRate"` // tasks a second, recent
	Desired     int           `json:"desired"`     // sandboxes, busy ones included
	WarmTarget  int           `json:"warmTarget"`
	Ready       int           `json:"ready"`
	Starting    int           `json:"starting"`
	Running     int           `json:"running"`
	Draining    int           `json:"draining"`
	StartLead   Lead          `json:"startLead"`
	// TimeToEmpty is how long the warm pool lasts at the present depletion
	// rate; negative when it is not being depleted.
	TimeToEmpty time.Duration `json:"timeToEmpty"`
	Breaker     Breaker       `json:"breaker"`
	Reason      string        `json:"reason"`
	Bound       string        `json:"bound,omitempty"`
}

// NodeView is one node as people see it.
type NodeView struct {
	Node
	Used         int     `json:"used"`
	UsedMilliCPU int64   `json:"usedMilliCPU"`
	UsedMemory   int64   `json:"usedMemory"`
	Packed       Packing `json:"packed"`
}

// Packing counts the sandboxes on a node.
type Packing struct {
	Running  int `json:"running"`
	Ready    int `json:"ready"`
	Starting int `json:"starting"`
	Draining int `json:"draining"` // or on their way out
}

// View is the fleet as people see it.
type View struct {
	Name             string        `json:"name"`
	At               time.Time     `json:"at"`
	Consumers        int           `json:"consumers"` // desired dispatcher slots
	ConsumersBusy    int           `json:"consumersBusy"`
	Backlog          int           `json:"backlog"`
	Delayed          int           `json:"delayed"`
	InFlight         int           `json:"inFlight"`
	Dead             int           `json:"dead"`
	OldestAge        time.Duration `json:"oldestAge"`
	SignalsAsOf      time.Time     `json:"signalsAsOf"`
	SignalsError     string        `json:"signalsError,omitempty"`
	Queues           []QueueView   `json:"queues"`
	Pools            []PoolView    `json:"pools"`
	Nodes            []NodeView    `json:"nodes"`
	NodesDesired     int           `json:"nodesDesired"` // those that are there, where they do not come and go
	StartP50         time.Duration `json:"startP50"`     // submit to first instruction, last hour
	StartP99         time.Duration `json:"startP99"`
	ObjectiveP99     time.Duration `json:"objectiveP99"`
	NodesError       string        `json:"nodesError,omitempty"` // why nodes cannot be read, or are not coming
	Sentence         string        `json:"sentence"`             // the binding constraint in words
	NodeHourMicroUSD int64         `json:"nodeHourMicroUSD"`
	Started          time.Time     `json:"started"` // of the control plane
	ScaleOut         ScaleOut      `json:"scaleOut"`
	// Dedication is nil where the nodes are not meant for agents alone, or it has
	// not been looked yet.
	Dedication *DedicationView `json:"dedication,omitempty"`
}

// QueueView is the last good reading of one queue.
type QueueView struct {
	Name      string        `json:"name"`
	AsOf      time.Time     `json:"asOf,omitzero"`
	Error     string        `json:"error,omitempty"` // why there is none since
	Backlog   int           `json:"backlog"`
	Delayed   int           `json:"delayed"`
	InFlight  int           `json:"inFlight"`
	Dead      int           `json:"dead"`
	OldestAge time.Duration `json:"oldestAge"`
}

// Explanation says why a task waited or an event happened.
type Explanation struct {
	Task     *Task           `json:"task,omitempty"`
	Event    *Event          `json:"event,omitempty"`
	Summary  string          `json:"summary"` // one sentence with the numbers
	Steps    []Event         `json:"steps"`   // what happened, in order
	Decision *DecisionRecord `json:"decision,omitempty"`
	// Otherwise is what the decision would have been without the bounds on
	// sandboxes, nodes and money; empty where none of them made a difference.
	Otherwise []Otherwise `json:"otherwise,omitempty"`
}

// Otherwise is one pool, or the nodes, as a decision would have wanted it
// without bounds.
type Otherwise struct {
	Pool           PoolKey `json:"pool,omitempty" doc:"Absent: the nodes"`
	Bound          string  `json:"bound,omitempty" doc:"What bound the decision as it was"`
	Desired        int     `json:"desired" doc:"As decided"`
	Without        int     `json:"without" doc:"Without bounds"`
	Started        int     `json:"started" doc:"Sandboxes that the decision starts"`
	WithoutStarted int     `json:"withoutStarted" doc:"Sandboxes that it would have started without bounds"`
	Reason         string  `json:"reason" doc:"Of the decision without bounds"`
}
