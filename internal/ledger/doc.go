// Package ledger charges what a fleet costs (layer L3): it watches nodes and
// sandboxes, has package cost split each node's bill over those it was for, and
// keeps the sums.
//
//	look ─▶ lives of nodes ─▶ charge up to a moment ─▶ post
//	 ▲ every second            every few seconds, and when a node
//	 │                         comes, goes or changes its price
//	 └── sandboxes come from their records, with the times that are there
//
// # What is kept
//
// Each posting is one write: the books of the hours and days it adds to, the
// tasks it adds to, and the state to go on from, in which every node has the
// moment up to which it is charged. So a crash loses no second and charges none
// twice, whenever it comes: what was not posted is charged by the next process,
// from the records of the sandboxes. A posting carries a number that follows the
// last one's; a second process that charges the same fleet is refused.
//
// A node that was there before a pause and is gone after it is charged until it
// is missed, since nobody knows better. One whose RequestedAt changes (this
// machine, after a restart) lives on. A clock that steps back charges nothing
// until it is where it was.
//
// It may import fleet and cost.
package ledger
