// Package cost turns the lives of nodes and sandboxes into money (layer L1,
// pure): integer micro-USD, split so that the parts add up to the bill exactly.
//
// # The bill of a node
//
// A node is paid from its request to its release, by the hour price in force at
// each moment and for a least time. [Node.Bill] is what it has cost up to a
// moment, rounded down to a micro-USD once, so that the cost of a stretch of time
// is the difference of two bills: no rounding is lost or counted twice, however
// the time is cut.
//
// # Who carries it
//
// [Sweep] cuts a stretch of time at every change and splits each piece of each
// node's bill:
//
//	node booting                     idle, boot
//	sandbox with a task              that task, by its share of the node
//	sandbox that starts or waits     idle, warm pool
//	what no sandbox holds            idle, headroom; drain on a node that leaves
//	what the node keeps for itself   idle, system
//	least bill beyond its life       idle, minimum
//
// The share of a sandbox is the mean of its parts of the node's processors and
// of its memory, as allocated. Where more is allocated than there is, the shares
// are scaled down to the whole. Rounding goes by largest remainder, and for equal
// remainders by name, so that the same history gives the same books.
//
// It may import fleet.
package cost
