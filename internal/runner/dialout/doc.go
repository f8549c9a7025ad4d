// Package dialout is how a runner reaches a control plane on another machine:
// TLS 1.3 and one HTTP/1.1 request that is answered with 101; what follows is
// a byte stream. The other end is internal/sandbox/gateway.
//
// Where several processes drive the sandboxes of a fleet, whoever is asked may
// answer 307 with the address of the one that drives this sandbox. That is
// followed, with the same identity or session and a certificate for the same name
// by the same authority, and remembered:
//
//	MUSTER_GATEWAY ──307──▶ owner ──101──▶ asked first from now on
//	      ▲                   │ 307: followed, at most 3 in a row
//	      └───────────────────┘ fails: back to the beginning
//
// The HTTP is written by hand: net/http would cost each sandbox more memory
// than the rest of its runner.
//
// It may import fleet, protocol and golang.org/x/sys, beside the standard
// library without net/http.
package dialout
