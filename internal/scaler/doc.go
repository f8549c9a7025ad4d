// Package scaler carries a plan out on an object of others: whatever has the
// subresource /scale (a Deployment, a StatefulSet, a SandboxWarmPool, a
// NodePool, a resource of one's own) gets the replicas that the fleet's last
// decision wants. It decides nothing about demand; fleet.Targets does.
//
//	          targets, every 25 ms
//	                 │ differ from what was last seen, or a look is due
//	                 ▼
//	rival? ── yes ──▶ held: one writer to a target
//	                 │ no
//	                 ▼
//	             read /scale ── fails ──▶ held: what is not known is not zero
//	        ┌────────┼──────────┐
//	     more      equal       less
//	        │        │           ▼
//	 un-mark who   un-mark    ask who is busy ── all that may go are ──▶ held
//	 was to leave    │           │ some are idle
//	        ▼        ▼           ▼
//	    write      done       mark them, wait a second, ask again,
//	                          write no less than what is busy
//
// What is written is an absolute number computed from the targets, never one
// computed from the replicas that there are, so nothing compounds. All that has
// to survive this process is in annotations of the pods.
//
// The order in which pods go is the one of the controllers of Kubernetes 1.37:
// of a ReplicaSet by pkg/controller.ActivePodsWithRanks, of a StatefulSet by
// ordinal. docs/kubernetes-scaler.md has the contract with the workers.
//
// It may import fleet, kube and client-go.
package scaler
