package operator

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
)

const template = "templates: [{name: default, image: debian:12}]\n"

// strict makes the API server refuse what it would drop.
var strict = metav1.CreateOptions{FieldValidation: "Strict"}

// TestRefusals: what is wrong is refused by the API server itself, in words that
// say what would be right.
func TestRefusals(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	const redis = "queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}"
	for _, x := range []struct{ name, spec, want string }{
		{"no-templates", "{}", "spec.templates"},
		{"empty-templates", "templates: []", "spec.templates"},
		{"unknown-field", template + "capcity: {}", "capcity"},
		{"no-image", "templates: [{name: a}]", "each wants an image, a reference such as debian:12"},
		{"host-image", "templates: [{name: a, image: host}]", "each wants an image"},
		{"mounts", "templates: [{name: a, image: x, mounts: [{source: /srv/a, target: /opt/a}]}]", "mounts show paths of the host"},
		{"same-name", "templates: [{name: a, image: x}, {name: a, image: y}]", "Duplicate value"},
		{"runtime", "templates: [{name: a, image: x, runtime: docker}]", `Unsupported value: "docker"`},
		{"runc", "templates: [{name: a, image: x, runtime: runc}]", "want auto, kubernetes, gvisor or kata"},
		{"template-name", "templates: [{name: Bad, image: x}]", "spec.templates[0].name"},
		{"network", "templates: [{name: a, image: x, network: {mode: none, allow: [github.com]}}]", "want mode: proxy, or no list"},
		{"pids", "templates: [{name: a, image: x, resources: {pids: -1}}]", "spec.templates[0].resources.pids"},
		{"duration", "templates: [{name: a, image: x, timeouts: {run: soon}}]", "spec.templates[0].timeouts.run"},
		{"range", template + "capacity: {sandboxes: {min: 10, max: 5}}", "min: is more than max"},
		{"range-default", template + "capacity: {sandboxes: {min: 500}}", "min: is more than max"},
		{"floor", template + "capacity: {sandboxes: {max: 5}, floors: [{cron: '0 8 * * *', for: 1h, min: 6}]}", "min is more than sandboxes.max"},
		{"floor-nothing", template + "capacity: {floors: [{cron: '0 8 * * *'}]}", "spec.capacity.floors[0].for"},
		{"provider", template + "nodes: {provider: aws}", `Unsupported value: "aws"`},
		{"host", template + "nodes: {provider: host}", "want kubernetes, or nothing"},
		{"external", template + "nodes: {provider: external}", "external only with mode: scale or shadow"},
		{"reserve", template + "nodes: {reserveMemory: 1Gi}", "limits are requests"},
		{"pool", template + "nodes: {kubernetes: {headroom: karpenter, nodeSelector: {a: b}}}", "the name of a static NodePool"},
		{"selector", template + "nodes: {kubernetes: {headroom: placeholder}}", "labels that only the nodes for agents have"},
		{"toleration", template + "nodes: {kubernetes: {tolerations: [{operator: Exists}]}}", "agents would tolerate every node"},
		{"nodes-range", template + "nodes: {min: 3, max: 2}", "min: is more than max"},
		{"secrets-dir", template + "secrets: {dir: /etc/x}", "a fleet in a cluster cannot read"},
		{"secrets-env", template + "secrets: {env: true}", "a fleet in a cluster cannot read"},
		{"webhook", template + "webhooks: {secret: HOOK}", "want secrets.kubernetes as well"},
		{"queue-type", template + "queue: {type: zeromq}", `Unsupported value: "zeromq"`},
		{"queue-block", template + "queue: {type: redis}", "redis: want this block with type: redis"},
		{"queue-other", template + "queue: {redis: {addresses: ['r:6379'], list: {name: q}}}", "redis: want this block with type: redis"},
		{"credential", template + redis + ", password: {file: /var/run/secrets/token}}}", "want secret: {name, key}"},
		{"both", template + "queue: {type: redis, redis: {addresses: ['r:6379']}}", "neither of list and stream"},
		{"signal", template + "queue: {type: http, http: {url: 'http://x', backlog: a.b}}", "can only be read"},
		{"scale", template + "mode: scale", "whose tasks only Muster can run"},
		{"targets", template + "targets: [{apiVersion: apps/v1, kind: Deployment, name: w}]", "written to in mode: scale only"},
		{"consumers", template + "consumers: {}", "want either replicas, or minReplicas and maxReplicas"},
		{"consumers-both", template + "consumers: {replicas: 2, maxReplicas: 4}", "want either replicas, or minReplicas and maxReplicas"},
		{"consumers-range", template + "consumers: {minReplicas: 4, maxReplicas: 2}", "minReplicas: want maxReplicas as well, and at most that"},
		{"consumers-queue", template + redis + "}}\nconsumers: {replicas: 2}", "want embedded, or no consumers"},
		{"consumers-warm", template + "nodes: {kubernetes: {warm: agent-sandbox}}\nconsumers: {replicas: 2}", "whose pools one process sizes"},
		{"workers", template + "workers: {startup: 3s}", "no meaning with mode: run"},
		{"payload", template + redis + "}, payload: {format: bytes}}", "want a task with format: bytes"},
		{"tenants", template + "tenants: [{name: a}, {name: a}]", "Duplicate value"},
		{"late-share", template + "scaling: {lateShare: 0.9}", "spec.scaling.lateShare"},
		{"bad-name-" + strings.Repeat("x", 60), template, `1-63 lower-case letters`},
		{"dotted.name", template, `1-63 lower-case letters`},
	} {
		_, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), fleetOf(t, ns, x.name, x.spec), strict)
		switch {
		case err == nil:
			t.Errorf("%s: accepted", x.name)
		case !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err):
			t.Errorf("%s: refused, but as %v", x.name, err)
		case !strings.Contains(err.Error(), x.want):
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

// TestAccepted: what the parser takes the API server takes, and what comes back
// is what the parser makes of it.
func TestAccepted(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "kubernetes-fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var u unstructured.Unstructured
	if err := yaml.Unmarshal(example, &u.Object); err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(u.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]string{
		"example":  string(asYAML),
		"smallest": template,
		"numbers":  "templates: [{name: a, image: x, resources: {cpus: 2, memory: 1073741824}}]",
		"whole": template + `
nodes:
  min: 1
  max: 20
  boot: 90s
  slots: 4
  kubernetes:
    nodeSelector: {muster.dev/pool: agents}
    tolerations: [{key: agents, operator: Exists, effect: NoSchedule}]
    headroom: karpenter
    nodePool: agents
    priorityClass: agents
    runtimeClasses: {gvisor: runsc}
    imagePullSecrets: [registry]
    warm: pods
    slotSize: {cpus: 2, memory: 4Gi}
secrets: {kubernetes: agents-secrets}
webhooks: {secret: HOOK}
tenants: [{name: a, weight: 2.5}, {name: b}]
scaling: {lateShare: 0.01, holdWarm: 1m30s}
retention: {tasks: "0"}`,
		"scale": template + `
mode: scale
queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}, password: {secret: {name: s, key: k}}}}
targets: [{apiVersion: apps/v1, kind: Deployment, name: w}, {apiVersion: apps/v1, kind: StatefulSet, name: nn, drives: nodes}]
workers: {startup: 3s}`,
		"consumers":        template + "consumers: {replicas: 3}",
		"consumers-scaled": template + "consumers: {maxReplicas: 9}",
		"bytes":            template + "queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}}, payload: {format: bytes, to: stdin, task: {command: [agent], network: {allow: [github.com]}}}}",
	} {
		o := fleetOf(t, ns, name, spec)
		given, err := parse(o)
		if err != nil {
			t.Errorf("%s: the parser refuses it: %v", name, err)
			continue
		}
		got, err := c.Dynamic.Resource(Resource).Namespace(ns).Create(t.Context(), o, strict)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back, err := parse(got)
		if err != nil {
			t.Errorf("%s: what came back is refused: %v", name, err)
			continue
		}
		given.Metadata, back.Metadata = v1alpha1.Metadata{}, v1alpha1.Metadata{}
		if d := cmp.Diff(given, back); d != "" {
			t.Errorf("%s: defaults of the definition are not those of the parser (-parser +cluster)\n%s", name, d)
		}
	}
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// TestUpgrade: an object that was written under an older definition, with a rule
// less, is still served, can be changed and has its status written.
func TestUpgrade(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	drop := func(u *unstructured.Unstructured) {
		versions, _, err := unstructured.NestedSlice(u.Object, "spec", "versions")
		if err != nil {
			t.Fatal(err)
		}
		unstructured.RemoveNestedField(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "x-kubernetes-validations")
		if err := unstructured.SetNestedSlice(u.Object, versions, "spec", "versions"); err != nil {
			t.Fatal(err)
		}
	}
	crds := c.Dynamic.Resource(definitions)
	now, err := crds.Get(t.Context(), "fleets.muster.dev", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old := now.DeepCopy()
	drop(old)
	if _, err := crds.Update(t.Context(), old, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	var made *unstructured.Unstructured
	eventually(t, "the older definition is in force", 20*time.Second, func(ctx context.Context) bool {
		made, err = fleets.Create(ctx, fleetOf(t, ns, "old", "templates: [{name: a}]"), strict)
		return err == nil
	})
	newer, err := crds.Get(t.Context(), "fleets.muster.dev", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	newer.Object["spec"] = now.Object["spec"]
	if _, err := crds.Update(t.Context(), newer, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newer definition is in force", 20*time.Second, func(ctx context.Context) bool {
		_, err := fleets.Create(ctx, fleetOf(t, ns, "newer", "templates: [{name: a}]"), strict)
		return apierrors.IsInvalid(err)
	})
	got, err := fleets.Get(t.Context(), "old", metav1.GetOptions{})
	if err != nil || got.GetUID() != made.GetUID() {
		t.Fatalf("the old object: %v", err)
	}
	status, err := json.Marshal(map[string]any{"status": v1alpha1.FleetStatus{Summary: summaryInvalid}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleets.Patch(t.Context(), "old", types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Errorf("the status of an old object cannot be written: %v", err)
	}
	mended := []byte(`{"spec": {"templates": [{"name": "a", "image": "debian:12"}]}}`)
	if _, err := fleets.Patch(t.Context(), "old", types.MergePatchType, mended, metav1.PatchOptions{}); err != nil {
		t.Errorf("an old object cannot be mended: %v", err)
	}
}
