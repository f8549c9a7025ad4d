package main

import (
	"bytes"
	"fmt"
	"reflect"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
)

type object = map[string]any

// generate writes the definition; dir is where the source of api/v1alpha1 is.
func generate(dir string) ([]byte, error) {
	c, err := readComments(dir)
	if err != nil {
		return nil, err
	}
	g := &generator{comments: c, rules: rules()}
	spec := g.schema(reflect.TypeFor[v1alpha1.FleetSpec](), defaults(), "spec")
	status := g.schema(reflect.TypeFor[v1alpha1.FleetStatus](), reflect.Value{}, "status")
	if err := g.left(); err != nil {
		return nil, err
	}
	text := object{"type": "string"}
	root := object{
		"type": "object", "required": []string{"spec"},
		"description": "Fleet is a fleet of AI coding agents and the rules that size it; see docs/kubernetes.md.",
		"properties":  object{"apiVersion": text, "kind": text, "metadata": object{"type": "object"}, "spec": spec, "status": status},
		"x-kubernetes-validations": validations([]rule{{
			`self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')`,
			`metadata.name: want 1-63 lower-case letters, digits and "-", beginning and ending with a letter or digit`,
		}}),
	}
	out, err := yaml.Marshal(definition(root))
	if err != nil {
		return nil, fmt.Errorf("write the definition: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("# Written by tools/crdgen from api/v1alpha1 (make generate). Do not edit.\n")
	b.Write(out)
	return b.Bytes(), nil
}

func definition(root object) object {
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": "fleets.muster.dev", "labels": object{"app.kubernetes.io/part-of": "muster"}},
		"spec": object{
			"group": "muster.dev", "scope": "Namespaced",
			"names": object{
				"kind": "Fleet", "listKind": "FleetList", "plural": "fleets", "singular": "fleet",
				"shortNames": []string{"mf"}, "categories": []string{"muster"},
			},
			"versions": []object{{
				"name": "v1alpha1", "served": true, "storage": true,
				// No scale subresource: how large a fleet is follows from its load, and
				// a second writer of its size would be one too many.
				"subresources":             object{"status": object{}},
				"schema":                   object{"openAPIV3Schema": root},
				"additionalPrinterColumns": columns(),
			}},
		},
	}
}

func columns() []object {
	column := func(name, kind, path, description string) object {
		return object{"name": name, "type": kind, "jsonPath": path, "description": description}
	}
	return []object{
		column("Desired", "integer", ".status.desired", "Sandboxes that there should be"),
		column("Ready", "integer", ".status.ready", "Sandboxes that wait for a task"),
		column("Running", "integer", ".status.running", "Sandboxes with a task"),
		column("Queued", "integer", ".status.queued", "Tasks that wait"),
		column("Nodes", "integer", ".status.nodes", "Nodes of the fleet, booting ones included"),
		column("Status", "string", ".status.summary", "The state in one word"),
		column("Age", "date", ".metadata.creationTimestamp", ""),
	}
}

// defaults is a spec with an element in every list that has defaults, so that
// Fleet.Default shows what it fills in.
func defaults() reflect.Value {
	f := v1alpha1.Fleet{Spec: v1alpha1.FleetSpec{
		Templates: []v1alpha1.Template{{}}, Tenants: []v1alpha1.Tenant{{}}, Targets: []v1alpha1.Target{{}}, Consumers: &v1alpha1.Consumers{},
		Capacity: v1alpha1.Capacity{Floors: []v1alpha1.Floor{{}}},
		Nodes: v1alpha1.Nodes{
			Provider:   v1alpha1.ProviderKubernetes,
			Kubernetes: &v1alpha1.KubernetesNodes{Tolerations: []v1alpha1.Toleration{{}}},
		},
	}}
	f.Default()
	return reflect.ValueOf(f.Spec)
}

// undefaulted are fields whose default depends on others, so that the control
// plane alone can fill them in.
var undefaulted = map[string]bool{
	"spec.nodes.provider": true, "spec.nodes.boot": true, "spec.nodes.slots": true, "spec.nodes": true,
	"spec.workers": true, "spec.templates[].image": true, "spec.capacity.floors[].template": true, "spec.targets[].reports": true,
}
