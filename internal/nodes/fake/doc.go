// Package fake brings pretend machines: a stateful fleet.Nodes on a supplied
// clock, with boot times, stock-outs, lost nodes and injectable errors. It
// passes nodestest, and is what the control loop is tested against. It imports
// package fleet only.
package fake
