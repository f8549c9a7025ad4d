package e2e

import (
	"bytes"
	"context"
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
	dir, err := os.MkdirTemp("", "muster-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	for _, b := range []string{"muster", "muster-runner"} {
		c := exec.Command("go", "build", "-o", filepath.Join(dir, b), "muster.dev/muster/cmd/"+b)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build", b, err)
			return 1
		}
	}
	return m.Run()
}

// needSandboxes skips where no sandbox can be made, and says why.
func needSandboxes(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real sandboxes with limits need root; run as root to include this test")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed; `make test` installs it")
	}
}

// machine is one `muster up` on a data directory of its own; it may be
// killed and started again.
type machine struct {
	t      *testing.T
	data   string
	fleet  string
	extra  []string
	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan error
	log    *lockedBuffer
	base   string
	token  string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newMachine prepares a machine with the given fleet document; not started.
func newMachine(t *testing.T, fleet string, extra ...string) *machine {
	t.Helper()
	data := t.TempDir()
	f := filepath.Join(data, "test-fleet.yaml")
	if err := os.WriteFile(f, []byte(fleet), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, data: filepath.Join(data, "home"), fleet: f, extra: extra, log: &lockedBuffer{}}
	t.Cleanup(func() {
		m.stop()
		m.destroyAll()
		if t.Failed() {
			out := m.log.String()
			if len(out) > 20000 {
				out = "…" + out[len(out)-20000:]
			}
			t.Logf("muster up said:\n%s", out)
		}
	})
	return m
}

// start runs `muster up` and waits until it is ready.
func (m *machine) start() {
	m.t.Helper()
	_ = os.Remove(filepath.Join(m.data, "address"))
	args := append([]string{"up", "--data", m.data, "--fleet", m.fleet, "--listen", "127.0.0.1:0",
		"--runner", filepath.Join(binDir, "muster-runner")}, m.extra...)
	cmd := exec.Command(filepath.Join(binDir, "muster"), args...)
	cmd.Stdout, cmd.Stderr = m.log, m.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	m.mu.Lock()
	m.cmd, m.exited = cmd, exited
	m.mu.Unlock()
	m.waitReady()
}

func (m *machine) waitReady() {
	m.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case err := <-m.exited:
			m.exited <- err
			m.t.Fatalf("muster up ended while starting: %v\n%s", err, m.log.String())
		default:
		}
		addr, err1 := os.ReadFile(filepath.Join(m.data, "address"))
		tok, err2 := os.ReadFile(filepath.Join(m.data, "token"))
		if err1 == nil && err2 == nil {
			m.base, m.token = strings.TrimSpace(string(addr)), strings.TrimSpace(string(tok))
			if r, err := http.Get(m.base + "/readyz"); err == nil {
				r.Body.Close()
				if r.StatusCode == 200 {
					return
				}
			}
		}
		time.Sleep(10 * time.Millisecond) // the real process is waited for; there is no clock to fake
	}
	m.t.Fatalf("muster up was not ready within 60 s:\n%s", m.log.String())
}

// kill ends the control plane with SIGKILL.
func (m *machine) kill() {
	m.mu.Lock()
	cmd, exited := m.cmd, m.exited
	m.cmd = nil
	m.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-exited
}

// stop ends the control plane as Ctrl-C does.
func (m *machine) stop() {
	m.mu.Lock()
	cmd, exited := m.cmd, m.exited
	m.cmd = nil
	m.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-exited:
	case <-time.After(2 * time.Minute):
		m.t.Errorf("muster up did not stop within 2 minutes of SIGINT")
		_ = cmd.Process.Kill()
		<-exited
	}
}

// destroyAll removes sandboxes left on purpose (busy ones survive a stop).
func (m *machine) destroyAll() {
	out, err := exec.Command(filepath.Join(binDir, "muster"), "down", "--data", m.data).CombinedOutput()
	if err != nil {
		m.t.Errorf("muster down: %v: %s", err, out)
	}
}

// muster runs the command line against this machine.
func (m *machine) muster(stdin string, args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "muster"), args...)
	cmd.Env = append(os.Environ(), "MUSTER_HOME="+m.data)
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		m.t.Fatalf("muster %v: %v", args, err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// must runs the command line and fails the test unless it exits 0.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	o, e, code := m.muster("", args...)
	if code != 0 {
		m.t.Fatalf("muster %v: exit %d\n%s%s", args, code, o, e)
	}
	return o
}

// api does one HTTP request and decodes the answer into out.
func (m *machine) api(method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, m.base+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+m.token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return r.StatusCode, err
	}
	if out != nil && r.StatusCode < 300 {
		return r.StatusCode, json.Unmarshal(b, out)
	}
	if r.StatusCode >= 300 {
		return r.StatusCode, fmt.Errorf("%s %s: %s", method, path, b)
	}
	return r.StatusCode, nil
}

// traces lists what this machine has on the host: mounts, loop devices,
// cgroups, sandbox directories and processes.
func (m *machine) traces() []string {
	var out []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, l := range strings.Split(string(mounts), "\n") {
		if strings.Contains(l, m.data) {
			out = append(out, "mount: "+l)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if b, err := os.ReadFile(l); err == nil && strings.Contains(string(b), m.data) {
			out = append(out, "loop: "+strings.TrimSpace(string(b)))
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(m.data, "sandboxes", "s*"))
	for _, d := range dirs {
		id := filepath.Base(d)
		if len(id) == 21 {
			out = append(out, "dir: "+d)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(b), m.data) && !strings.Contains(string(b), "\x00up\x00") {
			out = append(out, "process: "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}
