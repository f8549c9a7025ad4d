package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/server"
)

// TestReplaceFiles: both files are written whole, what a link leads to is
// written and not the link, and what was there is kept.
func TestReplaceFiles(t *testing.T) {
	dir := t.TempDir()
	target, given := filepath.Join(dir, "real.yaml"), filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(target, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, given); err != nil {
		t.Fatal(err)
	}
	f := fleetFiles{given: given, kept: filepath.Join(dir, "kept.yaml")}
	kept, err := f.replace([]byte("new"), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil || len(kept) != 1 || kept[0] != target+".before-20260102T030405-000Z" {
		t.Fatalf("kept %v, %v", kept, err)
	}
	for path, want := range map[string]string{target: "new", given: "new", f.kept: "new", kept[0]: "old"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if st, err := os.Lstat(given); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	same := fleetFiles{given: f.kept, kept: f.kept}
	if all := same.all(); len(all) != 1 {
		t.Errorf("one file twice: %v", all)
	}
	nowhere := fleetFiles{given: filepath.Join(dir, "no", "fleet.yaml"), kept: f.kept}
	if _, err := nowhere.replace([]byte("x"), time.Now()); err == nil || !strings.Contains(err.Error(), "cannot be replaced (see that muster may write it") {
		t.Errorf("a file that cannot be: %v", err)
	}
	if b, err := os.ReadFile(f.kept); err != nil || string(b) != "new" {
		t.Errorf("the other one was written: %q, %v", b, err)
	}
}

// TestStaleRevision: a revision that this machine cannot run any more is
// refused before anything is written, by field.
func TestStaleRevision(t *testing.T) {
	l := &localReviser{}
	for spec, want := range map[string]string{
		`{"kind":"Fleet","apiVersion":"muster.dev/v1alpha1","metadata":{"name":"a"},"spec":{"templates":[{"name":"a","gone":1}]}}`:                                           "spec.templates[0]",
		`{"kind":"Fleet","apiVersion":"muster.dev/v1alpha1","metadata":{"name":"a"},"spec":{"templates":[{"name":"a"}],"secrets":{"kubernetes":"x"}}}`:                       "spec.secrets.kubernetes",
		`{"kind":"Fleet","apiVersion":"muster.dev/v1alpha1","metadata":{"name":"a"},"spec":{"templates":[{"name":"a","mounts":[{"source":"/no/such","target":"/opt/x"}]}]}}`: "spec.templates[0].mounts[0].source",
	} {
		_, err := l.Rollback(t.Context(), server.Order{Revision: fleet.Revision{Number: 3, Spec: []byte(spec)}})
		if err == nil || !strings.Contains(err.Error(), "revision 3 does not hold any more") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestAskingLooksAtNoFile: what somebody asks about is checked without telling
// which files this machine has; what is to be put in force is not.
func TestAskingLooksAtNoFile(t *testing.T) {
	spec := func(more string) []byte {
		return []byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: a}\nspec:\n" + more)
	}
	for _, s := range [][]byte{
		spec("  templates: [{name: default, mounts: [{source: /nowhere/at/all, target: /data}]}]\n"),
		spec("  templates: [{name: default}]\n  cost: {priceFile: /nowhere/at/all}\n"),
	} {
		if _, err := checkForm(s); err != nil {
			t.Errorf("asked about: %v", err)
		}
		if _, err := checkLocal(s); err == nil {
			t.Errorf("%s is put in force", s)
		}
	}
}
