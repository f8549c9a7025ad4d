package archive

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"muster.dev/muster/internal/fleet"
)

// tiny mounts a file system of a few pages, or skips where that needs rights
// the test does not have.
func tiny(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("muster-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system cannot be mounted here (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := tiny(t, "256k")
	a, id := open(t, dir, Options{}), fleet.NewTaskID(start)
	put(t, a, id, rec(0, "kept"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	piece, at := string(bytes.Repeat([]byte("y"), 3000)), int64(4)
	var err error
	for err == nil {
		if err = a.AppendLog(id, 1, rec(at, piece)); err == nil {
			at += int64(len(piece))
		}
	}
	if !errors.Is(err, fleet.ErrFull) {
		t.Fatalf("log on a full disk: %v", err)
	}
	if size(t, a, id) != at || int64(len(text(t, a, id, 0))) != at {
		t.Error("the log is not what was acknowledged")
	}
	if _, err := a.PutFile(id, "patch", bytes.NewReader(make([]byte, 64<<10))); !errors.Is(err, fleet.ErrFull) {
		t.Errorf("patch on a full disk: %v", err)
	}
	if _, err := a.OpenFile(id, "patch"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("half a patch: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, a, id, rec(at, piece))
	if _, err := a.PutFile(id, "patch", bytes.NewReader(make([]byte, 64<<10))); err != nil {
		t.Errorf("once there is space: %v", err)
	}
	if got := open(t, dir, Options{}); size(t, got, id) != at+int64(len(piece)) {
		t.Error("size after a restart")
	}
}
