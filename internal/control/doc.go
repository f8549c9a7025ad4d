// Package control owns the ticking loop (layer L2):
//
//	observe ─▶ decide ─▶ journal ─▶ apply
//	   ▲                               │
//	   └── a tick at most every second, and at once on an enqueue, a claim,
//	       a completion or a change of a sandbox
//
// It holds no arithmetic of its own: plan.Decide says what to do. A decision
// is journaled before it is applied; apply is idempotent, since every sandbox
// is recorded before it is created and everything else goes by name, so that a
// crash between the two is harmless: the next start recovers and decides anew.
//
// Where consumers run the tasks (Config.Consumers, package consumer), applying
// is writing the records of sandboxes: the loop's registry is a mirror of them,
// and what consumers made of the orders is measured as it shows.
//
// [Engine] wires the loop to the dispatcher and answers what the API asks:
// the fleet as it is, cancel, exec, usage, and why something happened. This
// package may import fleet, plan, forecast, calendar and dispatch.
package control
