// Package lifecycle says what each step of a task's life does to its record:
// the rules every store shares, as pure functions of the record and the time.
// A store decides whether a step is allowed to its caller (fences, leases),
// these functions decide what is written.
//
//	           Submitted
//	              │
//	              ▼      Leased          Claimed
//	┌────────▶ queued ─────────▶ queued ─────────▶ claimed ─▶ … ─▶ Settled
//	│             ▲              (leased)             │
//	│             └── Nacked, lease expired ──┘       │
//	└────────────────── Retried ──────────────────────┘
//
// It imports fleet and the standard library only.
package lifecycle
