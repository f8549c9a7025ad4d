// Package dialout is how a runner reaches a control plane on another machine:
// TLS 1.3 and one HTTP/1.1 request that is answered with 101; what follows is
// a byte stream. The other end is internal/sandbox/gateway.
//
// The HTTP is written by hand: net/http would cost each sandbox more memory
// than the rest of its runner.
//
// It may import fleet, protocol and golang.org/x/sys, beside the standard
// library without net/http.
package dialout
