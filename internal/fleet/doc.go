// Package fleet holds the nouns of Muster and the ports between its layers
// (layer L0). It imports the standard library only.
//
// A [Task] waits in a [Queue], is leased by a consumer of the dispatcher,
// claims a warm [Sandbox] from a pool of its [PoolKey] and is settled exactly
// once:
//
//	queued ─▶ claimed ─▶ starting ─▶ running ─▶ collecting ─▶ succeeded
//	  ▲          │           │          │            │        failed
//	  └──────────┴───────────┴──────────┴────────────┘        timed_out
//	     sandbox or node lost, attempts left                  cancelled
//	                                                          lost
//
// A [Sandbox] lives through
//
//	starting ─▶ ready ─▶ claimed ─▶ gone
//	    │         │          (one task, then destroyed; never reused)
//	    └─ failed └─ draining ─▶ gone
//
// Every port states blocking, idempotency, errors and units in its comment.
// Each port has one conformance suite (storetest, queuetest, sandboxtest,
// nodestest) which the real adapters and the fakes pass.
package fleet
