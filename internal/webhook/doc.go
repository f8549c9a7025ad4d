// Package webhook tells the outside of settled tasks and of budgets: a
// CloudEvents 1.0 JSON event (structured mode) is posted to the task's webhook,
// or to that of the budget, at least once, also over restarts of the control
// plane: what is still to be told is read from the store, or kept by the ledger. Deliveries are retried with back-off for about a quarter of an
// hour, then given up and recorded as such. A receiver that
// is down does not hold up the others.
//
// With a key each delivery carries Muster-Signature: t=UNIX,v1=HEX, the
// HMAC-SHA256 of "UNIX.BODY". The id of the event is the same in every attempt,
// so that a receiver can tell a repetition. Redirects to other hosts are not
// followed, link-local and cloud metadata addresses are refused, and addresses,
// whose query is often a credential, are kept out of errors and logs.
//
// It imports package fleet.
package webhook
