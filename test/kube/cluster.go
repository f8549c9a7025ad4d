package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Cluster is a Kubernetes cluster of this process's own.
type Cluster struct {
	Config     *rest.Config // as a member of system:masters, without a limit of requests
	Kubeconfig string       // a file with the same
	Client     kubernetes.Interface
	Dynamic    dynamic.Interface

	servers *servers
	dir     string // of everything on disk; gone at the end
	watch   *watch
	nodes   *autoscaler
	kubelet *kubelet
	stop    context.CancelFunc

	mu    sync.Mutex
	crds  map[string]int // by name: how many tests want it
	sandb *process       // the controller of agent-sandbox
}

// shared is the cluster of this process: one, since it takes seconds.
var shared struct {
	sync.Mutex
	main    bool // Main runs
	tried   bool
	cluster *Cluster
	err     error
}

// Main runs the tests of a package, ends what Start has started, and exits. A
// package that uses Start calls it, or Run, in TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for packages that have something of their own to end: it returns
// the exit code.
func Run(m *testing.M) int {
	shared.Lock()
	shared.main = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		shared.cluster.close()
	}
	return code
}

// Start returns the cluster of this process and starts it the first time. It
// skips the test where MUSTER_KUBE_TESTS=0 asks for that, and fails it where
// the cluster does not start.
func Start(t testing.TB) *Cluster {
	t.Helper()
	if os.Getenv("MUSTER_KUBE_TESTS") == "0" {
		t.Skip("MUSTER_KUBE_TESTS=0: tests that start a Kubernetes cluster are skipped")
	}
	shared.Lock()
	defer shared.Unlock()
	if !shared.main {
		t.Fatal("kubetest: the TestMain of this package must call kubetest.Main, or the cluster is left behind")
	}
	if !shared.tried {
		shared.tried = true
		shared.cluster, shared.err = open()
	}
	if shared.err != nil {
		t.Fatalf("start a Kubernetes cluster: %v", shared.err)
	}
	return shared.cluster
}

func open() (*Cluster, error) {
	program, err := tool("controlplane")
	if err != nil {
		return nil, err
	}
	// The port that is free now may be taken a moment later.
	for attempt := 1; ; attempt++ {
		c, err := launch(program)
		if err == nil || attempt == 3 {
			return c, err
		}
	}
}

func launch(program string) (_ *Cluster, err error) {
	dir, err := os.MkdirTemp("", "kubetest-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	// Pods run as users of their own, below it.
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // traversed, not listed
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &Cluster{dir: dir, crds: map[string]int{}, servers: &servers{program: program, dir: filepath.Join(dir, "control")}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := os.Mkdir(c.servers.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	if c.servers.id, err = newIdentity(c.servers.dir); err != nil {
		return nil, err
	}
	if err := c.servers.up(); err != nil {
		return nil, err
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

// connect makes the clients, and starts what this package plays.
func (c *Cluster) connect() (err error) {
	c.Config = c.servers.config(userAdmin)
	c.Kubeconfig = c.servers.id.path("kubeconfig-" + userAdmin)
	if c.Client, err = kubernetes.NewForConfig(c.Config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if c.Dynamic, err = dynamic.NewForConfig(c.Config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.kubelet = newKubelet(ctx, c)
	c.nodes = &autoscaler{cluster: c}
	if c.watch, err = newWatch(ctx, c.Client, c.kubelet.enqueue); err != nil {
		return err
	}
	c.kubelet.run()
	return nil
}

// close ends everything.
func (c *Cluster) close() {
	if c.stop != nil {
		c.stop()
		c.kubelet.wait()
	}
	c.sandb.kill()
	c.servers.down()
	if err := os.RemoveAll(c.dir); err != nil {
		fmt.Fprintf(os.Stderr, "kubetest: remove what the cluster left: %v\n", err)
	}
}

// StopAPIServer kills the API server: connections break, and new ones are
// refused, until StartAPIServer.
func (c *Cluster) StopAPIServer() {
	c.servers.kill("kube-apiserver")
}

// StartAPIServer starts the API server again, on the same port and with the
// same state, and returns once it serves. It panics where it does not: no test
// of this process could go on.
func (c *Cluster) StartAPIServer() {
	if err := c.servers.apiserver(); err != nil {
		panic(fmt.Sprintf("kubetest: start the API server again: %v", err))
	}
}

// config reaches the API server as one of the users.
func (s *servers) config(user string) *rest.Config {
	return &rest.Config{
		Host: s.url(), BearerToken: s.id.tokens[user], TLSClientConfig: rest.TLSClientConfig{CAData: s.id.ca},
		QPS: -1, UserAgent: "kubetest/" + filepath.Base(user),
	}
}
