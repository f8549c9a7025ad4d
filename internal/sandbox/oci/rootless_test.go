package oci_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

const (
	envRootless = "MUSTER_TEST_ROOTLESS_DIR"
	nobody      = 65534
)

// TestRootless runs the suite as a user without any rights, in a copy of this
// test program.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is needed to become another user")
	}
	runner, err := buildRunner()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "muster-rootless-") //nolint:usetesting // t.TempDir cannot be entered by others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	copyProgram(t, runner, filepath.Join(dir, "muster-runner"))
	copyProgram(t, "/proc/self/exe", filepath.Join(dir, "oci.test"))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		t.Run(string(r), func(t *testing.T) {
			needRuntime(t, r)
			cmd := exec.Command(filepath.Join(dir, "oci.test"), "-test.run=^TestAsNobody$/^"+string(r)+"$", "-test.v")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), envRootless+"="+dir, "HOME="+dir, "TMPDIR="+dir)
			if p := os.Getenv("MUSTER_RUNSC"); p != "" && r == fleet.RuntimeGVisor {
				reachable := filepath.Join(dir, "runsc") // a home directory keeps others out
				copyProgram(t, p, reachable)
				cmd.Env = append(cmd.Env, "MUSTER_RUNSC="+reachable)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "MACHINE CANNOT") {
				t.Skipf("this machine lets no user make sandboxes:\n%s", out)
			}
			if err != nil || !strings.Contains(string(out), "--- PASS: TestAsNobody/"+string(r)) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestAsNobody is run by TestRootless.
func TestAsNobody(t *testing.T) {
	dir := os.Getenv(envRootless)
	if dir == "" {
		t.Skip("run by TestRootless")
	}
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		t.Run(string(r), func(t *testing.T) {
			o := oci.Options{Dir: filepath.Join(dir, "sandboxes-"+string(r)), Runner: filepath.Join(dir, "muster-runner")}
			if p := os.Getenv("MUSTER_RUNSC"); p != "" {
				o.Runtimes = map[fleet.Runtime]string{fleet.RuntimeGVisor: p}
			}
			s := open(t, o)
			f := s.Try(t.Context(), r)
			if !f.Works {
				if err := exec.Command("unshare", "-Ur", "true").Run(); err != nil {
					t.Skipf("MACHINE CANNOT: unshare -Ur: %v", err)
				}
				if strings.Contains(f.Err.Error(), "hybrid mode not supported") {
					t.Skipf("MACHINE CANNOT: crun refuses both cgroup versions at once, and only root can hide one from it: %v", f.Err)
				}
				t.Fatal(f.Err)
			}
			t.Logf("%+v", f.Isolation)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			h := harness(o, r)
			if f.Isolation.Cgroups == "none" {
				h.Without = append(h.Without, sandboxtest.NoCgroups)
			}
			if f.Isolation.UID == 0 {
				h.Without = append(h.Without, sandboxtest.NoUserIDs)
			}
			if r == fleet.RuntimeGVisor {
				h.Without = append(h.Without, sandboxtest.NoDiskReading)
			}
			sandboxtest.Run(t, func(*testing.T) sandboxtest.Harness { return h })
		})
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
