//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/link"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		panic(err)
	}
	_ = os.Chmod(dir, 0o755)
	binary = filepath.Join(dir, "muster-runner")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		panic(fmt.Sprint(err, string(out)))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// lines is a sink that keeps the log.
type lines struct {
	mu     sync.Mutex
	out    bytes.Buffer
	ended  chan struct{}
	report fleet.RunReport
	lost   error
}

func (s *lines) LogOffset() int64 { return 0 }
func (s *lines) Log(_ int64, _ time.Time, _ fleet.Stream, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Write(data)
	return nil
}
func (s *lines) Phase(fleet.TaskState, time.Time) error       { return nil }
func (s *lines) Patch(_ int64, r io.Reader) error             { _, err := io.Copy(io.Discard, r); return err }
func (s *lines) Artifact(_ fleet.Artifact, r io.Reader) error { return s.Patch(0, r) }
func (s *lines) Done(r fleet.RunReport) error                 { s.report = r; close(s.ended); return nil }
func (s *lines) Lost(err error)                               { s.lost = err; close(s.ended) }

const (
	agentID = 1000
	token   = "header.claims.signature"
)

// pod is the real program as a pod has it: installed by an init container,
// first process of its namespace, without a right and with one user.
type pod struct {
	t      *testing.T
	run    string // where the init container put program and token
	work   string
	l      *gateway.Listener
	s      *link.Session
	server *http.Server
	cmd    *exec.Cmd
	env    []string
	stderr bytes.Buffer
	ended  chan error
}

func newPod(t *testing.T) *pod {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a namespace for the runner to be the first process of")
	}
	dir, err := os.MkdirTemp("", "pod") //nolint:usetesting // t.TempDir is not open to the agent's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	p := &pod{t: t, run: filepath.Join(dir, "run"), work: filepath.Join(dir, "work"), l: gateway.NewListener(), ended: make(chan error, 1)}
	for _, d := range []string{p.run, p.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Chown(d, agentID, agentID)
	}
	p.serve()
	source := filepath.Join(dir, "projected")
	if err := os.WriteFile(source, []byte(token+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	init := exec.Command(binary, "install", p.run)
	init.Env = []string{"MUSTER_TOKEN_FILE=" + source}
	init.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: agentID, Gid: agentID}}
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	return p
}

func (p *pod) serve() {
	p.t.Helper()
	lend := httptest.NewUnstartedServer(http.NotFoundHandler())
	lend.StartTLS()
	cert, root := lend.TLS.Certificates[0], lend.Certificate().Raw
	lend.Close()
	g := gateway.New(gateway.Options{
		Key: make([]byte, 32),
		Verify: func(_ context.Context, given string) (gateway.Identity, error) {
			if given != token {
				return gateway.Identity{}, fleet.ErrDenied
			}
			return gateway.Identity{Namespace: "n", Pod: "p", UID: "u"}, nil
		},
		Peers: func(context.Context, gateway.Identity) (gateway.Peer, error) { return p, nil },
	})
	p.s = link.Serve(p.l, link.Options{Token: g.Session("u")})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = g.Server(&tls.Config{Certificates: []tls.Certificate{cert}})
	served := make(chan error, 1)
	go func() { served <- p.server.ServeTLS(l, "", "") }()
	p.t.Cleanup(func() {
		_ = p.s.Close()
		_ = p.server.Close()
		<-served
	})
	p.env = []string{
		"MUSTER_GATEWAY=https://" + l.Addr().String(),
		"MUSTER_CA=" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})),
		"MUSTER_IDENTITY=" + filepath.Join(p.run, "token"), "MUSTER_SAME_UID=1",
		"MUSTER_HOME=" + p.work, "MUSTER_WORKSPACE=" + p.work,
	}
}

func (p *pod) Link(c net.Conn) error { return p.l.Deliver(c) }
func (p *pod) Egress(net.Conn) error { return fleet.ErrDenied }

func (p *pod) start() {
	p.t.Helper()
	p.cmd = exec.Command(filepath.Join(p.run, "muster-runner"))
	p.cmd.Env, p.cmd.Stderr = p.env, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Credential: &syscall.Credential{Uid: agentID, Gid: agentID}}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			p.t.Error("the runner cannot be killed")
		}
	})
}

func (p *pod) claim(command ...string) (*lines, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.s.Ready(ctx); err != nil {
		p.t.Fatal(err)
	}
	s := &lines{ended: make(chan struct{})}
	if err := p.s.Claim(ctx, fleet.Assignment{Task: "t1", Fence: 1, Command: command}, s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		p.t.Fatal("the task did not end")
	}
	if s.lost != nil {
		p.t.Fatal(s.lost)
	}
	return s, s.out.String()
}

// TestOneUser: the agent has the runner's user, and still gets nothing of it.
func TestOneUser(t *testing.T) {
	p := newPod(t)
	for name, mode := range map[string]os.FileMode{"muster-runner": 0o555, "token": 0o400} {
		if st, err := os.Stat(filepath.Join(p.run, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	p.start()
	pid := strconv.Itoa(p.cmd.Process.Pid)
	s, out := p.claim("sh", "-c", "echo uid $(id -u); grep -E 'NoNewPrivs|CapPrm' /proc/self/status; env; ls -la /proc/self/fd; ls "+p.run+
		"; for f in environ maps mem; do head -c 1 /proc/"+pid+"/$f >/dev/null 2>&1 && echo readable $f; done; ls /proc/"+pid+"/fd >/dev/null 2>&1 && echo readable fd"+
		"; kill -9 1; kill -TERM 1; kill -STOP 1; echo alive")
	if s.report.Reason != fleet.ReasonNone {
		t.Errorf("%+v", s.report)
	}
	if !regexp.MustCompile(`NoNewPrivs:\s+1`).MatchString(out) || !regexp.MustCompile(`CapPrm:\s+0{16}`).MatchString(out) ||
		!strings.Contains(out, "uid 1000") || !strings.Contains(out, "alive") {
		t.Errorf("%s", out)
	}
	for _, bad := range []string{"readable", "MUSTER_GATEWAY", "MUSTER_CA", "socket:[", "token", "header.claims"} {
		if strings.Contains(out, bad) {
			t.Errorf("the agent saw %q: %s", bad, out)
		}
	}
	if lost := strings.Join(p.s.Lost(), "; "); !strings.Contains(lost, "share one user id") {
		t.Errorf("lost: %q", lost)
	}
	select {
	case err := <-p.ended:
		p.ended <- err
		if err != nil {
			t.Errorf("the runner ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the runner does not exit after its report")
	}
}

// TestIdentityIsRefused: nothing to wait for.
func TestIdentityIsRefused(t *testing.T) {
	p := newPod(t)
	if err := os.Chmod(filepath.Join(p.run, "token"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.run, "token"), []byte("stolen.from.another"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	select {
	case err := <-p.ended:
		p.ended <- err
		if err == nil || !strings.Contains(p.stderr.String(), "identity of this sandbox is not valid") {
			t.Errorf("%v: %s", err, p.stderr.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the runner goes on")
	}
	if _, err := os.Stat(filepath.Join(p.run, "token")); !os.IsNotExist(err) {
		t.Errorf("the identity is there still: %v", err)
	}
}

func TestNotStartedByMuster(t *testing.T) {
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, nil, "MUSTER_IDENTITY"},
		{[]string{"MUSTER_IDENTITY=/nowhere/token"}, nil, "no such file"},
		{[]string{"MUSTER_TOKEN_FILE=/dev/null"}, []string{"install", t.TempDir()}, "has 0 bytes"},
		{nil, []string{"install", "/nowhere"}, "no such file"},
	} {
		cmd := exec.Command(binary, c.args...)
		cmd.Env = append([]string{"X=1"}, c.env...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v %v: %v %s", c.env, c.args, err, out)
		}
	}
}

// TestIdleMemory says what a sandbox in a pod costs while it waits.
func TestIdleMemory(t *testing.T) {
	p := newPod(t)
	p.start()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s", b)
	}
	anon, _ := strconv.Atoi(string(m[1]))
	t.Logf("idle: %d KiB anonymous", anon)
	if anon > 4096 {
		t.Errorf("%d KiB anonymous memory while waiting", anon)
	}
}
