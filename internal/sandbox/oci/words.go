package oci

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// wordsSize bounds what a runner can say for itself before it is connected.
const wordsSize = 16 << 10

// newWords makes the file that is a container's standard output and error: in
// memory, of a fixed size, so that neither our death nor anything inside can
// make trouble with it; what does not fit is refused to the writer.
func newWords() (*os.File, error) {
	fd, err := unix.MemfdCreate("runner", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make the runner's output: %w", err)
	}
	f := os.NewFile(uintptr(fd), "runner-output")
	if err = f.Truncate(wordsSize); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make the runner's output: %w", err)
	}
	return f, nil
}

// lastWords is what the runner said, as long as Create goes on.
func (b *box) lastWords() string {
	if b.words == nil {
		return ""
	}
	text := make([]byte, 4<<10)
	n, _ := b.words.ReadAt(text, 0)
	return string(bytes.Trim(text[:n], "\x00"))
}

// quiet gives the container no input, and a file for what the runner says
// before it is connected.
type quiet struct{ words *os.File }

func (q quiet) Close() error          { return nil }
func (q quiet) Set(c *exec.Cmd)       { c.Stdout, c.Stderr = q.words, q.words }
func (q quiet) Stdin() io.WriteCloser { return nil }
func (q quiet) Stdout() io.ReadCloser { return nil }
func (q quiet) Stderr() io.ReadCloser { return nil }
