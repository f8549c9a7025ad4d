// Package kube is the adapter of fleet.Nodes for a cluster whose machines
// others bring: Cluster Autoscaler, Karpenter, or anything else that obeys pods
// which find no room. It provisions nothing itself. It asks, by one of the ways
// in which those can be asked ahead of need (see Headroom), and it holds what
// came until the plan gives it back by name.
//
// A node that was asked for and is not there yet is a boot. Once a node is
// ready, a tiny pod is put on it, the hold: it keeps the node from being
// consolidated away, and it remembers when the node was asked for.
//
//	         Scale                    a node is ready            Release
//	(none) ────────▶ boot (booting) ─────────────────▶ held ─────────────▶ (not listed:
//	                   │                               │  ▲                 cordoned, left
//	                   │ refused, or overdue    Cordon ▼  │ Uncordon        to its provider)
//	                   └──▶ BootFailure                cordoned                 │
//	                                                      ▲      Scale          │
//	                                           held ◀─────┴─────────────────────┘
//
// What is read comes from watches and is an error while they are broken. What
// is written is our own objects, and of a node only whether it takes pods.
//
// It may import fleet, internal/kube and client-go.
package kube
