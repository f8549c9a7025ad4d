// Package nodestest is the conformance suite of fleet.Nodes. Every provider
// and the fake pass it. It imports package fleet only.
package nodestest
