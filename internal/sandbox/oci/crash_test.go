package oci_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

const (
	envCrash  = "MUSTER_TEST_CRASH_DIR"
	envRunner = "MUSTER_TEST_RUNNER"
)

// TestCrash kills a process that creates and destroys sandboxes, at a random
// moment, again and again. What it leaves must be adopted or removed without
// a trace, and what it had reported ready must be alive.
func TestCrash(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		o := options(t)
		before := sandboxtest.CountTraces(o.Dir)
		for range rounds {
			crash(t, o, r)
			ready := crashReady
			s := open(t, o)
			ids, err := s.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				rescue(t, s, r, id, slices.Contains(ready, id))
			}
			if ids, err := s.List(t.Context()); err != nil || len(ids) > 0 {
				t.Errorf("left: %v, %v", ids, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var after map[string]int
		for range 100 {
			if after = sandboxtest.CountTraces(o.Dir); fmt.Sprint(after) == fmt.Sprint(before) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("left behind: %v before, %v after", before, after)
	})
}

// rescue adopts what is alive, uses some of it, and destroys it.
func rescue(t *testing.T, s *oci.Sandboxes, r fleet.Runtime, id fleet.SandboxID, ready bool) {
	t.Helper()
	spec := newSpec(r)
	spec.ID = id
	_, _, alive, err := s.Adopt(t.Context(), spec)
	if err != nil {
		t.Errorf("adopt: %v", err)
	}
	if ready && !alive {
		t.Errorf("%s was ready before the crash and is dead after it", id)
	}
	if alive && rand.N(2) == 0 {
		sink := sandboxtest.NewRecorder()
		a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"true"}, LogBytes: 1 << 20}
		if err := s.Claim(t.Context(), id, a, sink); err != nil {
			t.Errorf("claim of the adopted: %v", err)
		} else {
			sink.Report(t)
		}
	}
	if err := s.Destroy(t.Context(), id); err != nil {
		t.Errorf("destroy: %v", err)
	}
}

// crashReady is what the last crashed process had said was ready and had not
// begun to destroy.
var crashReady []fleet.SandboxID

func crash(t *testing.T, o oci.Options, r fleet.Runtime) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestCrashing$")
	cmd.Env = append(os.Environ(), envCrash+"="+o.Dir, envRunner+"="+o.Runner, "MUSTER_TEST_RUNTIME="+string(r))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond+rand.N(700*time.Millisecond), func() { _ = cmd.Process.Kill() })
	crashReady = nil
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, id, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "ready":
			crashReady = append(crashReady, fleet.SandboxID(id))
		case "leaving":
			crashReady = slices.DeleteFunc(crashReady, func(x fleet.SandboxID) bool { return string(x) == id })
		case "error":
			t.Errorf("before the crash: %s", lines.Text())
		}
	}
	_ = cmd.Wait()
}

// TestCrashing is the process that TestCrash kills.
func TestCrashing(t *testing.T) {
	dir := os.Getenv(envCrash)
	if dir == "" {
		t.Skip("run by TestCrash")
	}
	r := fleet.Runtime(os.Getenv("MUSTER_TEST_RUNTIME"))
	o := oci.Options{Dir: dir, Runner: os.Getenv(envRunner)}
	if p := os.Getenv("MUSTER_RUNSC"); p != "" {
		o.Runtimes = map[fleet.Runtime]string{fleet.RuntimeGVisor: filepath.Clean(p)}
	}
	s := open(t, o)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				spec := newSpec(r)
				if _, err := s.Create(t.Context(), spec); err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println("ready", spec.ID)
				if rand.N(2) == 0 {
					continue
				}
				fmt.Println("leaving", spec.ID)
				if err := s.Destroy(t.Context(), spec.ID); err != nil {
					fmt.Println("error", err)
					return
				}
			}
		})
	}
	wg.Wait()
}
