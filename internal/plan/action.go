package plan

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// Kind tells actions apart.
type Kind string

// The actions.
const (
	StartSandboxes Kind = "start"    // N new ones of Pool on Node
	UndrainSandbox Kind = "undrain"  // Sandbox goes back to ready
	DrainSandbox   Kind = "drain"    // Sandbox takes no task any more
	DestroySandbox Kind = "destroy"  // Sandbox, drained before, is removed
	FailWaiting    Kind = "fail"     // the tasks that wait for Pool cannot ever start
	ScaleNodes     Kind = "scale"    // to N nodes in all
	CordonNode     Kind = "cordon"   // Node takes no new sandbox
	UncordonNode   Kind = "uncordon" // Node takes sandboxes again
	ReleaseNode    Kind = "release"  // Node, cordoned and empty, is returned
)

// Action is one thing to do. All actions are idempotent when applied by name;
// StartSandboxes is made so by recording each sandbox before it is created.
type Action struct {
	Kind    Kind            `json:"kind"`
	Pool    fleet.PoolKey   `json:"pool,omitempty"`
	Node    fleet.NodeID    `json:"node,omitempty"`
	Sandbox fleet.SandboxID `json:"sandbox,omitempty"`
	N       int             `json:"n,omitempty"`
	Reason  Reason          `json:"reason"`
}

// Plan is what should be, and what to do now.
type Plan struct {
	Consumers int          `json:"consumers"` // tasks that may be leased and running at once
	Pools     []PoolTarget `json:"pools"`     // sorted by key
	Nodes     NodeTarget   `json:"nodes"`
	Actions   []Action     `json:"actions,omitempty"`
	// Sentence says what binds the fleet as a whole.
	Sentence string `json:"sentence"`
	// Frozen says that no scale-in happens because signals are missing.
	Frozen bool `json:"frozen,omitempty"`
}

// PoolTarget is what one pool should be.
type PoolTarget struct {
	Pool      fleet.PoolKey `json:"pool"`
	Consumers int           `json:"consumers"`
	Desired   int           `json:"desired"` // sandboxes, busy ones included
	Warm      int           `json:"warm"`    // of them, beyond demand
	// Unmet is how many that were wanted cannot be started now.
	Unmet       int           `json:"unmet,omitempty"`
	Rate        float64       `json:"rate"` // tasks a second, recent
	Dispersion  float64       `json:"dispersion"`
	TimeToEmpty time.Duration `json:"timeToEmpty"` // -1: not being depleted
	Breaker     fleet.Breaker `json:"breaker"`
	Reason      Reason        `json:"reason"`
}

// NodeTarget is what the node layer should be.
type NodeTarget struct {
	Desired int    `json:"desired"`
	Ready   int    `json:"ready"`
	Booting int    `json:"booting"`
	Reason  Reason `json:"reason"`
}

// Changed reports whether the plan does anything.
func (p *Plan) Changed() bool { return len(p.Actions) > 0 }
