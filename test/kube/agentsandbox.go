package kubetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// AgentSandbox installs the API of the agent-sandbox project and runs its real
// controller, both of the version in test/kube/agentsandbox, until the process
// ends. The controller converts between versions through a webhook, which an
// API server outside of the cluster cannot reach: only v1beta1 is served.
func AgentSandbox(t testing.TB, c *Cluster) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sandb != nil {
		if err := c.sandb.ended(); err != nil {
			t.Fatalf("agent-sandbox: %v", err)
		}
		return
	}
	program, err := tool("agent-sandbox-controller")
	if err != nil {
		t.Fatalf("agent-sandbox: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(program), "crds", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("agent-sandbox: its CRDs are not beside %s; remove that directory, and it is built again", program)
	}
	for _, name := range files {
		c.installBeta(t, name)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--extensions", "--leader-elect=false", "--enable-webhook=false", //nolint:gosec // the tool we have built
		"--metrics-bind-address=0", "--health-probe-bind-address="+address(ports[0]), "--kubeconfig="+c.Kubeconfig)
	cmd.Env = environ("HOME="+c.dir, "GOMEMLIMIT=256MiB")
	p, err := start("agent-sandbox-controller", cmd)
	if err != nil {
		t.Fatal(err)
	}
	c.sandb = p
	c.await(t, "agent-sandbox's controller", func(ctx context.Context) error {
		if err := p.ended(); err != nil {
			t.Fatal(err)
		}
		return get(ctx, "http://"+address(ports[0])+"/readyz")
	})
}

// installBeta installs the CRDs of a file with v1beta1 as the only version.
func (c *Cluster) installBeta(t testing.TB, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
	for {
		crd := &unstructured.Unstructured{}
		err := d.Decode(&crd.Object)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		if len(crd.Object) == 0 {
			continue
		}
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, v := range versions {
			if m, ok := v.(map[string]any); ok && m["name"] == "v1beta1" {
				m["served"], m["storage"] = true, true
				versions = []any{m}
				break
			}
		}
		if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
			t.Fatal(err)
		}
		unstructured.RemoveNestedField(crd.Object, "spec", "conversion")
		c.installCRD(t, crd)
	}
}

// RemoveAgentSandbox ends the controller and removes the API of agent-sandbox,
// with every object of it: who chooses by what is served finds none.
func (c *Cluster) RemoveAgentSandbox(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sandb.kill()
	c.sandb = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	crds := c.Dynamic.Resource(crdResource)
	l, err := crds.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatalf("list the APIs: %v", err)
	}
	for i := range l.Items {
		name := l.Items[i].GetName()
		if !strings.HasSuffix(name, "agents.x-k8s.io") {
			continue
		}
		if err := crds.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove %s: %v", name, err)
		}
		for !apierrors.IsNotFound(err) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			_, err = crds.Get(ctx, name, metav1.GetOptions{})
		}
	}
	if ctx.Err() != nil {
		t.Error("the API of agent-sandbox is still there after a minute")
	}
}
