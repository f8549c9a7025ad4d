package secret

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// Nothing that prints a Source or an error of it may show a value.
func TestValuesAreNeverShown(t *testing.T) {
	dir := t.TempDir()
	const value = "hunter2-value"
	if err := os.WriteFile(filepath.Join(dir, "A"), []byte(value+"\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Source{Dir: dir, Env: func(string) (string, bool) { return value, true }}
	got, err := s.Secret(t.Context(), "A")
	if err != nil || got != value+"\n" {
		t.Errorf("%v; want exactly one newline taken off", err)
	}
	var out strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "secrets", s, "dir", s.Dir)
	}
	fmt.Fprintf(&out, "%v %+v %#v", s, s, s)
	if strings.Contains(out.String(), value) {
		t.Errorf("the value was printed: %s", out.String())
	}
}

func TestErrorsNameWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "OPEN"), []byte("v"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "OPEN"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"OPEN": "chmod 600", "MISSING": "MISSING", "no name": "letters"} {
		if _, err := (Source{Dir: dir}).Secret(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	_, err := Source{Dir: filepath.Join(dir, "gone"), Env: os.LookupEnv}.Secret(t.Context(), "A")
	if err == nil || errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "spec.secrets.dir") {
		t.Errorf("a directory of secrets that is not there: %v", err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "PIPE"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Source{Dir: dir}).Secret(t.Context(), "PIPE"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a named pipe: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := (Source{Dir: dir}).Secret(t.Context(), "OPEN"); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory others may write: %v", err)
	}
}
