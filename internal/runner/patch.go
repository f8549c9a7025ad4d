//go:build linux

package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

const (
	collectTime = 2 * time.Minute // for patch and artifacts together
	spoolMemory = 1 << 20         // a patch up to here needs no disk
)

// collect gathers patch and artifacts. Nothing of the agent runs any more.
func (t *task) collect() {
	deadline := time.Now().Add(collectTime)
	if t.report.Reason == fleet.ReasonBudget || t.report.Reason == fleet.ReasonNodeLost {
		deadline = time.Now().Add(collectTime / 4) // somebody waits for the end
	}
	note := ""
	patch, cut := t.patch(deadline, &note)
	if patch != nil && patch.size > 0 {
		t.report.PatchBytes = patch.size
		t.files = append(t.files, outFile{size: patch.size, open: patch.open})
	}
	if cut {
		note = join(note, fmt.Sprintf("the patch was cut at %d MiB and cannot be applied", protocol.MaxPatch>>20))
	}
	t.report.PatchNote = note
	if len(t.a.Artifacts) > 0 {
		t.artifacts(deadline)
	}
}

// patch is the difference of the workspace to the base.
func (t *task) patch(deadline time.Time, note *string) (*spool, bool) {
	if t.base == "" {
		*note = "no patch: the workspace held no git repository with a commit when the task began"
		return nil, false
	}
	if !t.r.hasGit() {
		*note = "no patch: the repository in the workspace is gone"
		return nil, false
	}
	st := &steps{a: t.r.a, ctx: t.r.ctx, deadline: deadline}
	git := func(w io.Writer, args ...string) *outcome {
		return st.capture(t.r.git(t.env, append([]string{"-c", "core.hooksPath=/dev/null"}, args...)...), w)
	}
	// A git that was killed may have left its lock.
	t.r.a.as(func() { _ = os.Remove(t.r.inWorkspace(".git", "index.lock")) })
	// Files git does not know yet are part of the work.
	if o := git(discard{}, "add", "--intent-to-add", "--ignore-errors", "--", "."); !o.ok() {
		*note = "some new files may be missing: git add " + o.what() + ": " + shorten(o.output(), 500)
	}
	s := &spool{temp: t.r.tempDir(), as: t.r.a.as, limit: protocol.MaxPatch}
	o := git(s, "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "-c", "diff.orderFile=/dev/null",
		"-c", "diff.submodule=short", "-c", "core.quotePath=true",
		"diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative",
		"--src-prefix=a/", "--dst-prefix=b/", "--unified=3", t.base, "--")
	switch {
	case s.cut:
		return s, true
	case o.ok():
		return s, false
	case o.stopped != fleet.ReasonNone:
		*note = join(*note, fmt.Sprintf("no patch: git diff took more than %s", collectTime))
	default:
		*note = join(*note, "no patch: git diff "+o.what()+": "+shorten(o.output(), 500))
	}
	return nil, false
}

var errSpoolFull = errors.New("the patch is larger than what is kept")

// spool keeps a patch: small ones in memory, so that a full disk does not cost
// the work, larger ones in a file without a name.
type spool struct {
	temp  string
	as    func(func()) bool
	limit int64

	size int64
	mem  bytes.Buffer
	file *os.File
	cut  bool
}

func (s *spool) Write(p []byte) (int, error) {
	if s.cut {
		return 0, errSpoolFull
	}
	if over := s.size + int64(len(p)) - s.limit; over > 0 {
		s.cut = true
		p = p[:int64(len(p))-over]
	}
	var err error
	if s.file == nil && s.size+int64(len(p)) <= spoolMemory {
		s.mem.Write(p)
	} else {
		err = s.spill(p)
	}
	if err != nil {
		return 0, err
	}
	s.size += int64(len(p))
	if s.cut {
		return len(p), errSpoolFull
	}
	return len(p), nil
}

func (s *spool) spill(p []byte) error {
	if s.file == nil {
		var fd int
		err := os.ErrClosed
		s.as(func() { fd, err = unix.Open(s.temp, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600) })
		if err != nil {
			// No such files here (overlay of an old kernel, gVisor): memory,
			// which the sandbox's own limit bounds.
			if fd, err = unix.MemfdCreate("patch", unix.MFD_CLOEXEC); err != nil {
				return fmt.Errorf("keep the patch: %w", err)
			}
		}
		s.file = os.NewFile(uintptr(fd), "patch")
		if _, err := s.file.WriteAt(s.mem.Bytes(), 0); err != nil {
			return fmt.Errorf("keep the patch: %w", err)
		}
		s.mem = bytes.Buffer{}
	}
	if _, err := s.file.WriteAt(p, s.size); err != nil {
		return fmt.Errorf("keep the patch: %w", err)
	}
	return nil
}

// open returns a reader from the beginning; it may be called again.
func (s *spool) open() io.ReadCloser {
	if s.file != nil {
		return io.NopCloser(io.NewSectionReader(s.file, 0, s.size))
	}
	return io.NopCloser(bytes.NewReader(s.mem.Bytes()))
}
