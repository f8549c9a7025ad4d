// Package kube is fleet.Sandboxes in a Kubernetes cluster: a sandbox is a Pod.
//
// # The life of a pod
//
//	Create   POST pod ─▶ scheduled ─▶ init: copies runner and identity ─▶ runner dials in ─▶ prepare ─▶ ready
//	Claim    one message over the link                     (no request to the API server)
//	           └─ at most one PATCH, later: label claimed, and do not evict
//	Destroy  DELETE pod, grace 0
//
// These are all the writes of a life: two for a task that is over within a
// second, else three. A steady fleet writes nothing: one watch, selected by
// label, tells what happens to its pods.
//
//	              fails: image, prepare, timeout_startup, …
//	starting ───────────────────────────────────────────────▶ deleted
//	    │ runner ready                                           ▲
//	    ▼                                                        │ Destroy
//	  ready ──▶ claimed ──▶ report stored, runner exits ─────────┤
//	    └──────────┴─ pod ended by others, evicted, node lost ──▶ ended: Exited, Lost
//
// # Names and ownership
//
// The pod's name is the sandbox's id. Every request for pods is selected by
// owner, fleet and role (package internal/kube), every deletion names the UID
// besides, and what does not carry our labels is never touched, whatever its
// name. An annotation tells each attempt to create a pod from all others: so a
// POST whose answer was lost is found again, and a pod that nobody waits for
// any more is removed when the watch shows it.
//
// # The link
//
// The runner dials in (package gateway). [Exchange] is where its connection
// meets the sandbox: one per process, for all of its fleets. The pod has no
// secret but a token of its own, which only the init container and the runner's
// first moment see.
//
// # Several processes
//
// The adapters of several processes may be open on one fleet. Each watches all
// of its pods, speaks only of those it holds (made, or adopted) and removes by
// itself only what it made; List is of the whole fleet. A sandbox goes from one
// to another by Release there and Adopt here, in any order within Adopt's time:
// its spec and the gateway's key, which all of them have, are all that Adopt
// needs. Until it is let go, its runner stays where it is, and cannot be adopted.
//
// # While the API server is away
//
// Sandboxes go on, claims work, tasks report; the watch comes back by itself.
// List and Destroy are fleet.ErrUnavailable, never an empty answer, and Create
// waits as long as its time allows.
//
// # Confinement
//
// The pod is what the pod security level "restricted" asks for, and more: a
// user that is not root, no capabilities, no escalation, RuntimeDefault seccomp,
// a read-only root, no service-account token, requests that equal limits, and a
// NetworkPolicy that leaves only the way to the gateway. Isolation says what
// was observed from inside; what a pod cannot have is in Isolation.Lost: a
// limit of its own on processes and open files, and certainty that the
// cluster's network plugin does what policies say.
//
// # Usage
//
// Readings are those of metrics.k8s.io, one request for the whole fleet at most
// every 10 s and only when somebody asks. Without it usage is unknown, and said
// to be: fleet.ErrUnavailable, not zero.
//
// # Agent-sandbox
//
// With Options.AgentSandbox the pods are those of agent-sandbox's warm pools:
//
//	Create   pool's replicas (the number held and waited for; many creations, one
//	         PATCH) ─▶ its controller makes a pod ─▶ PATCH pod: which sandbox it is
//	Claim    one message over the link, as ever; behind it POST SandboxClaim, by
//	         the pod's name and for that pod alone
//	Destroy  DELETE claim, Sandbox and pod, by name; then the pool is made smaller,
//	         by no more than was removed
//
// # Other makers of pods
//
// What is special about plain Pods is behind the interface maker: whoever else
// brings pods (the claims of agent-sandbox) implements it and leaves the link,
// the watch and the task to this package.
//
// It may import fleet, internal/kube, sandbox/gateway, sandbox/link,
// sandbox/egress, sandbox/proc and client-go.
package kube
