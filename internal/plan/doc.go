// Package plan decides (layer L1, pure). [Decide] is a function of the time,
// an [Observation], a [Policy] and the [State] it returned before; it reads no
// clock, file, network or randomness, so that a journaled decision can be made
// again bit for bit and a simulator drives the very same code. It may import
// packages fleet (the nouns) and forecast.
//
// One decision sizes the layers together:
//
//	demand    = backlog + in flight                     (tasks)
//	warm      = max(floors, base stock over the lead time)
//	wanted    = demand + warm, under capacity and budget (sandboxes)
//	supply    = ready + starting + running
//	start     = wanted - supply, where breakers and nodes allow
//	scale in  = ready beyond wanted, by name, after a hold
//
// Where nodes come and go, they are sized by the same decision:
//
//	free   = slots of nodes in service and booting - running - waiting
//	bring  while free < what floors and bursts want, or
//	       price of a late start x late starts that one more node saves > its cost
//	return an empty node when Keep x that, and the boot saved, is less than its cost
//
// The price of a late start follows the share of tasks that start late, within
// bounds: as long as the objective is kept, it falls. The late starts that a
// node saves come from [forecast.Outlook]; free slots of nodes that are paid
// for anyway are kept warm, and new work goes to the node that is expected to
// be busy longest ([Prefer]), so that nodes empty together.
//
// The base stock is the quantile of arrivals in one lead time: what is started
// now arrives one lead time later, so that the stock and what is starting
// must last until then (inventory position of a base-stock policy).
//
// A breaker guards the starts of every pool:
//
//	closed ── threshold failures in a row ──▶ open ── back-off over ──▶ probe
//	  ▲                                        ▲                         │
//	  │                                        └──── the probe failed ───┤
//	  └───────────────────── a start succeeded ──────────────────────────┘
//
// Every pool gets a [Reason] each time, also for changing nothing.
package plan
