package fleet

import (
	"context"
	"time"
)

// The kinds of a trespass.
const (
	// TrespassForeign: something that is neither a sandbox nor part of the node
	// itself runs on a node for agents.
	TrespassForeign = "foreign"
	// TrespassOutside: a sandbox runs on a node that is not for agents.
	TrespassOutside = "outside"
	// TrespassOpen: a node for agents has nothing that keeps others away.
	TrespassOpen = "open"
)

// Trespass is one breach of the rule that agents and everything else share no
// machine.
type Trespass struct {
	Kind     string `json:"kind"` // foreign, outside, open
	Node     NodeID `json:"node"`
	Workload string `json:"workload,omitempty"` // what runs where it should not, in words
}

// Dedication is a Nodes whose machines may be meant for agents alone, and that
// can tell whether they are.
type Dedication interface {
	// Dedicated reports whether they are meant for agents alone. Does not block.
	Dedicated() bool
	// Trespasses returns every breach, ordered by node and workload; ErrDenied
	// or ErrUnavailable where it cannot be known, which is not the same as none.
	Trespasses(ctx context.Context) ([]Trespass, error)
}

// DedicationView is what was found when it was last looked.
type DedicationView struct {
	At         time.Time  `json:"at"` // of the last look that succeeded
	Trespasses []Trespass `json:"trespasses"`
	Error      string     `json:"error,omitempty"` // of the last look, where it failed
}
