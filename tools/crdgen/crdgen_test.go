package main

import (
	"bytes"
	"os"
	"testing"

	"sigs.k8s.io/yaml"
)

const written = "../../deploy/crds/muster.dev_fleets.yaml"

// TestDefinitionIsFresh: what is checked in is what the types say.
func TestDefinitionIsFresh(t *testing.T) {
	want, err := generate("../../api/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale; make generate", written)
	}
}

// TestSchema: the parts of the definition that no test with an API server
// shows by name.
func TestSchema(t *testing.T) {
	b, err := generate("../../api/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	at := func(path ...any) any {
		v := doc
		for _, p := range path {
			switch p := p.(type) {
			case string:
				m, ok := v.(map[string]any)
				if !ok {
					t.Fatalf("%v: %s is not in a map", path, p)
				}
				v = m[p]
			case int:
				v = v.([]any)[p]
			}
		}
		return v
	}
	spec := []any{"spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "properties"}
	for _, c := range []struct {
		path []any
		want any
	}{
		{[]any{"mode", "default"}, "run"},
		{[]any{"capacity", "properties", "sandboxes", "properties", "max", "default"}, 200.0},
		{[]any{"capacity", "properties", "sandboxes", "properties", "max", "maximum"}, 100000.0},
		{[]any{"templates", "items", "properties", "timeouts", "properties", "run", "default"}, "2h"},
		{[]any{"templates", "items", "properties", "image", "default"}, nil}, // host is for one machine
		{[]any{"templates", "x-kubernetes-list-type"}, "map"},
		{[]any{"templates", "items", "properties", "resources", "properties", "cpus", "x-kubernetes-int-or-string"}, true},
		{[]any{"nodes", "properties", "provider", "default"}, nil}, // follows from the mode
		{[]any{"nodes", "properties", "kubernetes", "properties", "headroom", "default"}, "auto"},
		{[]any{"templates", "items", "properties", "timeouts", "properties", "idle", "description"}, "Without output; default 0, no bound"},
	} {
		if got := at(append(append([]any{}, spec...), c.path...)...); got != c.want {
			t.Errorf("%v: %v, want %v", c.path, got, c.want)
		}
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["x-kubernetes-preserve-unknown-fields"] != nil {
				t.Errorf("%s keeps what is unknown", path)
			}
			for k, e := range v {
				walk(path+"."+k, e)
			}
		case []any:
			for _, e := range v {
				walk(path+"[]", e)
			}
		}
	}
	walk("", doc)
}
