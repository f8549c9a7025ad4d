package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process names a process beyond the reuse of its pid.
type process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
	Boot  string `json:"boot"`  // boot id
}

// identify reads who pid is now.
func identify(pid int) (process, error) {
	start, err := startTime(pid)
	if err != nil {
		return process{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return process{Pid: pid, Start: start, Boot: bootID()}, nil
}

// alive reports whether the very process still runs (zombies do not).
func (p process) alive() bool {
	if p.Pid <= 0 || p.Boot != bootID() {
		return false
	}
	start, err := startTime(p.Pid)
	return err == nil && start == p.Start
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startTime reads field 22 of /proc/PID/stat; the second field may hold
// spaces and parentheses. A zombie is an error.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("stat of process %d: %q", pid, s)
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// watch is a handle on a process that needs not be our child.
type watch struct{ fd *os.File }

// watchProcess opens the process for waiting and killing; it fails when the
// process has ended already.
func watchProcess(p process) (*watch, error) {
	fd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.Pid, err)
	}
	w := &watch{fd: os.NewFile(uintptr(fd), "pidfd")}
	if !p.alive() { // checked after opening: no room for reuse
		_ = w.fd.Close()
		return nil, fmt.Errorf("open process %d: %w", p.Pid, os.ErrProcessDone)
	}
	return w, nil
}

// wait blocks until the process ended (true), or the watch was closed (false).
// A pidfd becomes readable when its process ends; the wait is in the Go
// poller and holds no thread.
func (w *watch) wait() bool {
	conn, err := w.fd.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = conn.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ended = err == nil && n > 0
		return ended
	})
	return err == nil && ended
}

func (w *watch) kill() error {
	conn, err := w.fd.SyscallConn() // Fd would make it blocking
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	})
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return errors.Join(err, sent)
}

func (w *watch) close() { _ = w.fd.Close() }

// killProcess ends a process and waits until it is gone, if it is still the
// one named.
func killProcess(ctx context.Context, p process) error {
	w, err := watchProcess(p)
	if err != nil {
		return nil // not there any more
	}
	defer w.close()
	if err := w.kill(); err != nil {
		return fmt.Errorf("kill process %d: %w", p.Pid, err)
	}
	for wait := time.Millisecond; p.alive(); wait = min(2*wait, 20*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", p.Pid, ctx.Err())
		case <-time.After(wait):
		}
	}
	return nil
}
