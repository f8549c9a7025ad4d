// Package program is what the two runner programs share: what a process must do
// before and around runner.Run. cmd/muster-runner reaches its control plane
// over unix sockets of the same machine, cmd/muster-runner/pod over the
// network. They are two so that the first does not carry TLS, whose tables
// would be paid for in the memory of every sandbox.
//
// Both are configured by the environment of the sandbox's first process:
//
//	MUSTER_HOME, MUSTER_WORKSPACE   of the agent; /home/agent, /workspace
//	MUSTER_UID, MUSTER_GID          the agent's; 1000
//	MUSTER_SAME_UID=1               agent and runner are one user, and cannot be two
//
// It may import fleet, protocol and golang.org/x/sys.
package program
