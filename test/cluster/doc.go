// Package cluster holds the scenarios of fleets on Kubernetes: the real binary,
// `muster serve --kubernetes`, against a real API server, scheduler and
// controllers (test/kube), with nodes that a played autoscaler brings and
// runners that really run.
//
// Tests only. They share one cluster and run side by side, each in a namespace
// with nodes of its own; the larger sizes need MUSTER_SLOW_TESTS=1, and each
// test says what it runs without.
package cluster
