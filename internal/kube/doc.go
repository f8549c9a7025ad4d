// Package kube is what the Kubernetes adapters share: how to reach the API
// server, and the names by which Muster knows its own objects. The adapters are
// sandbox/kube, nodes/kube, scaler and operator.
//
// It may import fleet and client-go.
package kube
