//go:build linux

package runner_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner"
)

func TestExec(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	var out, errs bytes.Buffer
	run := func(r fleet.ExecRequest) (int, error) {
		t.Helper()
		out.Reset()
		errs.Reset()
		r.Stdout, r.Stderr = &out, &errs
		return b.s.Exec(wait(t), r)
	}
	code, err := run(fleet.ExecRequest{Command: []string{"sh", "-c", "echo out; echo err >&2; exit 4"}})
	if code != 4 || err != nil || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("%d %v %q %q", code, err, &out, &errs)
	}
	code, err = run(fleet.ExecRequest{Command: []string{"sh", "-c", "kill -9 $$"}})
	if code != 137 || err != nil {
		t.Errorf("%d %v", code, err)
	}
	code, err = run(fleet.ExecRequest{Command: []string{"no-such"}})
	if code != 127 || err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("%d %v", code, err)
	}
	big := strings.Repeat("0123456789abcdef", 200000)
	code, err = run(fleet.ExecRequest{Command: []string{"cat"}, Stdin: strings.NewReader(big)})
	if code != 0 || err != nil || out.String() != big {
		t.Errorf("%d %v %d bytes", code, err, out.Len())
	}
	// One that never reads what it is given.
	code, err = run(fleet.ExecRequest{Command: []string{"sleep", "0.2"}, Stdin: strings.NewReader(big)})
	if code != 0 || err != nil {
		t.Errorf("%d %v", code, err)
	}
	code, err = run(fleet.ExecRequest{Command: []string{"sh", "-c", "echo $A; sleep 100 & echo bye"}, Env: map[string]string{"A": "b"}})
	if code != 0 || err != nil || out.String() != "b\nbye\n" {
		t.Errorf("%d %v %q", code, err, &out)
	}
}

func TestExecBesideATask(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	a := assign("sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.01; done")
	a.Env = map[string]string{"OF_TASK": "yes"}
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	<-s.firstLog
	var out bytes.Buffer
	if code, err := b.s.Exec(wait(t), fleet.ExecRequest{Command: []string{"sh", "-c", "echo $OF_TASK $MUSTER_TASK_ID"}, Stdout: &out}); code != 0 || err != nil || out.String() != "yes t1\n" {
		t.Errorf("%d %v %q", code, err, &out)
	}
	// A slow reader of an exec does not hold up the task's log.
	ctx, cancel := context.WithCancel(wait(t))
	blocked := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	pr, pw := io.Pipe()
	wg.Go(func() {
		_, err := b.s.Exec(ctx, fleet.ExecRequest{Command: []string{"yes"}, Stdout: writerFunc(func(p []byte) (int, error) {
			once.Do(func() { close(blocked) })
			return pw.Write(p)
		})})
		if err == nil {
			t.Error("a killed exec succeeded")
		}
	})
	<-blocked
	if err := os.WriteFile(filepath.Join(b.workspace, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.finish(s)
	cancel()
	_ = pr.Close()
	wg.Wait()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExecIsKilledWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	ctx, cancel := context.WithCancel(wait(t))
	pidFile := filepath.Join(b.workspace, "pid")
	started := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if _, err := b.s.Exec(ctx, fleet.ExecRequest{Command: []string{"sh", "-c", "echo $$ > pid; echo up; exec sleep 100"}, Stdout: started}); err == nil {
		t.Error("no error")
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is still there")
}

func TestExecWithATerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	pr, pw := io.Pipe()
	resize := make(chan [2]uint16)
	var mu sync.Mutex
	var out bytes.Buffer
	seen := make(chan struct{}, 100)
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		out.Write(p)
		select {
		case seen <- struct{}{}:
		default:
		}
		return len(p), nil
	})
	until := func(text string) {
		t.Helper()
		for range 200 {
			mu.Lock()
			ok := strings.Contains(out.String(), text)
			mu.Unlock()
			if ok {
				return
			}
			select {
			case <-seen:
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Fatalf("%q lacks %q", out.String(), text)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, err := b.s.Exec(wait(t), fleet.ExecRequest{
			Command: []string{"sh", "-c", `test -t 0 && test -t 1 && echo is-a-tty; stty size; read x; stty size; echo "got $x"; tty > /dev/null && exit 7`},
			TTY:     true, Rows: 24, Cols: 80, Stdin: pr, Stdout: w, Resize: resize,
		})
		if code != 7 || err != nil {
			t.Errorf("%d %v", code, err)
		}
	}()
	until("is-a-tty")
	until("24 80")
	resize <- [2]uint16{30, 100}
	time.Sleep(50 * time.Millisecond)
	if _, err := pw.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	until("30 100")
	until("got hello")
	<-done
	_ = pw.Close()
}

func TestExecsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	ctx, cancel := context.WithCancel(wait(t))
	var wg sync.WaitGroup
	up := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			_, _ = b.s.Exec(ctx, fleet.ExecRequest{Command: []string{"sh", "-c", "echo up; exec sleep 100"},
				Stdout: writerFunc(func(p []byte) (int, error) { up <- struct{}{}; return len(p), nil })})
		})
	}
	for range 8 {
		<-up
	}
	if _, err := b.s.Exec(wait(t), fleet.ExecRequest{Command: []string{"true"}, Stdout: io.Discard}); err == nil {
		t.Error("a ninth exec was let in")
	}
	cancel()
	wg.Wait()
}

func TestProxyBridge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "p"))
	if err != nil {
		t.Fatal(err)
	}
	// A proxy that answers only after the client has half-closed.
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(bytes.ToUpper(b))
			}()
		}
	}()
	defer func() { _ = l.Close() }()
	b := newBox(t)
	b.config = func(c *runner.Config) {
		c.Proxy = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, "p"))
		}
	}
	b.o.Prepare = []string{`echo "$HTTPS_PROXY $http_proxy $NO_PROXY $NODE_USE_ENV_PROXY" > env`}
	b.start().ready()
	env, err := os.ReadFile(filepath.Join(b.workspace, "env"))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(env))
	if len(f) != 4 || f[0] != f[1] || !strings.HasPrefix(f[0], "http://127.0.0.1:") || f[3] != "1" {
		t.Fatalf("%q", env)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(f[0], "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = c.Write([]byte("hello"))
			_ = c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); string(got) != "HELLO" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
	wg.Wait()
}
