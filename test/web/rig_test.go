package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muster-web-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	return m.Run()
}

// program builds a program of Muster's and returns where it is.
func program(t testing.TB, pkg string) string {
	t.Helper()
	at := filepath.Join(binDir, filepath.Base(pkg))
	if _, err := os.Stat(at); err == nil {
		return at
	}
	c := exec.Command("go", "build", "-o", at, "./"+pkg)
	c.Dir = filepath.Join("..", "..")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
	return at
}

// browserPath finds Chromium.
func browserPath() (string, error) {
	if p := os.Getenv("MUSTER_CHROMIUM"); p != "" {
		return p, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errors.New("chromium is not installed; `make test` installs it")
}

const fleetYAML = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: looked-at}
spec:
  templates:
    - name: default
      resources: {cpus: 100m, memory: 64Mi, pids: 64, disk: 32Mi}
  capacity:
    sandboxes: {min: 2, max: 6}
  cost: {nodeHourUSD: 0.40}
`

// machine is a `muster up` with real sandboxes.
type machine struct {
	t     *testing.T
	data  string
	fleet string
	base  string
	token string
	log   *journal
	cmd   *exec.Cmd
}

// journal is what a process says.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *journal) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real sandboxes with limits need root; run as root to include this test")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed; `make test` installs it")
	}
	program(t, "cmd/muster")
	program(t, "cmd/muster-runner")
	dir := t.TempDir()
	m := &machine{t: t, data: filepath.Join(dir, "home"), log: &journal{}, fleet: filepath.Join(dir, "fleet.yaml")}
	if err := os.WriteFile(m.fleet, []byte(fleetYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	m.start()
	return m
}

// start starts it; a second time at the same address.
func (m *machine) start() {
	m.t.Helper()
	listen := "127.0.0.1:0"
	if m.base != "" {
		listen = strings.TrimPrefix(m.base, "http://")
	}
	_ = os.Remove(filepath.Join(m.data, "address"))
	m.cmd = exec.Command(filepath.Join(binDir, "muster"), "up", "--data", m.data, "--fleet", m.fleet, "--listen", listen, "--on-stop", "cancel")
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.waitReady()
}

func (m *machine) waitReady() {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		addr, err1 := os.ReadFile(filepath.Join(m.data, "address"))
		token, err2 := os.ReadFile(filepath.Join(m.data, "token"))
		if err1 != nil || err2 != nil {
			continue
		}
		m.base, m.token = strings.TrimSpace(string(addr)), strings.TrimSpace(string(token))
		if r, err := http.Get(m.base + "/readyz"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
	}
	m.t.Fatalf("muster up was not ready within a minute:\n%s", m.log)
}

func (m *machine) stop() {
	if m.cmd == nil {
		return
	}
	defer func() { m.cmd = nil }()
	_ = m.cmd.Process.Signal(syscall.SIGINT)
	done := make(chan error, 1)
	go func() { done <- m.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(40 * time.Second):
		m.t.Error("muster up did not stop within 40 s")
		_ = m.cmd.Process.Kill()
		<-done
	}
}

func (m *machine) end() {
	m.stop()
	if out, err := exec.Command(filepath.Join(binDir, "muster"), "down", "--data", m.data).CombinedOutput(); err != nil {
		m.t.Errorf("muster down: %v: %s", err, out)
	}
	if m.t.Failed() {
		m.t.Logf("muster up said:\n%s", m.log)
	}
}

// api asks with the token, as programs do.
func (m *machine) api(method, path string, in, out any) {
	m.t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	req, err := http.NewRequest(method, m.base+path, bytes.NewReader(raw))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		m.t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			m.t.Fatal(err)
		}
	}
}

// submit submits one task and returns its id.
func (m *machine) submit(name, script string) string {
	m.t.Helper()
	var out struct{ Tasks []struct{ ID string } }
	m.api("POST", "/v1/tasks", map[string]any{"tasks": []any{map[string]any{
		"name": name, "labels": map[string]string{"team": "web"}, "command": []string{"sh", "-c", script},
	}}}, &out)
	return out.Tasks[0].ID
}
