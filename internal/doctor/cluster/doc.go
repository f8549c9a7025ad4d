// Package cluster looks at a Kubernetes cluster and says whether it is ready
// for an autoscaled fleet of agents: what is there, what is missing, what
// follows, and the command that mends it. It only reads, but for the reviews
// by which the API server says what an account may do, which store nothing.
//
// It may import fleet, kube, doctor and client-go. What a fleet asks of the
// cluster comes in as [Needs].
package cluster
