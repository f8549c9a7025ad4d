package kube_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Harness {
		c := newCluster(t)
		return sandboxtest.Harness{
			Open:    func(t *testing.T) fleet.Sandboxes { return c.open(t) },
			Spec:    fleet.SandboxSpec{Image: "registry.example/agent:1"},
			Without: []sandboxtest.Lack{sandboxtest.NoCgroups, sandboxtest.NoUserIDs},
			Kill: func(t *testing.T, _ fleet.Sandboxes, id fleet.SandboxID) {
				c.kill(c.pod(t, id).UID)
			},
		}
	})
}
