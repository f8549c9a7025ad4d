package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// TestWriteWhole: what cannot be read to its end leaves the file as it was,
// and a link beside it is not followed.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "other")
	for _, p := range []string{path, other} {
		if err := writePrivate(p, []byte("old")); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.Symlink(other, path+".part"); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("cut")
	if err := writeFile(path, 0o666, io.MultiReader(strings.NewReader("new"), iotest.ErrReader(cut))); !errors.Is(err, cut) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("holds %q after a failure", b)
	}
	if err := writeFile(path, 0o666, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{path: "new", other: "old"} {
		if b, _ := os.ReadFile(p); string(b) != want {
			t.Errorf("%s holds %q, want %q", p, b, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

type someSecrets map[string]string

func (s someSecrets) Secret(_ context.Context, name string) (string, error) {
	if v, ok := s[name]; ok {
		return v, nil
	}
	return "", fleet.ErrNotFound
}

// TestWebhookKey: the key of webhooks is for webhooks only.
func TestWebhookKey(t *testing.T) {
	f := &v1alpha1.Fleet{}
	secrets := someSecrets{"HOOK": "k", "TOKEN": "v"}
	if webhookKey(f, secrets) != nil {
		t.Error("a key without a name")
	}
	f.Spec.Webhooks.Secret = "HOOK"
	if k, err := webhookKey(f, secrets)(t.Context()); err != nil || string(k) != "k" {
		t.Errorf("key %q, %v", k, err)
	}
	tasks := forTasks{secrets, "HOOK"}
	if v, err := tasks.Secret(t.Context(), "TOKEN"); v != "v" || err != nil {
		t.Errorf("secret %q, %v", v, err)
	}
	if v, err := tasks.Secret(t.Context(), "HOOK"); v != "" || !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("a task gets the key %q, %v", v, err)
	}
}
