// Command controlplane is the servers of a Kubernetes cluster, and kwok, as one
// program: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, each
// started by its name with its own flags. The tests that need a cluster start
// it (test/kube); no one else does.
//
// It is a module of its own, so that none of what it takes weighs on the
// dependencies of Muster. tools/install.sh controlplane builds it.
package main
