package fleet

import "time"

// The stages of a reaction, and the whole of it.
const (
	// ReactDetect: from a task becoming due that finds no sandbox to the decision
	// that sees it.
	ReactDetect = "detect"
	// ReactDecide: from there until the decision is journaled and applied.
	ReactDecide = "decide"
	// ReactSupply: from there until the next sandbox of its pool is ready.
	ReactSupply = "supply"
	// ReactTotal is the three together.
	ReactTotal = "total"
)

// How the start of a sandbox ended, beside the reasons of tasks.
const (
	StartReady = "ready"
	StartOther = "other"
)

// Decided is one decision as it is measured.
type Decided struct {
	Took    time.Duration // observed, decided, journaled and applied
	Changed bool          // it did something
	Why     []DecidedWhy  // one for each pool, and one for the nodes where they come and go
}

// DecidedWhy is a reason without its numbers; both words are of a fixed set.
type DecidedWhy struct{ Layer, Cause, Bound string }

// Meter takes measurements of the control loop. Its methods do not block and
// may be called by several at once.
type Meter interface {
	// Decided: a decision was made.
	Decided(d Decided)
	// Reacted: a stage of a reaction to tasks that found no sandbox took so long.
	// stage is one of the constants above.
	Reacted(stage string, took time.Duration)
	// Late: a task started later than the fleet's objective allows.
	Late()
	// Created: the start of a sandbox of this template ended so long after it was
	// asked for; outcome is [StartReady], or why it failed: image, prepare,
	// timeout_startup or another of the task reasons, [StartOther] where none fits.
	Created(template, outcome string, took time.Duration)
	// Booted: a node became ready so long after it was asked for, or did not.
	Booted(took time.Duration, ok bool)
}

// NoMeter measures nothing.
type NoMeter struct{}

// Decided implements Meter.
func (NoMeter) Decided(Decided) {}

// Reacted implements Meter.
func (NoMeter) Reacted(string, time.Duration) {}

// Late implements Meter.
func (NoMeter) Late() {}

// Created implements Meter.
func (NoMeter) Created(_, _ string, _ time.Duration) {}

// Booted implements Meter.
func (NoMeter) Booted(time.Duration, bool) {}

// Charged is what one step of the ledger has charged.
type Charged struct {
	By          []ChargedFor
	NodeSeconds float64 // of nodes, paid or not
	BusySeconds float64 // of sandboxes with a task
	// PerHour is what the nodes that are there cost in an hour, in micro-USD.
	PerHour int64
}

// ChargedFor is a part of it.
type ChargedFor struct {
	Cause    string   // task, or why nobody used it
	Tenant   TenantID // of a task
	MicroUSD int64
}
