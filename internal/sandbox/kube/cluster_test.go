package kube_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/kube"
)

const (
	namespace = "agents"
	nodeName  = "node-1"
	noImage   = "registry.example/no-such-image"
)

// sessions is a gateway's memory.
type sessions struct{}

func (sessions) Session(uid string) string { return "session of " + uid }
func (sessions) Forget(string)             {}

// cluster is a client whose pods are played by a kubelet with real runners.
type cluster struct {
	client   *fake.Clientset
	exchange atomic.Pointer[kube.Exchange]
	dir      string
	writes   atomic.Int64 // of pods
	ctx      context.Context
	wg       sync.WaitGroup

	mu      sync.Mutex
	next    int
	runners map[types.UID]context.CancelFunc
	idle    bool // no kubelet: pods stay as they are made
	hooks   []hook
}

// hook answers requests instead of the cluster; see on.
type hook struct {
	verb, resource string
	answer         clienttesting.ReactionFunc
}

// on has answer asked first about requests with this verb and resource ("*":
// any) from now on. The client's own list of reactors cannot change while it is
// used.
func (c *cluster) on(verb, resource string, answer clienttesting.ReactionFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks = append(c.hooks, hook{verb, resource, answer})
}

func (c *cluster) ask(a clienttesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	hooks := c.hooks
	c.mu.Unlock()
	for _, h := range hooks {
		if (h.verb != "*" && h.verb != a.GetVerb()) || (h.resource != "*" && h.resource != a.GetResource().Resource) {
			continue
		}
		if done, o, err := h.answer(a); done {
			return true, o, err
		}
	}
	return false, nil, nil
}

func newCluster(tb testing.TB, objects ...runtime.Object) *cluster {
	tb.Helper()
	c := &cluster{client: fake.NewClientset(objects...), dir: tb.TempDir(), runners: map[types.UID]context.CancelFunc{}}
	c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		c.mu.Lock()
		c.next++
		pod := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		if pod.UID == "" {
			pod.UID = types.UID("uid-" + strconv.Itoa(c.next))
		}
		c.mu.Unlock()
		return false, nil, nil
	})
	c.client.PrependReactor("delete", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		d := a.(clienttesting.DeleteActionImpl)
		o, err := c.client.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, d.Namespace, d.Name)
		if err != nil {
			return true, nil, err
		}
		if p := d.DeleteOptions.Preconditions; p != nil && p.UID != nil && *p.UID != o.(*corev1.Pod).UID {
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, d.Name, errors.New("uid"))
		}
		return false, nil, nil
	})
	for _, verb := range []string{"create", "delete", "patch"} {
		c.client.PrependReactor(verb, "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			c.writes.Add(1)
			return false, nil, nil
		})
	}
	c.client.PrependReactor("*", "*", c.ask)
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx = ctx
	there, err := c.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	w, err := c.client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, metav1.ListOptions{ResourceVersion: there.ResourceVersion})
	if err != nil {
		tb.Fatal(err)
	}
	c.wg.Go(func() { c.kubelet(w) })
	tb.Cleanup(func() {
		w.Stop()
		cancel()
		c.wg.Wait()
	})
	return c
}

// open returns an adapter on the cluster, as after a restart; the caller
// closes it.
func (c *cluster) open(tb testing.TB, change ...func(*kube.Options)) *kube.Sandboxes {
	tb.Helper()
	e := kube.NewExchange()
	c.exchange.Store(e)
	o := kube.Options{
		Client: c.client, Dynamic: c.metrics(), Namespace: namespace, Fleet: "coders", Sessions: sessions{}, Exchange: e,
		Door:        kube.Door{URL: "https://gateway.muster:8443", IP: "10.0.0.1", Labels: map[string]string{"app": "muster"}, Port: 8443},
		RunnerImage: "registry.example/muster-runner:1",
	}
	for _, f := range change {
		f(&o)
	}
	s, err := kube.New(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// opened is open, closed at the end of the test.
func (c *cluster) opened(tb testing.TB, change ...func(*kube.Options)) *kube.Sandboxes {
	tb.Helper()
	s := c.open(tb, change...)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return s
}

// metrics measures every pod that exists.
func (c *cluster) metrics() *dynamicfake.FakeDynamicClient {
	gvr := schema.GroupVersionResource{Group: "metrics.k8s.io", Version: "v1beta1", Resource: "pods"}
	d := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{gvr: "PodMetricsList"})
	d.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		pods, err := c.client.CoreV1().Pods(a.GetNamespace()).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return true, nil, err
		}
		list := &unstructured.UnstructuredList{Object: map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1"}}
		for _, p := range pods.Items {
			list.Items = append(list.Items, unstructured.Unstructured{Object: map[string]any{
				"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
				"metadata":   map[string]any{"name": p.Name, "namespace": p.Namespace, "labels": words(p.Labels)},
				"timestamp":  time.Now().Format(time.RFC3339),
				"containers": []any{map[string]any{"name": "agent", "usage": map[string]any{"cpu": "250m", "memory": "64Mi"}}},
			}})
		}
		return true, list, nil
	})
	return d
}

func words(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// kubelet runs a runner for every pod.
func (c *cluster) kubelet(w watch.Interface) {
	for e := range w.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		switch e.Type {
		case watch.Added:
			c.mu.Lock()
			idle := c.idle
			c.mu.Unlock()
			if !idle {
				c.start(pod.DeepCopy())
			}
		case watch.Deleted:
			c.kill(pod.UID)
		}
	}
}

func (c *cluster) kill(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.runners[uid]; stop != nil {
		stop()
		delete(c.runners, uid)
	}
}

// status writes what the kubelet says of a pod; one that is gone is none of
// its business.
func (c *cluster) status(pod *corev1.Pod, change func(*corev1.Pod)) {
	now, err := c.client.CoreV1().Pods(pod.Namespace).Get(context.Background(), pod.Name, metav1.GetOptions{})
	if err != nil || now.UID != pod.UID {
		return
	}
	change(now)
	_, _ = c.client.CoreV1().Pods(pod.Namespace).UpdateStatus(context.Background(), now, metav1.UpdateOptions{})
}

func (c *cluster) start(pod *corev1.Pod) {
	if len(pod.Spec.Containers) == 0 {
		return
	}
	if image := pod.Spec.Containers[0].Image; image == noImage {
		c.status(pod, func(p *corev1.Pod) {
			p.Spec.NodeName = nodeName
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", Image: image,
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: image + ": not found"}}}}}
		})
		return
	}
	c.status(pod, func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = nodeName, corev1.PodRunning
	})
	ctx, cancel := context.WithCancel(c.ctx)
	l := &line{}
	c.mu.Lock()
	c.runners[pod.UID] = func() { l.cut(); cancel() } // the dead report nothing
	c.mu.Unlock()
	c.wg.Go(func() {
		err := c.run(ctx, pod, l)
		over := corev1.PodSucceeded
		if err != nil {
			over = corev1.PodFailed
		}
		if c.ctx.Err() == nil {
			c.status(pod, func(p *corev1.Pod) { p.Status.Phase = over })
		}
	})
}

// line is the connection of a runner.
type line struct {
	mu   sync.Mutex
	dead bool
	conn net.Conn
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

// use takes the next connection, unless the runner is dead.
func (l *line) use(c net.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errors.Join(net.ErrClosed, c.Close())
	}
	l.conn = c
	return nil
}

func (c *cluster) run(ctx context.Context, pod *corev1.Pod, l *line) error {
	dir := filepath.Join(c.dir, string(pod.UID))
	for _, d := range []string{"home", "workspace", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	first := true
	return runner.Run(ctx, runner.Config{
		Token: func() string { return sessions{}.Session(string(pod.UID)) }, UID: -1, GID: -1,
		Home: filepath.Join(dir, "home"), Workspace: filepath.Join(dir, "workspace"), Temp: filepath.Join(dir, "tmp"),
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			id := gateway.Identity{UID: string(pod.UID)}
			if first {
				id.Namespace, id.Pod = pod.Namespace, pod.Name
			}
			peer, err := c.exchange.Load().Peer(ctx, id)
			if err != nil {
				return nil, err
			}
			here, there, err := pair()
			if err != nil {
				return nil, err
			}
			if err := l.use(here); err != nil {
				return nil, errors.Join(err, there.Close())
			}
			if err := peer.Link(there); err != nil {
				return nil, errors.Join(err, here.Close(), there.Close())
			}
			first = false
			return here, nil
		},
	})
}

// pair is two ends of one connection.
func pair() (a, b net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	ends := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("socket pair: %w", err)
		}
	}
	return ends[0], ends[1], nil
}

// pod is the pod of a sandbox as the API server has it.
func (c *cluster) pod(tb testing.TB, id fleet.SandboxID) *corev1.Pod {
	tb.Helper()
	pod, err := c.client.CoreV1().Pods(namespace).Get(tb.Context(), string(id), metav1.GetOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return pod
}

// specOf is a sandbox that can be had.
func specOf() fleet.SandboxSpec {
	return fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Pool: "default", Template: "default", Image: "registry.example/agent:1",
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, Pids: 128, DiskBytes: 1 << 30, Files: 1024, LogBytes: 1 << 20},
		Network:   fleet.Network{Mode: fleet.NetworkNone}, Startup: 30 * time.Second, Node: nodeName,
	}
}
