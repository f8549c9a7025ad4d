package servers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a server of a test's own.
type Process struct {
	t       testing.TB
	program string
	args    []string
	env     []string
	user    *syscall.Credential // nil: ours
	ready   func() error
	stop    syscall.Signal

	cmd  *exec.Cmd
	out  *tail
	done chan struct{}
}

// Setup describes a server to be started.
type Setup struct {
	Program string // as found by Program
	Args    []string
	Env     []string            // added to ours
	User    *syscall.Credential // nil: our own
	Ready   func() error        // nil once the server answers
	Stop    syscall.Signal      // what ends it in order; 0: SIGTERM
}

// patience is how long a server may take until it is ready. One that ends is
// noticed at once, so that this is only for machines that are busy.
const patience = 3 * time.Minute

// Start starts a server, waits until it is ready, and ends it with the test.
func Start(t testing.TB, s Setup) *Process {
	t.Helper()
	p := &Process{t: t, program: s.Program, args: s.Args, env: s.Env, user: s.User, ready: s.Ready, stop: s.Stop}
	if p.stop == 0 {
		p.stop = syscall.SIGTERM
	}
	t.Cleanup(p.Kill)
	p.Start()
	return p
}

// Start starts the server again after Stop or Kill.
func (p *Process) Start() {
	p.t.Helper()
	p.out = &tail{}
	p.cmd = exec.Command(p.program, p.args...) //nolint:gosec // a server found by Program
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// A group of its own, so that all of a server ends with it; and it ends
	// should the test be killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.user, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.program, err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait() // how it ended is told by what the tests see of it
		close(done)
	}(p.cmd, p.done)
	deadline := time.Now().Add(patience)
	for {
		err := p.ready()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended at once; it said:\n%s", filepath.Base(p.program), p.out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.Kill()
			p.t.Fatalf("%s is not ready after %s: %v; it said:\n%s", filepath.Base(p.program), patience, err, p.out)
		}
	}
}

// Stop ends the server in order, as an upgrade would.
func (p *Process) Stop() {
	p.t.Helper()
	p.end(p.stop, time.Minute)
}

// Kill ends the server at once, as a crash would.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 10*time.Second) }

func (p *Process) end(s syscall.Signal, patient time.Duration) {
	if p.done == nil {
		return
	}
	group := -p.cmd.Process.Pid
	if s != syscall.SIGKILL {
		_ = syscall.Kill(p.cmd.Process.Pid, s)
		select {
		case <-p.done:
		case <-time.After(patient):
			p.t.Errorf("%s does not end; killing it", p.program)
		}
	}
	if err := syscall.Kill(group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Errorf("kill %s: %v", p.program, err)
	}
	<-p.done
}

// Freeze stops the server from answering, without ending its connections, as a
// lost network does; the function returned lets it go on.
func (p *Process) Freeze() (thaw func()) {
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(-pid, syscall.SIGSTOP)
	// A thread that runs on another processor goes on for a moment.
	for end := time.Now().Add(2 * time.Second); !stopped(pid) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return sync.OnceFunc(func() { _ = syscall.Kill(-pid, syscall.SIGCONT) })
}

// stopped tells whether every thread of a process group stands still; see
// proc_pid_stat(5) for the fields.
func stopped(group int) bool {
	threads, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := bytes.Cut(b, []byte(") ")) // the name before may hold anything
		f := bytes.Fields(rest)
		if len(f) > 2 && string(f[2]) == strconv.Itoa(group) && !bytes.Contains([]byte("TtZX"), f[0]) {
			return false
		}
	}
	return true
}

// Output is the end of what the server wrote.
func (p *Process) Output() string { return p.out.String() }

// Program finds a server's program on PATH and where Debian puts such; the test
// is skipped without it, or fails where CI is set.
func Program(t testing.TB, name string, more ...string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, pattern := range append(more, "/usr/sbin", "/usr/local/sbin") {
		found, _ := filepath.Glob(filepath.Join(pattern, name))
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed; make test installs it", name)
	}
	t.Skipf("%s is not installed; make test installs it", name)
	return ""
}

// Port returns a free loopback port. It was free a moment ago: a server that
// can choose its own (port 0) should.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Address is a loopback address with the port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Dial is a Setup.Ready that is content once the address takes connections.
func Dial(address string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return fmt.Errorf("not listening yet: %w", err)
		}
		return c.Close()
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	if over := w.b.Len() - 64<<10; over > 0 {
		w.b.Next(over)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}
