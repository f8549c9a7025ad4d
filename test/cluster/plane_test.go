package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

// plane is one process of `muster serve --kubernetes`.
type plane struct {
	w       *world
	name    string
	data    string
	args    []string
	env     []string // beside our own
	gateway string
	cmd     *exec.Cmd
	exited  chan error
	log     *lockedBuffer
	base    string
	token   string
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

// freeAddress is an address of loopback that nobody listens on at the moment.
func freeAddress(w *world) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// plane prepares a control plane with a data directory of its own. more are
// further flags; kubeconfig is empty for that of an administrator.
func (w *world) plane(name, kubeconfig string, more ...string) *plane {
	w.t.Helper()
	if kubeconfig == "" {
		kubeconfig = w.c.Kubeconfig
	}
	dir := filepath.Join(w.t.TempDir(), name)
	p := &plane{w: w, name: name, data: dir, gateway: freeAddress(w), log: &lockedBuffer{}}
	p.args = append([]string{
		"serve", "--kubernetes", "--kubeconfig", kubeconfig, "--namespace", w.ns, "--data", dir,
		"--listen", "127.0.0.1:0", "--gateway-listen", p.gateway, "--gateway-address", w.front.address(), "--runner-image", "example.test/muster:1",
	}, more...)
	w.front.add(p.gateway)
	p.endWith()
	return p
}

// consumer prepares a process that carries sandboxes of a fleet that leader
// leads.
func (w *world) consumer(name string, leader *plane, fleet, store string) *plane {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), name)
	p := &plane{w: w, name: name, data: dir, gateway: freeAddress(w), log: &lockedBuffer{}, token: leader.token, env: []string{"MUSTER_TOKEN=" + leader.token}}
	p.args = []string{
		"consume", "--kubernetes", "--kubeconfig", w.c.Kubeconfig, "--fleet", w.ns + "/" + fleet, "--data", dir, "--store", store,
		"--listen", "127.0.0.1:0", "--gateway-listen", p.gateway, "--gateway-address", w.front.address(), "--runner-image", "example.test/muster:1",
	}
	p.endWith()
	return p
}

// endWith ends the process with the test, and shows what it said where that
// failed.
func (p *plane) endWith() {
	w := p.w
	w.t.Cleanup(func() {
		p.stop()
		if w.t.Failed() {
			out := p.log.String()
			if len(out) > 12000 {
				out = out[:4000] + "\n…\n" + out[len(out)-8000:]
			}
			w.t.Logf("%s said:\n%s", p.name, out)
		}
	})
}

// start runs it and waits until its API answers.
func (p *plane) start() *plane {
	p.w.t.Helper()
	_ = os.Remove(filepath.Join(p.data, "address"))
	p.cmd = exec.Command(filepath.Join(binDir, "muster"), p.args...)
	p.cmd.Env = append(append(os.Environ(), "POD_NAMESPACE="+p.w.ns), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		p.w.t.Fatal(err)
	}
	cmd := p.cmd
	p.exited = make(chan error, 1)
	go func(done chan<- error) { done <- cmd.Wait() }(p.exited)
	p.w.until(60*time.Second, p.name+" answers", func() error {
		addr, err := os.ReadFile(filepath.Join(p.data, "address"))
		if err != nil {
			return err
		}
		if p.env == nil { // it makes a token of its own
			token, err := os.ReadFile(filepath.Join(p.data, "token"))
			if err != nil {
				return err
			}
			p.token = strings.TrimSpace(string(token))
		}
		p.base = strings.TrimSpace(string(addr))
		r, err := http.Get(p.base + "/healthz")
		if err != nil {
			return err
		}
		return r.Body.Close()
	})
	return p
}

func (p *plane) running() bool { return p.cmd != nil }

// kill ends it with SIGKILL.
func (p *plane) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.cmd = nil
}

// stop ends it as a rollout does.
func (p *plane) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(40 * time.Second):
		p.w.t.Errorf("%s did not stop within 40 s of SIGTERM", p.name)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.cmd = nil
}

// api does one request to a fleet's API.
func (p *plane) api(method, fleet, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.base+"/fleets/"+p.w.ns+"/"+fleet+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
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
	if r.StatusCode >= 300 {
		return r.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, r.StatusCode, b)
	}
	if out == nil {
		return r.StatusCode, nil
	}
	return r.StatusCode, json.Unmarshal(b, out)
}

// ready waits until a fleet takes tasks here.
func (p *plane) ready(fleet string) {
	p.w.t.Helper()
	p.w.until(60*time.Second, "fleet "+fleet+" takes tasks", func() error {
		_, err := p.api("GET", fleet, "/v1/fleet", nil, nil)
		return err
	})
}

// submit submits n tasks of a shell command, each with an idempotency key, so
// that it may be repeated until it is answered.
func (p *plane) submit(fleet, prefix string, n int, script string) {
	p.w.t.Helper()
	tasks := make([]map[string]any, n)
	for i := range tasks {
		tasks[i] = map[string]any{
			"name": fmt.Sprintf("%s-%d", prefix, i), "command": []string{"sh", "-c", script},
			"idempotencyKey": fmt.Sprintf("%s-%d", prefix, i), "retries": map[string]any{"max": 3},
		}
	}
	p.w.until(60*time.Second, "the tasks are accepted", func() error {
		_, err := p.api("POST", fleet, "/v1/tasks", map[string]any{"tasks": tasks}, nil)
		return err
	})
}

// tasks lists every task.
func (p *plane) tasks(fleet string) ([]v1alpha1.TaskView, error) {
	var all []v1alpha1.TaskView
	before := ""
	for {
		var l v1alpha1.TaskList
		if _, err := p.api("GET", fleet, "/v1/tasks?limit=1000&before="+before, nil, &l); err != nil {
			return nil, err
		}
		all = append(all, l.Tasks...)
		if l.Before == "" {
			return all, nil
		}
		before = string(l.Before)
	}
}

// succeed waits until n tasks have succeeded, and fails at the first that
// ended otherwise.
func (p *plane) succeed(fleet string, n int, limit time.Duration) []v1alpha1.TaskView {
	p.w.t.Helper()
	var all []v1alpha1.TaskView
	p.w.t.Cleanup(func() {
		if p.w.t.Failed() && p.running() {
			p.w.t.Logf("the newest events: %s", strings.Join(p.events(fleet, ""), "\n"))
		}
	})
	p.w.until(limit, fmt.Sprintf("%d tasks succeed", n), func() error {
		var err error
		if all, err = p.tasks(fleet); err != nil {
			return err
		}
		states := map[string]int{}
		for _, v := range all {
			states[string(v.State)]++
			if v.Final() && v.State != "succeeded" {
				p.w.t.Fatalf("task %s ended as %s: %s %s", v.Name, v.State, v.Reason, v.Message)
			}
		}
		if states["succeeded"] < n {
			return fmt.Errorf("%v", states)
		}
		return nil
	})
	if len(all) != n {
		p.w.t.Fatalf("%d tasks are known, %d were submitted", len(all), n)
	}
	return all
}

// events lists the events of a kind, and for none the newest of all.
func (p *plane) events(fleet, kind string) []string {
	var l v1alpha1.EventList
	query := "?limit=10000&kind=" + kind
	if kind == "" {
		query = "?limit=10000"
	}
	if _, err := p.api("GET", fleet, "/v1/events"+query, nil, &l); err != nil {
		p.w.t.Error(err)
	}
	var out []string
	for _, e := range l.Events {
		out = append(out, e.Kind+": "+e.Reason)
	}
	return out
}

func (p *plane) mustTasks(fleet string) []v1alpha1.TaskView {
	p.w.t.Helper()
	all, err := p.tasks(fleet)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return all
}
