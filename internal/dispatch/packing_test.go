package dispatch

import (
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

func TestPacking(t *testing.T) {
	r := NewRegistry(memory.New(memory.Options{}))
	if p := r.Packing(); len(p) != 0 {
		t.Errorf("of nothing: %v", p)
	}
	for i, s := range []fleet.SandboxState{fleet.SandboxClaimed, fleet.SandboxReady, fleet.SandboxReady, fleet.SandboxStarting, fleet.SandboxDraining, fleet.SandboxFailed} {
		for _, node := range []fleet.NodeID{"a", "b"}[:1+i%2] {
			if err := r.Put(t.Context(), fleet.Sandbox{State: s, Spec: fleet.SandboxSpec{ID: fleet.SandboxID(string(node) + string(rune('0'+i))), Pool: "p", Node: node}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := r.Packing()
	if want := (fleet.Packing{Running: 1, Ready: 2, Starting: 1, Draining: 2}); got["a"] != want {
		t.Errorf("a: %+v, want %+v", got["a"], want)
	}
	if want := (fleet.Packing{Ready: 1, Starting: 1, Draining: 1}); got["b"] != want {
		t.Errorf("b: %+v, want %+v", got["b"], want)
	}
}
