package oci_test

import (
	"context"
	"os"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestStages: the parts of a start are told while the sandbox is there, and a
// prepare command has its own.
func TestStages(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root; without it see TestRootless")
	}
	needRuntime(t, fleet.RuntimeRunc)
	s := open(t, options(t))
	spec := newSpec(fleet.RuntimeRunc)
	spec.Prepare = []string{"sleep 0.3"}
	began := time.Now()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)
	got, ok := s.Stages(spec.ID)
	if sum := got.Image + got.Turn + got.Start + got.Prepare; !ok || got.Prepare < 300*time.Millisecond || got.Start <= 0 || sum > whole {
		t.Errorf("%+v of %s, %v", got, whole, ok)
	}
	if err := s.Destroy(context.Background(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Stages(spec.ID); ok {
		t.Error("one that is gone has stages")
	}
}
