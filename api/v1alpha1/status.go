package v1alpha1

// FleetStatus is how a fleet of a cluster is; only Muster writes it.
type FleetStatus struct {
	// ObservedGeneration is the metadata.generation that the rest is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions are Ready, Progressing and Degraded, and ConsumersReady where
	// there are consumers.
	Conditions []Condition `json:"conditions,omitempty"`
	// Summary is the state in one word: Ready, Starting, Degraded, Invalid,
	// Stopping.
	Summary string `json:"summary,omitempty"`
	// Sentence says what binds the fleet now, in words.
	Sentence string `json:"sentence,omitempty"`
	// Endpoint is the path of the fleet's API below the control plane's address.
	Endpoint string `json:"endpoint,omitempty"`

	Queued   int `json:"queued"`   // tasks that wait
	Running  int `json:"running"`  // sandboxes with a task
	Ready    int `json:"ready"`    // sandboxes that wait for one
	Starting int `json:"starting"` // sandboxes that are being made
	Desired  int `json:"desired"`  // sandboxes that there should be
	Nodes    int `json:"nodes"`    // of the fleet, booting ones included
}

// The types of conditions.
const (
	ConditionReady       = "Ready"       // it works
	ConditionProgressing = "Progressing" // it is being started, changed or stopped
	ConditionDegraded    = "Degraded"    // something is wrong, and the message says what
	// ConditionConsumersReady: as many consumers as wanted are there and ready.
	ConditionConsumersReady = "ConsumersReady"
)

// Condition is one aspect of a status, as in Kubernetes.
type Condition struct {
	Type               string `json:"type"`
	Status             string `json:"status" enum:"True,False,Unknown"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
	// LastTransitionTime is when Status changed last, RFC 3339.
	LastTransitionTime string `json:"lastTransitionTime" format:"date-time"`
	Reason             string `json:"reason"`  // one CamelCase word
	Message            string `json:"message"` // for people
}

// DrainFinalizer keeps a fleet that is deleted until its tasks have ended and
// its sandboxes and nodes are given back.
const DrainFinalizer = "muster.dev/drain"

// AnnotationDrainTimeout bounds how long the tasks of a deleted fleet may go on:
// a Go duration; "0s" ends them at once.
const AnnotationDrainTimeout = "muster.dev/drain-timeout"
