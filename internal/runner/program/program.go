//go:build linux

package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/runner"
)

func init() {
	// The main thread becomes the one that starts the agent's processes: a
	// thread less to keep.
	runtime.LockOSThread()
}

// Main is the main function of a runner. connect completes the configuration
// with how the control plane is reached.
func Main(connect func(*runner.Config) error) {
	do := func() error { return run(connect) }
	if len(os.Args) == 2 && os.Args[1] == "observe" {
		do = observe
	}
	Exit(do())
}

// Exit ends the program, with a message where err is not nil.
func Exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "muster-runner:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// observe prints what the kernel says of a process started like this one: for
// the host, in images that have no cat.
func observe() error {
	for _, name := range []string{"/proc/self/status", "/proc/self/mountinfo"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// gcPercent trades processor time, of which a waiting runner needs none, for
// memory, which it holds.
const gcPercent = 40

func run(connect func(*runner.Config) error) error {
	unignore()
	// Nobody with the agent's uid may trace or read this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	debug.SetGCPercent(gcPercent)
	// Measured: one is as fast for claims and log, and keeps fewer threads.
	runtime.GOMAXPROCS(1)
	c, err := config()
	if err != nil {
		return err
	}
	if err := connect(&c); err != nil {
		return err
	}
	// The agent inherits nothing of this, but what is not there cannot leak.
	os.Clearenv()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.Scope = runner.ScopeAll; os.Getpid() != 1 {
		c.Scope = runner.ScopeChildren
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become the one that adopts orphans: %w", err)
		}
	}
	catchSignals(c.Scope == runner.ScopeAll, cancel)
	return runner.Run(ctx, c)
}

// catchSignals keeps signals meant to end a process from ending this one. They
// are caught, not ignored: an ignored signal would be inherited by the agent.
// Where the runner is not pid 1, SIGTERM ends it.
func catchSignals(first bool, cancel context.CancelFunc) {
	signals := []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, signals...)
	go func() {
		for s := range ch {
			if !first && s == syscall.SIGTERM {
				cancel()
			}
		}
	}()
}

func config() (runner.Config, error) {
	c := runner.Config{
		Home:      or(os.Getenv("MUSTER_HOME"), "/home/agent"),
		Workspace: or(os.Getenv("MUSTER_WORKSPACE"), "/workspace"),
		Isolate:   true,
		SameUID:   os.Getenv("MUSTER_SAME_UID") == "1",
	}
	var err error
	if c.UID, err = strconv.Atoi(or(os.Getenv("MUSTER_UID"), "1000")); err != nil {
		return c, fmt.Errorf("MUSTER_UID: %w", err)
	}
	if c.GID, err = strconv.Atoi(or(os.Getenv("MUSTER_GID"), "1000")); err != nil {
		return c, fmt.Errorf("MUSTER_GID: %w", err)
	}
	return c, nil
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
