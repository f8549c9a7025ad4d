// Package webhook tells the outside of settled tasks: a CloudEvents 1.0 JSON
// event (structured mode) is posted to the task's webhook, at least once, also
// over restarts of the control plane: what is still to be told is read from
// the store. Deliveries are retried with back-off for about a quarter of an
// hour, then given up and recorded as such. It imports package fleet.
package webhook
