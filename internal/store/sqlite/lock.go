package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// DirLock holds a data directory for this process until it is released, or the
// process ends however it ends.
type DirLock struct{ f *os.File }

// Lock takes the data directory dir, which must exist, for this process: it
// locks the file "lock" in it and writes the process id there. When another
// process has it the error wraps fleet.ErrConflict and names that process.
func Lock(dir string) (*DirLock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		who := ""
		if b, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				who = fmt.Sprintf(" pid %d", pid)
			}
		}
		return nil, inUse("data directory " + dir + " is in use by muster" + who + ": stop it, or choose another directory")
	}
	// The lock holds even if this fails (a full disk); the id is for people.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &DirLock{f}, nil
}

// Release gives the directory up. The file stays: removing it would let two
// processes lock two files of the same name.
func (l *DirLock) Release() error {
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("unlock data directory: %w", err)
	}
	return nil
}

// inUse is the conflict of two control planes on one directory, in words for
// who started the second.
type inUse string

func (e inUse) Error() string        { return string(e) }
func (e inUse) Is(target error) bool { return target == fleet.ErrConflict }
