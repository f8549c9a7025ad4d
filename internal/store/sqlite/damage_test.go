package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
)

// populated makes a database with tasks in it, closed, and returns its path.
func populated(t *testing.T, backup bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "muster.db")
	db, err := Open(t.Context(), path, Options{BackupEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	tasks := make([]fleet.Task, 300)
	for i := range tasks {
		tasks[i].Spec = fleet.TaskSpec{Pool: "p", Prompt: strings.Repeat("x", 500), Labels: map[string]string{"n": fmt.Sprint(i)}}
	}
	if _, err := db.Submit(t.Context(), tasks); err != nil {
		t.Fatal(err)
	}
	if backup {
		if _, err := db.Backup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCorrupt(t *testing.T) {
	tests := []struct {
		name   string
		damage func([]byte) []byte
		backup bool
		says   string
	}{
		{"not a database", func([]byte) []byte { return []byte("hello, this is a text file and no database") }, false, "does not begin"},
		{"a few bytes", func(b []byte) []byte { return b[:7] }, false, "does not begin"},
		{"cut in half", func(b []byte) []byte { return b[:len(b)/2/4096*4096] }, true, "cp broken/muster.db.bak-"},
		{"a page of noise", func(b []byte) []byte { copy(b[8*4096:], bytes.Repeat([]byte{0xa5}, 4096)); return b }, true, "cp broken/muster.db.bak-"},
		{"noise in the schema", func(b []byte) []byte { copy(b[100:], bytes.Repeat([]byte{0xff}, 2000)); return b }, false, "there is no copy"},
		{"emptied", func([]byte) []byte { return nil }, true, "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := populated(t, tt.backup)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := tt.damage(whole)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), path, Options{})
			if !errors.Is(err, fleet.ErrCorrupt) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, bad) {
				t.Errorf("the file was changed: %v", err)
			}
			if tt.backup {
				restore(t, path)
			}
		})
	}
	t.Run("missing, with copies", func(t *testing.T) {
		path := populated(t, true)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	})
}

// restore does what the error message says, and finds the tasks again.
func restore(t *testing.T, path string) {
	t.Helper()
	b := copies(path)
	from, err := os.ReadFile(b[len(b)-1])
	if err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, from, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, path, Options{BackupEvery: -1})
	if st, err := db.Queue().Stats(t.Context()); err != nil || st.Backlog != 300 {
		t.Errorf("restored: %+v, %v", st, err)
	}
}

// TestCorruptWhileRunning damages a large file under an open database: the
// next start checks all of it, though such files are not checked otherwise.
func TestCorruptWhileRunning(t *testing.T) {
	path := populated(t, false)
	db := open(t, path, Options{BackupEvery: -1})
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(4096); at < st.Size(); at += 4096 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 64), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = db.Tasks(t.Context(), fleet.TaskFilter{Limit: 1000})
	if !errors.Is(err, fleet.ErrCorrupt) {
		t.Fatalf("reading it: %v", err)
	}
	if _, err := os.Stat(path + suspectSuffix); err != nil {
		t.Errorf("no suspicion was noted: %v", err)
	}
}

func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("CREATE TABLE bookmarks (url TEXT)"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), t.TempDir(), Options{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "dir.db"), Options{}); err == nil {
		t.Error("opened a file in a directory that does not exist")
	}
}

func TestNewerSchema(t *testing.T) {
	path := populated(t, false)
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("INSERT INTO schema_version (version, name, applied_at) VALUES (999, 'future', 0)"); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path, Options{})
	if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "newer muster") || !strings.Contains(err.Error(), "999") {
		t.Errorf("got %v", err)
	}
}

func TestBackups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "muster.db")
	db := open(t, path, Options{BackupEvery: -1})
	for i := range 4 {
		if _, err := db.Submit(t.Context(), []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p"}}}); err != nil {
			t.Fatal(err)
		}
		name, err := db.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		copied := open(t, name, Options{BackupEvery: -1})
		if st, err := copied.Queue().Stats(t.Context()); err != nil || st.Backlog != i+1 {
			t.Errorf("copy %d: %+v, %v", i, st, err)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
		for _, s := range []string{"-wal", "-shm"} {
			_ = os.Remove(name + s)
		}
	}
	if all := copies(path); len(all) != kept {
		t.Errorf("copies: %v", all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Backup(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if parts, err := filepath.Glob(path + "*" + partSuffix); err != nil || len(parts) != 0 {
		t.Errorf("left behind: %v, %v", parts, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	l, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	want := fmt.Sprintf("data directory %s is in use by muster pid %d", dir, os.Getpid())
	if !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(filepath.Join(dir, "none")); err == nil {
		t.Error("locked a directory that does not exist")
	}
}
