// Package link is the host's end of the connection to one sandbox's runner.
//
// [Serve] owns the listener of one sandbox and accepts the runner's connection
// again and again: a connection may break, and the control plane may restart,
// while the sandbox and its task go on. Whoever knows the token is the runner;
// the newest valid connection wins.
//
//	          hello            claim+accepted          report stored
//	waiting ────────▶ ready ───────────────────▶ busy ───────────────▶ done
//	   ▲  connection lost (any state): wait for the next hello, attach  │
//	   └────────────────────────────────────────────────────────────────┘
//
// Per claim one goroutine calls the [fleet.TaskSink], in order; the goroutine
// that reads the connection hands it events through a bounded inbox. A slow
// sink fills the inbox, the acknowledgements stop, and the runner stops reading
// its agent's pipes; nobody else notices. A runner that breaks the protocol
// loses its connection and is let in again only after a growing pause; it can
// never make the host hold more than the inbox (448 KiB) and one message
// (384 KiB).
//
// A broken connection is not a dead sandbox: only [Session.End] makes the sink
// hear Lost, and not before everything the runner sent has been handed over.
//
// It may import internal/fleet and internal/protocol.
package link
