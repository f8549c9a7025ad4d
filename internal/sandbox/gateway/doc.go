// Package gateway is where the runners of sandboxes on other machines dial in:
// an http.Handler that turns two requests into byte streams.
//
//	GET /runner/v1/link     the stream of internal/protocol
//	GET /runner/v1/egress   one connection to the sandbox's allow-list proxy
//
// Both carry "Connection: Upgrade" and "Upgrade: muster-runner/1" and are
// answered with 101; everything after the answer's head belongs to the stream.
//
// Who asks is shown in one of two ways:
//
//	first      Authorization: Bearer TOKEN      the pod's one-time identity
//	later      Authorization: Muster UID SESSION
//
// UID and session are in the headers Muster-Pod and Muster-Session of the answer
// to the first. The session is
// a keyed hash of the UID, so any control plane with the same key knows
// it again: a runner survives a restart of all of them. A bearer is good until
// the runner has shown that it got its session, and never again.
//
//	bearer ──verified──▶ offered ──first byte of the runner, or a session──▶ used
//
// # Several processes
//
// Where several processes with one key drive the sandboxes of a fleet, a runner
// may come to any of them. One that does not hold its sandbox asks Elsewhere and
// answers 307; it takes nothing from the runner and gives it nothing. The runner
// asks there in the same words and checks the certificate for the same name. With
// its session it is told the name of its pod, which it shows from then on
// (Muster-Name), so that a process that never saw it knows whom to ask about.
//
// A session is good at all of them, since they have the same key. A one-time
// identity is good at one, once: only who made the pod takes it, and remembers
// that it was used. Whoever has adopted the sandbox since, in another process or
// in a later one, refuses it without having to be told (ErrSpent): what can be
// adopted was ready before, so its runner has its session.
//
//	made here      bearer ──▶ session, once
//	adopted here   bearer ──▶ 401
//	not held here  bearer ──▶ 307 or 503
//
// # Strangers
//
// Everybody in the cluster may connect here, agents included. So whoever has
// shown nothing yet is bounded: in number, per address and in all; in the time
// and size of the request's head; and in how many identities are verified at
// once. Answers are a status and one sentence, and say nothing about others.
//
//	307  another process drives this sandbox: Location says where
//	401  the identity or session is not valid
//	403  this sandbox may not have that
//	404  no such path, or the pod is no sandbox of this control plane
//	426  not the upgrade wanted here
//	503  later: Retry-After says when
//
// It may import fleet and client-go.
package gateway
