package oci_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

// buildRunner builds the static runner once per test process.
var buildRunner = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muster-runner-")
	if err != nil {
		return "", err
	}
	runnerDir = dir
	path := filepath.Join(dir, "muster-runner")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "muster.dev/muster/cmd/muster-runner")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, os.Chmod(dir, 0o755)
})

var runnerDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if runnerDir != "" {
		_ = os.RemoveAll(runnerDir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// options are those of a fresh directory.
func options(t testing.TB) oci.Options {
	t.Helper()
	runner, err := buildRunner()
	if err != nil {
		t.Fatalf("build the runner: %v", err)
	}
	o := oci.Options{Dir: filepath.Join(t.TempDir(), "sandboxes"), Runner: runner, Logger: logger(t)}
	if p := os.Getenv("MUSTER_RUNSC"); p != "" {
		o.Runtimes = map[fleet.Runtime]string{fleet.RuntimeGVisor: p}
	}
	return o
}

// needRuntime skips where the runtime is not installed.
func needRuntime(t testing.TB, r fleet.Runtime) {
	t.Helper()
	name := map[fleet.Runtime]string{fleet.RuntimeGVisor: "runsc", fleet.RuntimeRunc: "runc", fleet.RuntimeCrun: "crun"}[r]
	if r == fleet.RuntimeGVisor && os.Getenv("MUSTER_RUNSC") != "" {
		return
	}
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (for runsc: $PATH or MUSTER_RUNSC)", name)
	}
}

// open opens the adapter and closes it at the end of the test.
func open(t testing.TB, o oci.Options) *oci.Sandboxes {
	t.Helper()
	s, err := oci.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root; without it see TestRootless")
	}
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		t.Run(string(r), func(t *testing.T) {
			needRuntime(t, r)
			o := options(t)
			sandboxtest.Run(t, func(*testing.T) sandboxtest.Harness { return harness(o, r) })
		})
	}
}

// harness is one directory for all tests: each must leave it as it was.
func harness(o oci.Options, r fleet.Runtime) sandboxtest.Harness {
	return sandboxtest.Harness{
		Open: func(t *testing.T) fleet.Sandboxes {
			s, err := oci.New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			return s // the suite closes it
		},
		Spec: fleet.SandboxSpec{Runtime: r, Image: fleet.ImageHost},
		Real: true,
		Kill: func(t *testing.T, s fleet.Sandboxes, id fleet.SandboxID) {
			pid, ok := s.(*oci.Sandboxes).InitPid(id)
			if !ok {
				t.Fatalf("no init of %s", id)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		Traces: func(*testing.T) map[string]int { return sandboxtest.CountTraces(o.Dir) },
	}
}

// logger tells a test's log what went wrong.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
