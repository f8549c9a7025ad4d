package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is a child of this one that does not outlive it.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed once it has ended
	err  error         // of Wait; read after done
}

// start starts a program in a process group of its own. That it ends should
// this process be killed is tied to the thread that starts it, so that thread
// waits for it, too.
func start(name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		p.out = &tail{}
		cmd.Stdout, cmd.Stderr = p.out, p.out
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 2 * time.Second // what it left behind may hold its output open
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// kill ends the process and its group at once, and waits until it has ended.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // ESRCH: it has ended already
	<-p.done
}

// ended is the error of a process that is no more, with the end of what it
// said; nil while it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %w; it said:\n%s", p.name, errors.Join(p.err), p.out)
	default:
		return nil
	}
}

// await polls until ready returns nil, the process ends, or the time is over.
func (p *process) await(ready func() error, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if ended := p.ended(); ended != nil {
			return ended
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s: %w; it said:\n%s", p.name, within, err, p.out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePorts returns loopback ports that were free a moment ago: the servers
// cannot choose their own and tell.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // all at the end, so that none is given twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// environ is our environment without what would lead a program elsewhere, and
// with more added.
func environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8"}, more...)
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
	if over := w.b.Len() - 32<<10; over > 0 {
		w.b.Next(over)
	}
	return len(p), nil
}

func (w *tail) String() string {
	if w == nil {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// get is nil where the URL answers 200.
func get(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, a.Status)
	}
	return nil
}
