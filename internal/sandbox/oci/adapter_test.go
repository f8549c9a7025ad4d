package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

// eachRuntime runs a test with every runtime that is here.
func eachRuntime(t *testing.T, f func(t *testing.T, r fleet.Runtime)) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		t.Run(string(r), func(t *testing.T) {
			needRuntime(t, r)
			if testing.Short() && r != fleet.RuntimeRunc {
				t.Skip("short: runc stands for the others")
			}
			f(t, r)
		})
	}
}

func newSpec(r fleet.Runtime) fleet.SandboxSpec {
	return fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Runtime: r, Image: fleet.ImageHost, Startup: 30 * time.Second,
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 256 << 20, Pids: 128, DiskBytes: 64 << 20, Files: 1024, LogBytes: 1 << 20},
		Network:   fleet.Network{Mode: fleet.NetworkNone},
	}
}

// run creates the sandbox, runs the command and destroys it.
func run(t *testing.T, s *oci.Sandboxes, spec fleet.SandboxSpec, command ...string) (fleet.Isolation, *sandboxtest.Recorder) {
	t.Helper()
	iso, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(context.Background(), spec.ID); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	r := sandboxtest.NewRecorder()
	a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: command, LogBytes: 1 << 20}
	if err := s.Claim(t.Context(), spec.ID, a, r); err != nil {
		t.Fatalf("claim: %v", err)
	}
	r.Wait(t)
	return iso, r
}

// layers is an image cache of one image.
type layers oci.Image

func (l layers) Resolve(_ context.Context, ref string) (oci.Image, error) {
	if ref != "test" {
		return oci.Image{}, &fleet.ReasonError{Reason: fleet.ReasonImage, Err: fmt.Errorf("image %s: not there", ref)}
	}
	return oci.Image(l), nil
}

// smallImage makes two layers of a few programs with their libraries.
func smallImage(t *testing.T) oci.Image {
	t.Helper()
	base, top := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "top")
	for _, name := range []string{"sh", "cat", "ls", "id", "stat", "touch", "echo", "env"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		addFile(t, filepath.Join(base, "bin", name), path)
		out, _ := exec.Command("ldd", path).Output()
		for _, f := range strings.Fields(string(out)) {
			if filepath.IsAbs(f) {
				addFile(t, filepath.Join(base, f), f)
			}
		}
	}
	for path, text := range map[string]string{
		base + "/etc/passwd": "root:x:0:0::/:/bin/sh\nmail:x:8:8::/:/bin/sh\n",
		base + "/opt/which":  "base", top + "/opt/which": "top", base + "/opt/below": "below",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(base+"/opt/below", 8, 8); err != nil {
		t.Fatal(err)
	}
	return oci.Image{Digest: "sha256:test" + t.Name(), Lower: []string{top, base}, Env: []string{"FROM_IMAGE=yes", "PATH=/bin"}}
}

func addFile(t *testing.T, to, from string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, from, to)
}

func TestImageOfLayers(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		o := options(t)
		o.Images = layers(smallImage(t))
		s := open(t, o)
		spec := newSpec(r)
		spec.Image = "test"
		iso, rec := run(t, s, spec, "sh", "-c",
			`cat /opt/which /opt/below /etc/passwd; stat -c ' owner %u' /opt/below; echo $FROM_IMAGE; id -un; touch /opt/x /bin/x; ls -a /usr`)
		text := rec.Text()
		for _, want := range []string{"topbelow", "mail:x:8", "agent:x:1000", "owner 8\n", "yes\n", "agent\n", "cannot touch '/opt/x'", "cannot touch '/bin/x'"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
		if !iso.ReadOnlyRoot || iso.UID != 1000 {
			t.Errorf("isolation %+v", iso)
		}
		spec = newSpec(r)
		spec.Image = "absent"
		_, err := s.Create(t.Context(), spec)
		var re *fleet.ReasonError
		if !errors.As(err, &re) || re.Reason != fleet.ReasonImage {
			t.Errorf("create with an absent image: %v", err)
		}
	})
}

func TestMountsAreReadOnly(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "tool"), []byte("a tool\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		s := open(t, options(t))
		spec := newSpec(r)
		spec.Mounts = []fleet.Mount{{Source: dir, Target: "/opt/tools"}, {Source: filepath.Join(dir, "tool"), Target: "/opt/one"}}
		_, rec := run(t, s, spec, "sh", "-c", "cat /opt/tools/tool /opt/one; touch /opt/tools/x")
		if text := rec.Text(); strings.Count(text, "a tool\n") != 2 || !strings.Contains(text, "Read-only") {
			t.Errorf("log %q", text)
		}
		for _, bad := range []fleet.Mount{{Source: "x", Target: "/opt/x"}, {Source: "/", Target: "/"}, {Source: "/tmp", Target: "/run/muster/x"}, {Source: "/tmp", Target: "/proc/../proc"}} {
			spec = newSpec(r)
			spec.Mounts = []fleet.Mount{bad}
			if _, err := s.Create(t.Context(), spec); !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("mount %+v: %v", bad, err)
			}
		}
	})
}

// TestNetworks reaches a server of our own on the host's loopback: not at all
// in mode none, by name through the proxy, directly in mode open.
func TestNetworks(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the server") }))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	url := "http://localhost:" + port
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		s := open(t, options(t))
		for _, c := range []struct {
			name    string
			network fleet.Network
			want    string
		}{
			{"none", fleet.Network{Mode: fleet.NetworkNone}, "curl: (7)"},
			{"open", fleet.Network{Mode: fleet.NetworkOpen}, "the server"},
			{"proxy", fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"localhost:" + port}, AllowPrivate: []string{"localhost", "127.0.0.1", "::1"}}, "the server"},
			{"proxy refuses", fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"example.org"}}, "network.allow"},
		} {
			t.Run(c.name, func(t *testing.T) {
				spec := newSpec(r)
				spec.Network = c.network
				script := "curl -sS -m 10 " + url
				if c.network.Mode == fleet.NetworkProxy {
					script = "NO_PROXY= no_proxy= " + script
				}
				iso, rec := run(t, s, spec, "sh", "-c", script)
				if !strings.Contains(rec.Text(), c.want) {
					t.Errorf("log %q", rec.Text())
				}
				if iso.Network != c.network.Mode {
					t.Errorf("network %q", iso.Network)
				}
			})
		}
	})
}

func TestAutoPicksWhatWorks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	needRuntime(t, fleet.RuntimeRunc)
	o := options(t)
	broken := filepath.Join(t.TempDir(), "runsc")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.Runtimes = map[fleet.Runtime]string{fleet.RuntimeGVisor: broken}
	s := open(t, o)
	iso, _ := run(t, s, newSpec(fleet.RuntimeAuto), "true")
	if iso.Runtime != fleet.RuntimeRunc || !strings.Contains(strings.Join(iso.Lost, "\n"), "auto did not take gvisor") {
		t.Errorf("isolation %+v", iso)
	}
	spec := newSpec("docker")
	if _, err := s.Create(t.Context(), spec); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("unknown runtime: %v", err)
	}
	spec = newSpec(fleet.RuntimeGVisor)
	if _, err := s.Create(t.Context(), spec); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("broken runtime: %v", err)
	}
	if ids, err := s.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("list %v, %v", ids, err)
	}
}

func TestProbe(t *testing.T) {
	found, err := oci.Probe(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 3 {
		t.Fatalf("%d findings", len(found))
	}
	for _, f := range found {
		if f.Works != (f.Err == nil) || f.Works != (f.Isolation.Runtime == f.Runtime) {
			t.Errorf("%+v", f)
		}
	}
}

// TestStartupTimeout gives a prepare command too little time.
func TestStartupTimeout(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	needRuntime(t, fleet.RuntimeRunc)
	s := open(t, options(t))
	spec := newSpec(fleet.RuntimeRunc)
	spec.Startup, spec.Prepare = 1500*time.Millisecond, []string{"sleep 60"}
	_, err := s.Create(t.Context(), spec)
	var re *fleet.ReasonError
	if !errors.As(err, &re) || re.Reason != fleet.ReasonTimeoutStartup {
		t.Errorf("create: %v", err)
	}
	if ids, err := s.List(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

// TestExecTerminal runs a shell on a terminal.
func TestExecTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		s := open(t, options(t))
		spec := newSpec(r)
		if _, err := s.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		defer s.Destroy(context.Background(), spec.ID)
		var out bytes.Buffer
		code, err := s.Exec(t.Context(), spec.ID, fleet.ExecRequest{
			Command: []string{"sh", "-c", "test -t 0 && stty size"}, TTY: true, Rows: 33, Cols: 77, Stdout: &out,
		})
		if err != nil || code != 0 || !strings.Contains(out.String(), "33 77") {
			t.Errorf("%d, %v, %q", code, err, out.String())
		}
	})
}

// TestMemoryVolume bounds the disk where there are no loop devices.
func TestMemoryVolume(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		s := open(t, options(t))
		s.UseMemoryVolumes()
		spec := newSpec(r)
		spec.Resources.DiskBytes = 16 << 20
		iso, rec := run(t, s, spec, "sh", "-c", "dd if=/dev/zero of=/workspace/big bs=1M count=64")
		if got := rec.Reason(t); got != fleet.ReasonDisk || !strings.Contains(rec.Text(), "No space left") {
			t.Errorf("reason %q, log %q", got, rec.Text())
		}
		if iso.Volume != "tmpfs" || !strings.Contains(strings.Join(iso.Lost, "\n"), "counts against memory") {
			t.Errorf("isolation %+v", iso)
		}
	})
}

// TestProxyOutlivesARestart uses the proxy before and after the control plane
// was away.
func TestProxyOutlivesARestart(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the server") }))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	eachRuntime(t, func(t *testing.T, r fleet.Runtime) {
		o := options(t)
		spec := newSpec(r)
		spec.Network = fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"localhost:" + port}, AllowPrivate: []string{"localhost", "127.0.0.1", "::1"}}
		first := open(t, o)
		if _, err := first.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		s := open(t, o)
		defer s.Destroy(context.Background(), spec.ID)
		if _, _, alive, err := s.Adopt(t.Context(), spec); err != nil || !alive {
			t.Fatalf("adopt: %v, %v", alive, err)
		}
		rec := sandboxtest.NewRecorder()
		a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, LogBytes: 1 << 20,
			Command: []string{"sh", "-c", "NO_PROXY= no_proxy= curl -sS -m 10 http://localhost:" + port}}
		if err := s.Claim(t.Context(), spec.ID, a, rec); err != nil {
			t.Fatal(err)
		}
		rec.Wait(t)
		if !strings.Contains(rec.Text(), "the server") {
			t.Errorf("log %q", rec.Text())
		}
		if u, err := s.Usage(t.Context(), spec.ID); err != nil || u.NetReceivedBytes == 0 {
			t.Errorf("usage %+v, %v", u, err)
		}
	})
}
