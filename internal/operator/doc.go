// Package operator runs the Fleets of a Kubernetes cluster: it watches the
// objects, keeps one Runner for each, and writes how they are.
//
//	object ──▶ check ──▶ Runner: start, update, restart ──▶ status, events
//	              │ invalid: the last good one goes on, a condition says why
//	deleted ──▶ drain ──▶ finalizer goes
//
// One process of several does so: see Lead. What a Runner is made of is the
// business of cmd/muster; this package knows objects only. Nothing is written
// for a fleet that stays as it is.
//
// It may import fleet, api/v1alpha1, kube and client-go.
package operator
