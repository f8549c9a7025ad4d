package warmtest

import (
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

// TestWarmLife is one sandbox from its pool to its end.
func TestWarmLife(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", true)
	spec := specOf()
	iso, err := a.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", iso)
	pod := s.pod(t, spec.ID)
	if iso.Node == "" || string(iso.Node) != pod.Spec.NodeName {
		t.Errorf("node %q, the pod is on %q", iso.Node, pod.Spec.NodeName)
	}
	out := sandboxtest.NewRecorder()
	task := fleet.Assignment{Task: "t1", Fence: 1, Command: []string{"sh", "-c", "echo hello; while [ ! -e go ]; do sleep 0.05; done"}, LogBytes: 1 << 20}
	if err := a.Claim(t.Context(), spec.ID, task, out); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the claim owns the sandbox of the pod", func() bool {
		for _, sb := range s.objects(t, core, "sandboxes") {
			for _, o := range sb.GetOwnerReferences() {
				if sb.GetName() == pod.Name && o.Kind == "SandboxClaim" && o.Name == pod.Name {
					return true
				}
			}
		}
		return false
	})
	if err := a.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left but the empty pool", func() bool {
		pools := s.objects(t, extensions, "sandboxwarmpools")
		return len(s.pods(t, "coders")) == 0 && len(s.objects(t, core, "sandboxes")) == 0 &&
			len(s.objects(t, extensions, "sandboxclaims")) == 0 && len(pools) == 1 && replicas(pools[0]) == 0
	})
}

func TestWarmConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Harness { return harness(t, true) })
}

func harness(t *testing.T, warm bool) sandboxtest.Harness {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	return sandboxtest.Harness{
		Open:    func(t *testing.T) fleet.Sandboxes { return s.open(t, "coders", warm) },
		Spec:    fleet.SandboxSpec{Image: "registry.example/agent:1"},
		Without: []sandboxtest.Lack{sandboxtest.NoCgroups, sandboxtest.NoUserIDs},
		Kill: func(t *testing.T, _ fleet.Sandboxes, id fleet.SandboxID) {
			s.kill(t, s.pod(t, id).Name)
		},
	}
}
