// Package doctor looks at a machine and says what of Muster works on it, what
// does not, what that means, and the command that mends it.
//
// Every check reads through a [Host], so that the same code judges a real
// machine and a described one in a test. Checks never change anything; the
// only file written is one of a few KiB in the data directory, to time fsync,
// and it is removed again.
//
// It may import internal/fleet and the standard library. Whether a runtime
// really works is asked of a [Probe], which the sandbox adapter provides.
package doctor
