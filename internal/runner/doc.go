// Package runner is the process inside every sandbox: it waits, warm, for one
// task, runs it as the agent's user, and sends log, patch, artifacts and the
// report to the control plane over internal/protocol.
//
//	new ─▶ preparing ─▶ ready ─▶ busy ─▶ done ─▶ (report stored) exit
//	            └─▶ failed
//
// The runner is pid 1 of the sandbox, with another uid than the agent and not
// dumpable, so that nothing the agent does can reach it. Everything of the
// agent is started by one thread (see agent) which has dropped its bounding
// set; files of the agent are opened by that thread with the agent's
// filesystem uid, never with the runner's own.
//
// The control plane may die and come back: the runner connects again for ever,
// the task goes on, and the host says from where to send again. Log bytes are
// kept until acknowledged in a window of 256 KiB; when it is full the agent's
// pipes are no longer read, so output waits and is never lost (except beyond
// the task's log limit).
//
// Linux only. It may import internal/fleet, internal/protocol, golang.org/x/sys
// and the standard library, but nothing heavy: its idle memory is paid per
// sandbox.
package runner
