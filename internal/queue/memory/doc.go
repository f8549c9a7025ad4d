// Package memory is the fake of an outside queue: stateful, in memory, on the
// clock of the time package, with errors that can be injected. It passes the
// conformance suite that the real ones pass. For tests, and for reading what
// the contract asks of an adapter. It may import fleet only.
package memory
