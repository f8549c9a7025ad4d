// Package dispatch brings tasks and sandboxes together (layer L2):
//
//	lease ─▶ claim ─▶ run ─▶ settle
//
// It leases only what can be claimed at once, claims by one compare-and-swap
// in the store and one message to the waiting runner, keeps leases alive,
// writes log, phases and files as they arrive, derives why a task ended, and
// records the one completion under its fencing token. After a restart it
// adopts the sandboxes that outlived the control plane.
//
// The [Registry] is the one owner of sandbox states in memory; package control
// sizes the pools through it. This package may import package fleet.
package dispatch
