// Package egress is the only way out of a sandbox in network mode proxy: an
// HTTP forward proxy with an allow-list, served on a unix socket outside the
// sandbox's network namespace. It resolves names itself, checks the addresses
// it found, and dials exactly those, so that no name can be rebound to a
// private address. It belongs to the family of sandbox adapters and imports
// package fleet and the standard library only.
//
// What is refused: names that are not on the allow-list, and, whatever the
// list says, loopback, private, shared (CGNAT), link-local, multicast and
// cloud metadata addresses, unless allowPrivate names them.
package egress
