// Package kubetest gives tests a Kubernetes cluster of their own: the real
// etcd, API server, controller manager and scheduler as processes on loopback
// ports, nodes kept alive by kwok, and, played by this package, what a cluster
// needs beyond that: a node group that grows and shrinks as a cluster
// autoscaler would have it, and kubelets that run pods as processes of this
// machine.
//
//	func TestMain(m *testing.M) { kubetest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		c := kubetest.Start(t)       // shared by the tests of this process
//		ns := c.Namespace(t)
//		c.NodeGroup(t, kubetest.GroupOptions{Name: "agents", MilliCPU: 8000, Memory: 16 << 30, Pods: 110, Max: 10, Boot: time.Second})
//		…
//	}
//
// The servers are one program, built from test/kube/controlplane and kept
// outside the tree; where it is missing Start builds it, which takes ten
// minutes on two processors, once per machine. MUSTER_KUBE_TESTS=0 skips every
// test that starts a cluster, and each says so.
//
// It may import client-go and nothing else of this module.
package kubetest
