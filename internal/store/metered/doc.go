// Package metered measures a store and its queue: it is a fleet.Store around
// another one that tells how long its calls took and how they ended. Calls that
// a control plane makes for its work are measured; the rest pass through.
//
// It imports package fleet only.
package metered
