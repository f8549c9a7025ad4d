// Package serve holds an end-to-end test of `muster serve --kubernetes`: the
// real programs against a real API server, from the Fleet object to nothing
// being left of it. Scenarios of failure are in test/cluster.
package serve
