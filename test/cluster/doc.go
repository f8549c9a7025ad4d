// Package cluster holds the scenarios of fleets on Kubernetes: the real binary,
// `muster serve --kubernetes`, against a real API server, scheduler and
// controllers (test/kube), with nodes that a played autoscaler brings and
// runners that really run.
//
// Tests only, and only with MUSTER_SCENARIOS=1: they take half an hour. The
// larger sizes need MUSTER_SLOW_TESTS=1 as well; each test says what it runs
// without.
package cluster
