package fleet

import "time"

// Targets is what a fleet should be, as of its last decision, in whole
// sandboxes and nodes.
type Targets struct {
	At    time.Time // zero: nothing was decided yet
	Pools []PoolTargets
	Nodes int
	// Signals says why the signals are not to be trusted; empty when they are.
	// The targets then hold what is there: nothing is scaled in.
	Signals string
	// Workers is how many workers of others there are; negative where that is not
	// known.
	Workers int
}

// PoolTargets is the part of one pool.
type PoolTargets struct {
	Pool     PoolKey
	Desired  int // sandboxes, those with a task included
	InFlight int // tasks that run
	Backlog  int // tasks that wait
}
