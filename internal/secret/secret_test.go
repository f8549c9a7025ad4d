package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, v string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(v), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	const value = "s3cr3t-value"
	write("TOKEN", value+"\n", 0o600)
	write("OPEN", value, 0o644)
	write("NUL", value+"\x00", 0o600)
	write("BIG", value+strings.Repeat("x", MaxBytes), 0o600)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "LINK")); err != nil {
		t.Fatal(err)
	}
	s := Source{Dir: dir, Env: func(k string) (string, bool) {
		v, ok := map[string]string{"MUSTER_SECRET_FROM_ENV": "e", "MUSTER_SECRET_TOKEN": "shadowed"}[k]
		return v, ok
	}}
	if v, err := s.Secret(t.Context(), "TOKEN"); err != nil || v != value {
		t.Errorf("TOKEN: %q %v", v, err)
	}
	if v, err := s.Secret(t.Context(), "FROM_ENV"); err != nil || v != "e" {
		t.Errorf("FROM_ENV: %q %v", v, err)
	}
	if _, err := s.Secret(t.Context(), "NOPE"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("NOPE: %v, want not found", err)
	}
	for _, name := range []string{"OPEN", "NUL", "BIG", "LINK", "../TOKEN", "", "a/b"} {
		v, err := s.Secret(t.Context(), name)
		if err == nil || v != "" {
			t.Errorf("%q was read", name)
			continue
		}
		if strings.Contains(err.Error(), value) {
			t.Errorf("%q: the error holds the value: %v", name, err)
		}
	}
}
