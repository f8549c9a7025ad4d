package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadInput: each mistake gets an error that names the field and what
// would be right, and loses nothing.
func TestBadInput(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	for _, c := range []struct {
		name, doc string
		want      []string
	}{
		{"unknown field", "kind: Task\napiVersion: muster.dev/v1alpha1\nspec: {comand: [ls]}", []string{"spec.comand", "command"}},
		{"memory", "kind: Task\napiVersion: muster.dev/v1alpha1\nspec: {command: [ls], resources: {memory: -1Gi}}", []string{"spec.resources.memory"}},
		{"cpus", "kind: Task\napiVersion: muster.dev/v1alpha1\nspec: {command: [ls], resources: {cpus: 4000}}", []string{"cpus"}},
		{"no command", "kind: Task\napiVersion: muster.dev/v1alpha1\nspec: {prompt: hi}", []string{"spec.command"}},
		{"template", "kind: Task\napiVersion: muster.dev/v1alpha1\nspec: {command: [ls], template: nope}", []string{"spec.template", "default"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, code := m.muster(c.doc, "submit", "-f", "-")
			if code == 0 {
				t.Fatalf("accepted: %s", out)
			}
			for _, w := range c.want {
				if !strings.Contains(errOut, w) {
					t.Errorf("the error does not say %q: %s", w, errOut)
				}
			}
		})
	}
	t.Run("missing image", func(t *testing.T) {
		_, errOut, code := m.muster("", "submit", "--wait", "--image", "/no/such/rootfs", "--timeout-queue", "20s", "--", "/bin/true")
		if code == 0 || !strings.Contains(errOut, "/no/such/rootfs") {
			t.Errorf("exit %d: %s", code, errOut)
		}
	})
	if out := m.must("submit", "--wait", "--follow", "--", "/bin/echo", "fine"); !strings.Contains(out, "fine") {
		t.Errorf("after all that a good task fails: %q", out)
	}
}

// TestBrokenPrepare: a template whose prepare fails opens its breaker, says
// why, and does not stop the others.
func TestBrokenPrepare(t *testing.T) {
	needSandboxes(t)
	broken := strings.Replace(smallFleet, "  capacity:", `    - name: broken
      runtime: runc
      image: host
      min: 1
      resources: {cpus: 1, memory: 256Mi, pids: 64, disk: 64Mi}
      prepare: ["echo the registry said no >&2; exit 4"]
  capacity:`, 1)
	m := newMachine(t, broken)
	m.start()
	if out := m.must("submit", "--wait", "--follow", "--", "/bin/echo", "fine"); !strings.Contains(out, "fine") {
		t.Fatalf("the sound template does not work: %q", out)
	}
	_, errOut, code := m.muster("", "submit", "--wait", "--template", "broken", "--timeout-queue", "5s", "--", "/bin/true")
	if code == 0 || !strings.Contains(errOut, "timeout_queue") && !strings.Contains(errOut, "prepare") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if out := m.must("fleet"); !strings.Contains(out, "breaker") {
		t.Errorf("muster fleet does not show the breaker:\n%s", out)
	}
	if out := m.must("events", "--limit", "1000"); !strings.Contains(out, "the registry said no") {
		t.Errorf("no event says why:\n%s", out)
	}
}

// TestPortInUse: the error names the address and what to do.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := exec.Command(filepath.Join(binDir, "muster"), "up", "--data", t.TempDir(),
		"--listen", l.Addr().String(), "--runner", filepath.Join(binDir, "muster-runner")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") || !strings.Contains(string(out), "--listen") {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestCorruptDatabase: refused with how to restore, never overwritten.
func TestCorruptDatabase(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	m.must("submit", "--wait", "--", "/bin/true")
	m.stop()
	db := filepath.Join(m.data, "muster.db")
	for _, f := range []string{db + "-wal", db + "-shm"} {
		_ = os.Remove(f)
	}
	junk := []byte(strings.Repeat("not a database ", 1000))
	if err := os.WriteFile(db, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(binDir, "muster"), "up", "--data", m.data, "--fleet", m.fleet,
		"--listen", "127.0.0.1:0", "--runner", filepath.Join(binDir, "muster-runner")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), db) || !strings.Contains(strings.ToLower(string(out)), "restore") {
		t.Fatalf("%v: %s", err, out)
	}
	if b, _ := os.ReadFile(db); string(b) != string(junk) {
		t.Error("the corrupt file was changed")
	}
	_ = os.Remove(db) // so that the clean-up can open the directory
}

// TestFullDisk: with the data directory on a full file system submission is
// refused, what was accepted stays, and all goes on once there is room.
func TestFullDisk(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	if err := os.MkdirAll(m.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", m.data).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small tmpfs: %s", out)
	}
	t.Cleanup(func() {
		m.stop()
		m.destroyAll()
		if out, err := exec.Command("umount", m.data).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	m.start()
	m.must("submit", "--wait", "--name", "before", "--", "/bin/true")
	fill := filepath.Join(m.data, "fill")
	_ = exec.Command("dd", "if=/dev/zero", "of="+fill, "bs=64k").Run()
	refused := false
	for i := range 3000 {
		code, err := m.api("POST", "/v1/tasks", map[string]any{"tasks": []any{map[string]any{
			"name": fmt.Sprintf("n%d", i), "command": []string{"/bin/true"}, "notBefore": "+1h",
			"prompt": strings.Repeat("x", 20000)}}}, nil)
		if code == 507 {
			refused = true
			break
		}
		if code != 201 {
			t.Fatalf("submit on a full disk: %d %v", code, err)
		}
	}
	if !refused {
		t.Fatal("a full disk never refused a submission")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	m.must("submit", "--wait", "--name", "after", "--", "/bin/true")
	out := m.must("tasks", "--state", "succeeded", "-o", "json")
	if !strings.Contains(out, `"before"`) || !strings.Contains(out, `"after"`) {
		t.Errorf("tasks were lost: %s", out)
	}
}
