package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// delegatedByXattr reads the mark systemd sets on groups it hands over.
func delegatedByXattr(dir string) bool {
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		var b [4]byte
		if n, err := unix.Getxattr(dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// Pids returns the processes in the group and the groups below it.
func (g Group) Pids() ([]int, error) {
	var out []int
	for _, d := range g.dirs() {
		err := filepath.WalkDir(d, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil || !e.IsDir() {
				return err
			}
			pids, err := pidsIn(path)
			out = append(out, pids...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func pidsIn(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []int
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	return out, nil
}

// killRound is how long to wait before looking for processes that survived or
// were forked meanwhile.
const killRound = 2 * time.Millisecond

// Kill ends every process in the group and below, at once with cgroup.kill
// where the kernel has it (5.14), else by signals until none is left. It
// blocks until they are gone or ctx ends. Killing an empty or absent group
// succeeds.
func (g Group) Kill(ctx context.Context) error {
	return again(ctx, func() (bool, error) {
		n, err := g.killOnce()
		if err == nil && n > 0 {
			err = fmt.Errorf("kill cgroup %s: %d processes left", g.path, n)
			return true, err
		}
		return false, err
	})
}

// killOnce signals every process and returns how many there were.
func (g Group) killOnce() (int, error) {
	if g.l.Unified != "" {
		_ = os.WriteFile(filepath.Join(g.l.Unified, g.path, "cgroup.kill"), []byte("1"), 0)
	}
	pids, err := g.Pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.path, err)
		}
	}
	return len(pids), nil
}

// Remove removes the group and those below it in every hierarchy. It waits
// for processes that are still exiting, and kills those that come in
// meanwhile: a runtime that was killed can leave a child that is just moving
// itself into its group. An absent group is no error.
func (g Group) Remove(ctx context.Context) error {
	return again(ctx, func() (bool, error) {
		var failed error
		for _, d := range g.dirs() {
			if err := removeTree(d); err != nil {
				failed = err
			}
		}
		if !errors.Is(failed, unix.EBUSY) {
			return false, wrap(failed, "remove cgroup "+g.path)
		}
		if _, err := g.killOnce(); err != nil {
			return false, err
		}
		return true, wrap(failed, "remove cgroup "+g.path)
	})
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// again calls f until it is not to be called again, with growing pauses, and
// returns its last error; with that of ctx if that ended first.
func again(ctx context.Context, f func() (again bool, err error)) error {
	for wait := killRound; ; wait = min(2*wait, 50*time.Millisecond) {
		more, err := f()
		if !more {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// removeTree removes a group directory bottom up; only rmdir works there, as
// the files in it belong to the kernel.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// RemoveEmpty removes the group where nothing is in it or below it, and leaves
// it be otherwise.
func (g Group) RemoveEmpty() {
	for _, d := range g.dirs() {
		_ = unix.Rmdir(d)
	}
}
