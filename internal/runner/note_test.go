//go:build linux

package runner_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster.dev/muster/internal/fleet"
)

// A note of the host's stands in the log where it belongs, and never counts
// as output of the agent's.
func TestNoteFromTheHost(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	if err := b.s.Note("before any task"); err != nil {
		t.Errorf("without a task: %v", err)
	}
	fifo := filepath.Join(b.workspace, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	s := newSink()
	if err := b.s.Claim(wait(t), assign("sh", "-c", "echo begin; read x < fifo; echo end"), s); err != nil {
		t.Fatal(err)
	}
	<-s.firstLog
	if err := b.s.Note("proxy: example.com:443 is not on the allow list"); err != nil {
		t.Fatal(err)
	}
	// The host's frames are read in order: when this command runs the note is
	// in. It lets the task end, and may be ended with it.
	_, _ = b.s.Exec(wait(t), fleet.ExecRequest{Command: []string{"sh", "-c", "echo > " + fifo}})
	b.finish(s)
	if got := s.out(fleet.StreamSystem); got != "proxy: example.com:443 is not on the allow list\n" {
		t.Errorf("notes %q", got)
	}
	if strings.Contains(s.out(fleet.StreamStdout), "proxy:") {
		t.Error("the note is among the agent's output")
	}
	_ = b.s.Close()
	if err := b.s.Note("late"); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}
