package serve

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
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

const token = "0123456789abcdef0123456789abcdef"

var fleets = schema.GroupVersionResource{Group: "muster.dev", Version: "v1alpha1", Resource: "fleets"}

// build makes a program; name is below cmd.
func build(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	to := filepath.Join(dir, name)
	c := exec.CommandContext(t.Context(), "go", "build", "-o", to, "muster.dev/muster/cmd/"+pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return to
}

// freeAddress is one that nobody listened on a moment ago; the gateway's port is
// part of what pods are told, so that it cannot be 0.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// plane is a running `muster serve --kubernetes`.
type plane struct {
	t    *testing.T
	dir  string // of its data
	base string
	cmd  *exec.Cmd
	log  *said
	done chan struct{}
}

// said is what a program wrote; it may be read while it writes.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// run starts `muster serve` with a data directory of its own.
func run(t *testing.T, program string, args ...string) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{t: t, dir: dir, log: &said{}, done: make(chan struct{})}
	p.cmd = exec.Command(program, append([]string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--log-level", "debug"}, args...)...)
	p.cmd.Env = append(os.Environ(), "MUSTER_TOKEN="+token)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			out := p.log.String()
			t.Logf("muster serve said:\n%s", out[max(0, len(out)-30000):])
		}
	})
	p.eventually("the address is written", 20*time.Second, func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "address"))
		p.base = strings.TrimSpace(string(b))
		return err == nil
	})
	return p
}

func (p *plane) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		p.t.Error("muster serve did not stop within 2 minutes")
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// call does one exchange and returns the status and the body.
func (p *plane) call(method, path string, in any) (int, []byte) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			p.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if strings.HasSuffix(path, "/log") {
		r.Header.Set("Accept", "text/plain")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, out
}

func (p *plane) eventually(what string, within time.Duration, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		select {
		case <-p.done:
			p.t.Fatalf("muster serve ended while waiting: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// TestServe: two fleets are created, tasks submitted through the API run in pods
// with real runners, and when a fleet is deleted nothing of it is left.
func TestServe(t *testing.T) {
	c := kubetest.Start(t)
	crd, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crds", "muster.dev_fleets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.InstallCRDs(t, crd)
	bin := t.TempDir()
	muster := build(t, bin, "muster", "muster")
	runner := build(t, bin, "muster-runner", "muster-runner/pod")
	ns := c.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	c.NodeGroup(t, kubetest.GroupOptions{
		Name: "agents", Labels: map[string]string{"pool": "agents", "kubernetes.io/os": "linux"},
		MilliCPU: 8000, Memory: 32 << 30, Min: 1, Max: 4, Boot: time.Second,
	})
	c.Kubelet(t, kubetest.KubeletOptions{Namespace: ns, Runner: runner})
	gateway := freeAddress(t)
	p := run(t, muster, "--kubernetes", "--kubeconfig", c.Kubeconfig, "--namespace", ns, "--gateway-listen", gateway, "--gateway-address", gateway, "--runner-image", "muster:test")
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, c, ns)
			_, events := p.call("GET", "/fleets/"+ns+"/one/v1/events?limit=30", nil)
			t.Logf("events: %s", events)
		}
	})
	apply(t, c, ns, "one", "{templates: [{name: default, image: 'debian:12', resources: {cpus: 500m, memory: 1Gi, disk: 1Gi}}], capacity: {sandboxes: {min: 1, max: 8}}, nodes: {kubernetes: {warm: pods}}}")

	p.eventually("the fleet is ready with a warm sandbox", 60*time.Second, func() bool {
		s := status(t, c, ns, "one")
		return s["summary"] == "Ready" && s["ready"] == int64(1)
	})
	ids := p.submit("/v1/tasks", 5) // the only fleet is at the root
	for _, id := range ids {
		p.finished("/v1/tasks/" + id)
	}
	if code, body := p.call("GET", "/v1/tasks/"+ids[0]+"/log", nil); code != 200 || !strings.Contains(string(body), "hello from a pod") {
		t.Errorf("the log: %d %s", code, body)
	}

	apply(t, c, ns, "two", "{templates: [{name: default, image: 'debian:12', resources: {cpus: 250m, memory: 512Mi, disk: 1Gi}}], nodes: {kubernetes: {warm: pods}}}")
	p.eventually("the second fleet is served", 2*time.Minute, func() bool {
		code, _ := p.call("GET", "/fleets/"+ns+"/two/v1/fleet", nil)
		return code == 200
	})
	if code, body := p.call("GET", "/v1/fleet", nil); code != 404 || !strings.Contains(string(body), ns+"/one, "+ns+"/two") {
		t.Errorf("with two fleets the root says %d %s", code, body)
	}
	for _, id := range p.submit("/fleets/"+ns+"/two/v1/tasks", 2) {
		p.finished("/fleets/" + ns + "/two/v1/tasks/" + id)
	}
	cli := exec.CommandContext(t.Context(), muster, "--fleet", ns+"/one", "tasks", "-o", "json")
	cli.Env = append(os.Environ(), "MUSTER_SERVER="+p.base, "MUSTER_TOKEN="+token, "MUSTER_HOME="+t.TempDir())
	if out, err := cli.CombinedOutput(); err != nil || !strings.Contains(string(out), ids[0]) {
		t.Errorf("muster --fleet: %v\n%s", err, out)
	}
	if code, body := p.call("GET", "/metrics", nil); code != 200 || !strings.Contains(string(body), `fleet="two",namespace="`+ns+`"`) {
		t.Errorf("the metrics: %d %.500s", code, body)
	}

	for _, name := range []string{"one", "two"} {
		if err := c.Dynamic.Resource(fleets).Namespace(ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	p.eventually("both are gone", 60*time.Second, func() bool {
		_, one := c.Dynamic.Resource(fleets).Namespace(ns).Get(t.Context(), "one", metav1.GetOptions{})
		_, two := c.Dynamic.Resource(fleets).Namespace(ns).Get(t.Context(), "two", metav1.GetOptions{})
		return apierrors.IsNotFound(one) && apierrors.IsNotFound(two)
	})
	p.eventually("nothing is left", 20*time.Second, func() bool { return len(left(t, c, ns)) == 0 })
}

func apply(t *testing.T, c *kubetest.Cluster, ns, name, spec string) {
	t.Helper()
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	_, err := c.Dynamic.Resource(fleets).Namespace(ns).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "muster.dev/v1alpha1", "kind": "Fleet", "metadata": map[string]any{"namespace": ns, "name": name}, "spec": s,
	}}, metav1.CreateOptions{FieldValidation: "Strict"})
	if err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, c *kubetest.Cluster, ns, name string) map[string]any {
	t.Helper()
	u, err := c.Dynamic.Resource(fleets).Namespace(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := unstructured.NestedMap(u.Object, "status")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// left is what there is of ours in a namespace.
func left(t *testing.T, c *kubetest.Cluster, ns string) []string {
	t.Helper()
	var out []string
	for _, r := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "podtemplates"}, {Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	} {
		list, err := c.Dynamic.Resource(r).Namespace(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=muster"})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			out = append(out, r.Resource+"/"+o.GetName())
		}
	}
	return out
}

func (p *plane) submit(path string, n int) []string {
	p.t.Helper()
	var tasks []map[string]any
	for range n {
		tasks = append(tasks, map[string]any{"command": []string{"sh", "-c", "echo hello from a pod"}})
	}
	code, body := p.call("POST", path, map[string]any{"tasks": tasks})
	var answer struct {
		Tasks []struct {
			ID string `json:"id"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal(body, &answer); code != 201 || err != nil || len(answer.Tasks) != n {
		p.t.Fatalf("submit: %d %s", code, body)
	}
	var ids []string
	for _, t := range answer.Tasks {
		ids = append(ids, t.ID)
	}
	return ids
}

func (p *plane) finished(path string) {
	p.t.Helper()
	var task struct{ State, Reason, Message string }
	p.eventually(fmt.Sprintf("%s has ended", path), 60*time.Second, func() bool {
		code, body := p.call("GET", path, nil)
		if code != 200 || json.Unmarshal(body, &task) != nil {
			return false
		}
		switch task.State {
		case "succeeded", "failed", "timed_out", "cancelled", "lost":
			return true
		}
		return false
	})
	if task.State != "succeeded" {
		p.t.Errorf("%s: %+v", path, task)
	}
}

// dump tells what there is, after a failure.
func dump(t *testing.T, c *kubetest.Cluster, ns string) {
	ctx := context.Background()
	if list, err := c.Dynamic.Resource(fleets).Namespace(ns).List(ctx, metav1.ListOptions{}); err == nil {
		for _, o := range list.Items {
			b, _ := json.Marshal(o.Object["status"])
			t.Logf("fleet %s: %s", o.GetName(), b)
		}
	}
	if list, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); err == nil {
		for _, o := range list.Items {
			b, _ := json.Marshal(o.Status)
			t.Logf("pod %s on %s: %s", o.Name, o.Spec.NodeName, b)
		}
	}
	if list, err := c.Client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{}); err == nil {
		for _, e := range list.Items {
			t.Logf("event %s %s %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}
