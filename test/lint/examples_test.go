package lint

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

// TestExamplesAreValid holds what users copy to the checks of the server.
func TestExamplesAreValid(t *testing.T) {
	dir := filepath.Join("..", "..", "examples")
	b, err := os.ReadFile(filepath.Join(dir, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := v1alpha1.ParseFleet(b)
	if err != nil {
		t.Fatalf("fleet.yaml: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := v1alpha1.ParseDocuments(b)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
		for _, d := range docs {
			task, ok := d.(*v1alpha1.Task)
			if !ok {
				continue
			}
			if _, err := fleet.ResolveTask(task.Spec, time.Now()); err != nil {
				t.Errorf("%s does not fit examples/fleet.yaml: %v", filepath.Base(name), err)
			}
		}
	}
}
