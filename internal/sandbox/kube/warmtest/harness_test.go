package warmtest

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/kube"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

var runnerOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "runner")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "muster-runner")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "muster.dev/muster/cmd/muster-runner/pod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// site is a namespace of a cluster with a control plane's gateway.
type site struct {
	t         testing.TB
	cluster   *kubetest.Cluster
	namespace string
	exchange  *kube.Exchange
	gateway   *gateway.Gateway
	port      int
	ca        []byte
	elsewhere func(context.Context, fleet.SandboxID) (string, bool) // set before the first sandbox
}

func newSite(t testing.TB, nodes int, k kubetest.KubeletOptions) *site {
	t.Helper()
	c := kubetest.Start(t)
	kubetest.AgentSandbox(t, c)
	s := &site{t: t, cluster: c, namespace: c.Namespace(t), exchange: kube.NewExchange()}
	if nodes > 0 {
		g := c.NodeGroup(t, kubetest.GroupOptions{Name: s.namespace, MilliCPU: 16000, Memory: 64 << 30, Min: nodes, Max: nodes})
		s.disks(g.Nodes())
	}
	if k.Runner == "" && k.InProcess == nil {
		runner, err := runnerOnce()
		if err != nil {
			t.Fatal(err)
		}
		k.Runner = runner
	}
	k.Namespace = s.namespace
	c.Kubelet(t, k)
	s.serve()
	return s
}

// disks gives nodes the room on disk that sandboxes ask for.
func (s *site) disks(nodes []string) {
	s.t.Helper()
	body := []byte(`{"status":{"capacity":{"ephemeral-storage":"1Ti"},"allocatable":{"ephemeral-storage":"1Ti"}}}`)
	for _, n := range nodes {
		_, err := s.cluster.Client.CoreV1().Nodes().Patch(s.t.Context(), n, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// serve opens the gateway as a control plane does.
func (s *site) serve() {
	s.t.Helper()
	lend := httptest.NewUnstartedServer(http.NotFoundHandler())
	lend.StartTLS()
	cert, root := lend.TLS.Certificates[0], lend.Certificate().Raw
	lend.Close()
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})
	s.gateway = gateway.New(gateway.Options{
		Key: make([]byte, 32), Verify: gateway.TokenReviews(s.cluster.Client), Peers: s.exchange.Peer, Logger: logger(s.t),
		Elsewhere: func(ctx context.Context, id fleet.SandboxID) (string, bool) {
			if s.elsewhere == nil {
				return "", false
			}
			return s.elsewhere(ctx, id)
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	server := s.gateway.Server(&tls.Config{Certificates: []tls.Certificate{cert}})
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// open opens an adapter, with warm pools or with plain pods; the caller closes
// it.
func (s *site) open(t testing.TB, name string, warm bool) *kube.Sandboxes {
	t.Helper()
	a, err := kube.New(t.Context(), s.options(t, name, warm))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *site) options(t testing.TB, name string, warm bool) kube.Options {
	return kube.Options{
		Client: s.cluster.Client, Dynamic: &measured{Interface: s.cluster.Dynamic, site: s}, AgentSandbox: warm, Namespace: s.namespace, Fleet: name,
		Sessions: s.gateway, Exchange: s.exchange, RunnerImage: "registry.example/muster-runner:1", Logger: logger(t),
		Door: kube.Door{URL: "https://127.0.0.1:" + strconv.Itoa(s.port), CA: s.ca, CIDRs: []string{"127.0.0.1/32"}, Port: int32(s.port)},
	}
}

// opened is open, closed and emptied at the end of the test.
func (s *site) opened(t testing.TB, name string, warm bool) *kube.Sandboxes {
	t.Helper()
	return openedWith(t, s.options(t, name, warm))
}

func openedWith(t testing.TB, o kube.Options) *kube.Sandboxes {
	t.Helper()
	a, err := kube.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return a
}

func specOf() fleet.SandboxSpec {
	return fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Pool: "default", Template: "default", Revision: "r1", Image: "registry.example/agent:1",
		Resources: fleet.Resources{MilliCPU: 100, MemoryBytes: 64 << 20, Pids: 128, DiskBytes: 1 << 30, Files: 1024, LogBytes: 1 << 20},
		Network:   fleet.Network{Mode: fleet.NetworkNone}, Startup: time.Minute,
	}
}

// pods lists the pods of a fleet.
func (s *site) pods(t testing.TB, name string) []corev1.Pod {
	t.Helper()
	list, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "muster.dev/fleet=" + name})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// pod is the pod that holds a sandbox.
func (s *site) pod(t testing.TB, id fleet.SandboxID) *corev1.Pod {
	t.Helper()
	list, err := s.cluster.Client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "muster.dev/sandbox=" + string(id)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 {
		t.Fatalf("%d pods hold %s", len(list.Items), id)
	}
	return &list.Items[0]
}

// objects lists one kind of agent-sandbox's.
func (s *site) objects(t testing.TB, group, resource string) []unstructured.Unstructured {
	t.Helper()
	list, err := s.cluster.Dynamic.Resource(schema.GroupVersionResource{Group: group, Version: "v1beta1", Resource: resource}).
		Namespace(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

const (
	core       = "agents.x-k8s.io"
	extensions = "extensions.agents.x-k8s.io"
)

func replicas(o unstructured.Unstructured) int64 {
	n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
	return n
}

// eventually polls: controllers have their own time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after a minute: %s", what)
		}
	}
}

// kill removes a pod as the loss of its node does.
func (s *site) kill(t testing.TB, name string) {
	t.Helper()
	now := int64(0)
	err := s.cluster.Client.CoreV1().Pods(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		t.Fatal(err)
	}
}

// measured is a dynamic client of a cluster with a metrics-server.
type measured struct {
	dynamic.Interface
	site *site
}

func (m *measured) Resource(r schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	if r.Group != "metrics.k8s.io" {
		return m.Interface.Resource(r)
	}
	d := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{r: "PodMetricsList"})
	d.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		pods, err := m.site.cluster.Client.CoreV1().Pods(m.site.namespace).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return true, nil, err
		}
		list := &unstructured.UnstructuredList{Object: map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1"}}
		for i := range pods.Items {
			o := unstructured.Unstructured{Object: map[string]any{
				"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "timestamp": time.Now().Format(time.RFC3339),
				"containers": []any{map[string]any{"name": "agent", "usage": map[string]any{"cpu": "250m", "memory": "64Mi"}}},
			}}
			o.SetName(pods.Items[i].Name)
			o.SetNamespace(m.site.namespace)
			o.SetLabels(pods.Items[i].Labels)
			list.Items = append(list.Items, o)
		}
		return true, list, nil
	})
	return d.Resource(r)
}
