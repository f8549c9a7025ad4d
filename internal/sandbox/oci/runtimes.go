package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"

	"muster.dev/muster/internal/fleet"
)

// startInPlace starts runtimes on the calling thread, always: [privately]
// calls it on a locked thread whose mount namespace they must inherit, and
// which outlives them, as Pdeathsig demands.
type startInPlace struct{ runc.ProcessMonitor }

func (m startInPlace) StartLocked(c *exec.Cmd) (chan runc.Exit, error) { return m.Start(c) }

var setMonitor = sync.OnceFunc(func() { runc.Monitor = startInPlace{runc.Monitor} })

// programs are the names runtimes go by.
var programs = map[fleet.Runtime]string{
	fleet.RuntimeGVisor: "runsc",
	fleet.RuntimeRunc:   "runc",
	fleet.RuntimeCrun:   "crun",
}

// Strength is the order in which RuntimeAuto tries runtimes.
var Strength = []fleet.Runtime{fleet.RuntimeGVisor, fleet.RuntimeRunc, fleet.RuntimeCrun}

// lookRuntime finds the program: the path given, then the data directory's
// bin/, then PATH and the system's directories.
func lookRuntime(r fleet.Runtime, given map[fleet.Runtime]string, bin string) (string, error) {
	name, ok := programs[r]
	if !ok {
		return "", fmt.Errorf("runtime %q: %w: want one of auto, gvisor, runc, crun", r, fleet.ErrInvalid)
	}
	if p := given[r]; p != "" {
		if _, err := exec.LookPath(p); err != nil {
			return "", fmt.Errorf("runtime %s: %w: %w", r, fleet.ErrUnavailable, err)
		}
		return p, nil
	}
	if bin != "" {
		if p, err := exec.LookPath(filepath.Join(bin, name)); err == nil {
			return p, nil
		}
	}
	if p, err := lookProgram(name); err == nil {
		return p, nil
	}
	return "", fmt.Errorf("runtime %s: %w: %s is not installed (looked in %s and PATH)", r, fleet.ErrUnavailable, name, bin)
}

// cli drives one runtime's program for one adapter.
type cli struct {
	kind fleet.Runtime
	path string
	root string // the runtime's own state
	args []string
}

// newCLI makes the command line shared by all calls of a runtime.
func newCLI(kind fleet.Runtime, path, state, platform string, rootless bool) *cli {
	c := &cli{kind: kind, path: path, root: filepath.Join(state, string(kind))}
	if kind == fleet.RuntimeGVisor {
		// host-uds: the runner connects to the control socket. The network
		// is chosen per sandbox.
		c.args = []string{"--host-uds=open", "--oci-seccomp", "--platform=" + platform}
		if rootless {
			c.args = append(c.args, "--rootless", "--ignore-cgroups")
		}
	}
	return c
}

// command returns the go-runc client; log is a file, or empty.
func (c *cli) command(log string, open bool) *runc.Runc {
	r := &runc.Runc{Command: c.path, Root: c.root, ExtraArgs: c.args}
	if log != "" {
		r.Log, r.LogFormat = log, runc.JSON
	}
	if c.kind == fleet.RuntimeGVisor {
		network := "--network=none"
		if open {
			network = "--network=host"
		}
		r.ExtraArgs = append([]string{network}, c.args...)
	}
	return r
}

// run creates and starts a container and returns when its init runs. The
// container lives on by itself. Call it privately.
func (c *cli) run(ctx context.Context, b *bundle, io runc.IO) error {
	r := c.command(b.log, b.open)
	r.PdeathSignal = syscall.SIGKILL // no half-made container goes on without us
	r.Setpgid = true
	started := make(chan int, 1)
	_, err := r.Run(ctx, b.id, b.dir, &runc.CreateOpts{
		IO: io, PidFile: b.pidFile, Detach: true, NoNewKeyring: c.kind != fleet.RuntimeGVisor, Started: started,
	})
	if err != nil {
		endGroup(<-started)
		return fmt.Errorf("%s run: %w%s", filepath.Base(c.path), err, lastErrors(b.log))
	}
	return nil
}

// endGroup ends what a runtime that failed or was killed has left running in
// its process group: a child about to become the container, which would go on
// to make control groups and files while we remove them.
func endGroup(leader int) {
	if leader <= 0 {
		return // never started
	}
	for wait := time.Millisecond; wait < 500*time.Millisecond; wait *= 2 {
		if err := syscall.Kill(-leader, syscall.SIGKILL); err != nil {
			return // nobody is left
		}
		time.Sleep(wait)
	}
}

// remove deletes what the runtime knows of a container, killing it. Removing
// what it does not know succeeds. gone says that its processes and its control
// group are gone for certain: then runc and crun have nothing left but a
// directory, which is removed without starting them; and what gVisor cannot
// load, as its start was cut short, is removed by hand.
func (c *cli) remove(ctx context.Context, id string, gone bool) error {
	if !c.knows(id) {
		return nil
	}
	if gone && c.kind != fleet.RuntimeGVisor {
		return c.forget(id)
	}
	err := c.command("", false).Delete(ctx, id, &runc.DeleteOpts{Force: true})
	if err != nil && (!gone || ctx.Err() != nil) && c.knows(id) {
		return fmt.Errorf("%s delete: %w", filepath.Base(c.path), err)
	}
	return c.forget(id)
}

// knows reports whether the runtime keeps state of the container.
func (c *cli) knows(id string) bool {
	found, _ := filepath.Glob(filepath.Join(c.root, id+"*"))
	return len(found) > 0
}

// forget removes what is left of the runtime's state (gVisor leaves locks).
func (c *cli) forget(id string) error {
	found, _ := filepath.Glob(filepath.Join(c.root, id+"*"))
	for _, f := range found {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return nil
}

// lastErrors reads the end of a runtime's JSON log, for people.
func lastErrors(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	var out []string
	for line := range strings.Lines(string(text[max(0, len(text)-16<<10):])) {
		var e struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			out = append(out, e.Msg)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(out[max(0, len(out)-3):], "; ")
}
