package cost

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// Size is an amount of a node's allocatable resources.
type Size struct {
	MilliCPU    int64
	MemoryBytes int64
}

// Node is the life of one machine as far as it is known.
type Node struct {
	ID        fleet.NodeID
	Group     string // of its kind: instance type, capacity type
	Prices    Prices
	MinBill   time.Duration // shortest time it is paid for; 0: none
	Total     Size          // of the machine
	Usable    Size          // of it, what sandboxes may have; the rest is the system's
	Requested time.Time     // paid from here on
	Ready     time.Time     // zero: not yet
	Leaving   time.Time     // cordoned or draining since; zero: not
	Released  time.Time     // zero: still there
}

// Bill is what the node has cost by a moment: 0 before its request, and after
// its release no less than its least bill. It never falls as time goes on.
func (n *Node) Bill(at time.Time) Micro {
	var a amount
	n.Prices.over(&a, n.Requested, n.paidUntil(at))
	return a.micro()
}

// paidUntil is until when time is paid at a moment.
func (n *Node) paidUntil(at time.Time) time.Time {
	if n.Released.IsZero() || at.Before(n.Released) {
		return at
	}
	if least := n.Requested.Add(n.MinBill); least.After(n.Released) {
		return least
	}
	return n.Released
}

// Box is the life of one sandbox.
type Box struct {
	ID      fleet.SandboxID
	Node    fleet.NodeID
	Pool    fleet.PoolKey
	Size    Size
	Created time.Time
	Claimed time.Time // zero: not yet
	Gone    time.Time // zero: still there
	Task    fleet.TaskID
}

// Cause says who or what a part of a bill is for.
type Cause string

// The causes. All but CauseTask are idle.
const (
	CauseTask     Cause = "task"
	CauseWarm     Cause = "warm_pool" // sandboxes that start or wait
	CauseHeadroom Cause = "headroom"  // room that no sandbox holds
	CauseBoot     Cause = "boot"      // requested, not ready
	CauseDrain    Cause = "drain"     // room of a node that takes nothing new
	CauseSystem   Cause = "system"    // what the node keeps for itself
	CauseMinimum  Cause = "minimum"   // least bill beyond its life
)

// Idle reports whether no task is charged.
func (c Cause) Idle() bool { return c != CauseTask }

// Entry is a part of a node's bill over one piece of time.
type Entry struct {
	From, To time.Time
	Node     fleet.NodeID
	Cause    Cause
	Box      fleet.SandboxID // with CauseTask and CauseWarm
	Pool     fleet.PoolKey   // likewise
	Task     fleet.TaskID    // with CauseTask
	Amount   Micro           // may be 0
}
