//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/link"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "runner")
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

// memory is a sink that keeps stdout.
type memory struct {
	mu     sync.Mutex
	out    bytes.Buffer
	n      int64
	first  chan time.Time
	ended  chan struct{}
	report fleet.RunReport
	lost   error
}

func newMemory() *memory {
	return &memory{first: make(chan time.Time, 1), ended: make(chan struct{})}
}
func (m *memory) LogOffset() int64 { return 0 }
func (m *memory) Log(_ int64, _ time.Time, _ fleet.Stream, data []byte) error {
	select {
	case m.first <- time.Now():
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n += int64(len(data)); m.out.Len() < 1<<20 {
		m.out.Write(data)
	}
	return nil
}
func (m *memory) Phase(fleet.TaskState, time.Time) error { return nil }
func (m *memory) Patch(_ int64, r io.Reader) error       { _, err := io.Copy(io.Discard, r); return err }
func (m *memory) Artifact(_ fleet.Artifact, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
func (m *memory) Done(r fleet.RunReport) error { m.report = r; close(m.ended); return nil }
func (m *memory) Lost(err error)               { m.lost = err; close(m.ended) }

const agentID = 1000

// boxed is the real program, as pid 1 of its own namespaces where init is
// set, with the rights it has in a sandbox.
type boxed struct {
	t    testing.TB
	dir  string
	s    *link.Session
	cmd  *exec.Cmd
	done chan error
}

func launch(t testing.TB, init bool) *boxed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the runner changes its agent's user")
	}
	dir, err := os.MkdirTemp("", "box") //nolint:usetesting // t.TempDir is not open to the agent's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	for _, d := range []string{"workspace", "home"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, d), 0o755), os.Chown(filepath.Join(dir, d), agentID, agentID)); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(socket, 0o600)
	b := &boxed{t: t, dir: dir, s: link.Serve(l, link.Options{Token: "tok"}), done: make(chan error, 1)}
	b.cmd = exec.Command(binary)
	b.cmd.Env = []string{
		"MUSTER_SOCKET=" + socket, "MUSTER_TOKEN=tok", "MUSTER_UID=1000", "MUSTER_GID=1000",
		"MUSTER_HOME=" + filepath.Join(dir, "home"), "MUSTER_WORKSPACE=" + filepath.Join(dir, "workspace"),
	}
	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if init {
		b.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.done <- b.cmd.Wait() }()
	t.Cleanup(func() {
		_ = b.s.Close()
		_ = b.cmd.Process.Kill()
		select {
		case <-b.done:
		case <-time.After(10 * time.Second):
			t.Error("the runner cannot be killed")
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *boxed) claim(m *memory, command ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.s.Claim(ctx, fleet.Assignment{Task: "t1", Fence: 1, Command: command}, m); err != nil {
		b.t.Fatal(err)
	}
}

func (b *boxed) finish(m *memory) string {
	b.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(60 * time.Second):
		b.t.Fatal("the task does not end")
	}
	if m.lost != nil {
		b.t.Fatal(m.lost)
	}
	return m.out.String()
}

func status(text, field string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestAgentHasNoRights(t *testing.T) {
	for _, init := range []bool{true, false} {
		t.Run(fmt.Sprintf("init=%v", init), func(t *testing.T) {
			b := launch(t, init)
			m := newMemory()
			b.claim(m, "sh", "-c", "cat /proc/self/status; echo Adj: $(cat /proc/self/oom_score_adj); env; ls -l /proc/self/fd; "+
				"cat "+filepath.Join(b.dir, "control.sock")+" || echo refused; umask")
			out := b.finish(m)
			for field, want := range map[string]string{
				"Uid": "1000\t1000\t1000\t1000", "Gid": "1000\t1000\t1000\t1000", "Groups": "", "NoNewPrivs": "1", "Adj": "0",
				"CapInh": strings.Repeat("0", 16), "CapPrm": strings.Repeat("0", 16), "CapEff": strings.Repeat("0", 16),
				"CapBnd": strings.Repeat("0", 16), "CapAmb": strings.Repeat("0", 16),
			} {
				if got := status(out, field); got != want {
					t.Errorf("%s: %q, want %q", field, got, want)
				}
			}
			// Blocked and ignored signals would be inherited by accident.
			for _, f := range []string{"SigBlk", "SigIgn"} {
				if got := status(out, f); got != strings.Repeat("0", 16) {
					t.Errorf("%s: %s", f, got)
				}
			}
			if strings.Contains(out, "MUSTER_TOKEN") || strings.Contains(out, "MUSTER_SOCKET") || strings.Contains(out, "socket:[") {
				t.Errorf("something of the runner leaked: %s", out)
			}
			if !strings.Contains(out, "refused") {
				t.Error("the control socket is open to the agent")
			}
		})
	}
}

func TestRunnerCannotBeTouched(t *testing.T) {
	b := launch(t, false)
	m := newMemory()
	pid := strconv.Itoa(b.cmd.Process.Pid)
	b.claim(m, "sh", "-c", "kill -9 "+pid+" 2>&1; cat /proc/"+pid+"/environ /proc/"+pid+"/maps 2>&1; ls /proc/"+pid+"/fd 2>&1; true")
	out := b.finish(m)
	if n := strings.Count(strings.ToLower(out), "permi"); n < 4 {
		t.Errorf("%s", out)
	}
}

// children lists the live descendants of a process.
func children(pid int) []int {
	var list []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if f[1] == strconv.Itoa(pid) {
			c, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			list = append(append(list, c), children(c)...)
		}
	}
	return list
}

// TestNothingOutlivesTheTask: daemons that escaped their session, and zombies.
func TestNothingOutlivesTheTask(t *testing.T) {
	for _, init := range []bool{true, false} {
		t.Run(fmt.Sprintf("init=%v", init), func(t *testing.T) {
			b := launch(t, init)
			m := newMemory()
			script := `for i in 1 2 3 4 5; do setsid sh -c 'setsid sleep 1000 & exit 0' & done
				for i in $(seq 50); do (sh -c 'true' &) ; done; sleep 0.3; echo up; while [ ! -e go ]; do sleep 0.02; done`
			b.claim(m, "sh", "-c", script)
			<-m.first
			pid := b.cmd.Process.Pid
			if n := len(children(pid)); n < 6 {
				t.Errorf("%d processes; the test is not testing", n)
			}
			if out, _ := exec.Command("ps", "-o", "stat=", "--ppid", strconv.Itoa(pid)).Output(); strings.Contains(string(out), "Z") {
				t.Errorf("zombies: %s", out)
			}
			all := children(pid)
			if err := os.WriteFile(filepath.Join(b.dir, "workspace", "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			b.finish(m)
			select {
			case err := <-b.done:
				b.done <- err
				if err != nil {
					t.Errorf("the runner ended with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the runner does not exit after its report")
			}
			for _, c := range all {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c)); err == nil && !strings.Contains(string(b), ") Z") {
					t.Errorf("process %d is alive: %s", c, b)
				}
			}
		})
	}
}

func TestNotStartedByMuster(t *testing.T) {
	c := exec.Command(binary)
	c.Env = []string{}
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "started by muster") {
		t.Errorf("%v %s", err, out)
	}
}

// rss reads the resident sizes of a process, in KiB.
func rss(t testing.TB, pid int) (anon, file, tables, threads int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	num := func(field string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(status(string(b), field), " kB"))
		return n
	}
	return num("RssAnon"), num("RssFile"), num("VmPTE"), num("Threads")
}

func TestIdleMemory(t *testing.T) {
	b := launch(t, true)
	time.Sleep(300 * time.Millisecond)
	anon, file, tables, threads := rss(t, b.cmd.Process.Pid)
	t.Logf("idle: %d KiB anonymous, %d KiB of the program file (shared), %d KiB page tables, %d threads", anon, file, tables, threads)
	if anon > 1800 {
		t.Errorf("%d KiB anonymous memory while waiting", anon)
	}
}

// TestClaimLatency logs how long a warm claim takes to the first byte of the
// command; a bound far above guards against a lost wake-up only.
func TestClaimLatency(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	var all []time.Duration
	for range 15 {
		all = append(all, coldByte(launch(t, true)))
	}
	slices.Sort(all)
	t.Logf("claim to first byte: median %s, p95 %s", all[len(all)/2], all[len(all)*95/100])
	if all[len(all)/2] > 500*time.Millisecond {
		t.Error("that is no warm start")
	}
}

func coldByte(b *boxed) time.Duration {
	m := newMemory()
	begin := time.Now()
	b.claim(m, "/bin/echo", "x")
	first := <-m.first
	b.finish(m)
	return first.Sub(begin)
}

// BenchmarkClaimToFirstByte: one warm claim per sandbox, as in life.
func BenchmarkClaimToFirstByte(b *testing.B) {
	var total time.Duration
	for b.Loop() {
		total += coldByte(launch(b, true))
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/claim")
}

// BenchmarkLog: bytes from the agent's pipe to the sink.
func BenchmarkLog(b *testing.B) {
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		x := launch(b, true)
		m := newMemory()
		x.claim(m, "head", "-c", strconv.Itoa(size), "/dev/zero")
		x.finish(m)
		if m.n != size {
			b.Fatal(m.n)
		}
	}
}
