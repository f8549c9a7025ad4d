// Package consumer is one of several processes that run a fleet's tasks, beside
// the control plane that sizes it (layer L2).
//
//	leader:   observe ─▶ decide ─▶ journal ─▶ orders, in the records of sandboxes
//	consumer: orders ─▶ create, lease, claim, run, settle, destroy
//
// Each sandbox has one owner, which holds its runner's connection; the records
// say who. A consumer reads the records of its own and does what they ask:
// creates what is starting, takes over what another has left, ends what is
// ordered to end, lets go of what has become another's. It leases tasks for
// its own ready sandboxes only.
//
// # When a consumer dies
//
// It has told of itself every 3 s. After 15 s of silence the leader gives its
// sandboxes to others. Each take-over raises the fence of the task inside, so
// that nothing of the former owner counts any more, though it may still be
// alive behind a cut network; a runner keeps what it has to report until the
// new owner takes it. A consumer that cannot reach the store for 12 s lets go
// of its sandboxes by itself, so that their runners look for the new owner.
//
// This package may import packages fleet and dispatch.
package consumer
