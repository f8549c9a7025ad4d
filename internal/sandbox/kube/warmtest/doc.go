// Package warmtest tests sandbox/kube against a real API server, with real
// runners behind a real gateway: from the warm pools of agent-sandbox's own
// controller, and from plain pods beside it.
//
// It may import what a control plane is wired of: fleet, sandbox/kube,
// sandbox/gateway, internal/kube, client-go.
package warmtest
