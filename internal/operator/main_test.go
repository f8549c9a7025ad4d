package operator

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// cluster is the test cluster with Fleets.
func cluster(t *testing.T) *kubetest.Cluster {
	t.Helper()
	c := kubetest.Start(t)
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crds", "muster.dev_fleets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.InstallCRDs(t, b)
	return c
}

// fleetOf makes an object of a spec in YAML.
func fleetOf(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatalf("%v in\n%s", err, spec)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "muster.dev/v1alpha1", "kind": "Fleet", "metadata": map[string]any{"namespace": namespace, "name": name}, "spec": s,
	}}
}

// eventually polls: these tests are against real servers.
func eventually(t *testing.T, what string, within time.Duration, ok func(ctx context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for !ok(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", within, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
