// Package queue is the family of adapters of outside queues, one folder each,
// that implement fleet.Source (tasks are taken from it) or fleet.Signal (it is
// only read). The embedded queue is part of the store (internal/store/sqlite).
// What an adapter opens a connection with (TLS, credentials) is package connect;
// package queuetest has the conformance suites, queuetest/servers the real
// servers for tests. Adapters import fleet, connect and their own SDK, never a
// sibling.
package queue
