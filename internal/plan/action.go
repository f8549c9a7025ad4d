package plan

import (
	"encoding/json"
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
	// Reason is often that of the pool's target, shared and not to be changed.
	Reason *Reason `json:"reason"`
}

// Plan is what should be, and what to do now.
type Plan struct {
	Consumers int          `json:"consumers"` // tasks that may be leased and running at once
	Pools     []PoolTarget `json:"pools"`     // sorted by key
	Nodes     NodeTarget   `json:"nodes"`
	Actions   []Action     `json:"actions,omitempty"`
	// Signal says why no scale-in happens: which signal is missing. Empty when
	// none is.
	Signal string `json:"signal,omitempty"`
	// Wake is the earliest time at which another decision could differ from
	// this one though nothing has happened in between; zero when there is none.
	Wake time.Time `json:"wake,omitzero"`
}

// Frozen tells that no scale-in happens because signals are missing.
func (p *Plan) Frozen() bool { return p.Signal != "" }

// Sentence says what binds the fleet as a whole.
func (p *Plan) Sentence() string {
	var worst *PoolTarget
	for i := range p.Pools {
		if t := &p.Pools[i]; worst == nil || severity(t) > severity(worst) {
			worst = t
		}
	}
	switch {
	case worst == nil:
		return "no pool: the fleet has no template"
	case p.Signal != "":
		return "scale-in is frozen: " + p.Signal
	case severity(worst) == 0:
		return "every pool has what it wants"
	}
	return string(worst.Pool) + ": " + worst.Reason.Sentence()
}

// MarshalJSON adds the sentence, for people who read a journal.
func (p Plan) MarshalJSON() ([]byte, error) {
	type plain Plan
	return json.Marshal(struct {
		plain
		Sentence string `json:"sentence"`
	}{plain(p), p.Sentence()})
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
