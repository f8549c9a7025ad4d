// Package whatif simulates a fleet under other settings on its own history
// (layer L3): the tasks it ran, as they arrived and as long as they took, go
// through package sim, which drives the very planner that sizes the fleet.
//
//	store ─▶ History ─┐
//	view  ─▶ Seen ────┼─▶ Lab ─▶ Run(Case) ─▶ cost, waits
//	fleet, patch ─────┘
//
// [Read] takes the history, bounded in time and in tasks. [Look] takes what the
// fleet shows of its nodes and starts, so that the model's times are measured
// where they can be and said to be assumed where not. A [Lab] runs cases on
// both; a case is a fleet, a policy, and where asked another kind of node.
// [Service] answers the API with it, one question at a time.
//
// What is not known is not made up: without a price money is zero and the basis
// says so, and a fleet of one machine costs the same whatever is simulated.
//
// It may import packages fleet, plan, control, cost, sim and api/v1alpha1. How a
// fleet becomes the loop's specification and its price list is given to it.
package whatif
