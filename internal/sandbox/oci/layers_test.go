package oci_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// What an earlier process left on disk counts as in use; a record that cannot
// be read stops the count, since removing too much would break a sandbox.
func TestLayersInUse(t *testing.T) {
	o := options(t)
	s := open(t, o)
	dir := filepath.Join(o.Dir, string(fleet.NewSandboxID(time.Now())))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if got, err := s.Layers(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("before there is a record: %v %v", got, err)
	}
	record := filepath.Join(dir, "sandbox.json")
	if err := os.WriteFile(record, []byte(`{"lower":["/l/a","/l/b"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Layers(t.Context()); err != nil || !slices.Equal(got, []string{"/l/a", "/l/b"}) {
		t.Errorf("layers %v %v", got, err)
	}
	if err := os.WriteFile(record, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Layers(t.Context()); err == nil {
		t.Error("a damaged record was passed over")
	}
}
