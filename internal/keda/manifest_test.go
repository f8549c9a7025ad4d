package keda

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/yaml"

	"muster.dev/muster/internal/fleet"
)

// TestManifests asks for what each trigger of the example manifests asks for,
// with its metadata as they stand there.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "deploy", "keda", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("manifests %v, %v", files, err)
	}
	p := &plan{}
	p.set(fleet.Targets{Pools: pools(7, 3), Nodes: 2, Workers: 4})
	c := serve(t, Config{Targets: p.get}, insecure.NewCredentials())
	asked := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
		for {
			var doc struct {
				Kind string `json:"kind"`
				Spec struct {
					Triggers []struct {
						Type       string            `json:"type"`
						MetricType string            `json:"metricType"`
						Metadata   map[string]string `json:"metadata"`
					} `json:"triggers"`
				} `json:"spec"`
			}
			err := d.Decode(&doc)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, tr := range doc.Spec.Triggers {
				asked++
				r := &pb.ScaledObjectRef{Name: "x", Namespace: "agents", ScalerMetadata: tr.Metadata}
				spec, err := c.GetMetricSpec(t.Context(), r)
				if err != nil {
					t.Errorf("%s: %v", file, err)
					continue
				}
				got, err := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: r, MetricName: spec.MetricSpecs[0].MetricName})
				if err != nil {
					t.Errorf("%s: %v", file, err)
					continue
				}
				shape := shapeAverage
				if tr.MetricType == "Value" {
					shape = shapeValue
				}
				if n := hpa(shape, got.MetricValues[0].MetricValueFloat, spec.MetricSpecs[0].TargetSizeFloat, 4); n != 10 {
					t.Errorf("%s: %d replicas, want the 10 of the plan", file, n)
				}
			}
		}
	}
	if asked != 3 {
		t.Errorf("%d triggers, want 3", asked)
	}
}
