// Package proc reads what the kernel says of a process in a sandbox: the text
// of /proc/PID/status and /proc/PID/mountinfo, wherever it came from. It is
// shared by the sandbox adapters that look from inside.
//
// It may import fleet and the standard library.
package proc
