package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/fleet"
)

// inCluster reads a spec as the control plane reads an object.
func inCluster(t *testing.T, spec string) (*Fleet, error) {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	return FromCluster(Metadata{Name: "agents", Namespace: "team-a"}, js)
}

const templateInCluster = "templates: [{name: default, image: debian:12}]\n"

func TestFleetsInACluster(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"smallest", templateInCluster, ""},
		{"whole", templateInCluster + `
nodes:
  provider: kubernetes
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
    warm: agent-sandbox
    slotSize: {cpus: 2, memory: 4Gi}
secrets: {kubernetes: agents-secrets}
webhooks: {secret: HOOK}`, ""},
		{"host", templateInCluster + "nodes: {provider: host}", "spec.nodes.provider: is host, which is one machine; want kubernetes, or nothing"},
		{"host image", "templates: [{name: a}]", "spec.templates[0].image: is left out, that is host, and the nodes of a cluster have only images of a registry; want a reference such as debian:12"},
		{"path", "templates: [{name: a, image: /srv/x}]", "spec.templates[0].image: is /srv/x"},
		{"mounts", "templates: [{name: a, image: x, mounts: [{source: /srv/a, target: /opt/a}]}]", "spec.templates[0].mounts: show paths of the host"},
		{"runc", "templates: [{name: a, image: x, runtime: runc}]", `"runc" is unknown; want auto, kubernetes, gvisor or kata`},
		{"reserve", templateInCluster + "nodes: {reserveMemory: 1Gi}", "spec.nodes.reserveMemory: has no meaning in a cluster"},
		{"pool", templateInCluster + "nodes: {kubernetes: {headroom: karpenter, nodeSelector: {a: b}}}", "spec.nodes.kubernetes.nodePool: is missing"},
		{"no pool", templateInCluster + "nodes: {kubernetes: {nodePool: x}}", "spec.nodes.kubernetes.nodePool: has no meaning"},
		{"selector", templateInCluster + "nodes: {kubernetes: {headroom: placeholder}}", "spec.nodes.kubernetes.nodeSelector: is missing"},
		{"every node", templateInCluster + "nodes: {kubernetes: {tolerations: [{operator: Exists}]}}", "agents would tolerate every node"},
		{"min", templateInCluster + "nodes: {min: 3, max: 2}", "spec.nodes.min: 3 is more than max, 2"},
		{"secrets dir", templateInCluster + "secrets: {dir: /etc/x}", "spec.secrets.dir: is the control plane's own"},
		{"secrets env", templateInCluster + "secrets: {env: true}", "spec.secrets.env: is the control plane's own"},
		{"token", templateInCluster + "queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}, password: {file: /var/run/secrets/token}}}",
			"spec.queue.redis.password: is the control plane's own, which a fleet in a cluster cannot read; want secret: {name, key}, in the fleet's namespace"},
		{"other namespace", templateInCluster + "queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}, password: {secret: {namespace: team-b, name: s, key: k}}}}",
			"spec.queue.redis.password.secret.namespace: team-b is another namespace; want team-a"},
		{"unknown field", templateInCluster + "nodes: {kubernetes: {nodeSelektor: {a: b}}}", "spec.nodes.kubernetes.nodeSelektor: is not a field of spec.nodes.kubernetes (did you mean nodeSelector?)"},
		{"targets", templateInCluster + "targets: [{apiVersion: apps/v1, kind: Deployment, name: w}]", "spec.targets: are written to in mode: scale only"},
	} {
		f, err := inCluster(t, c.spec)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err == nil:
			if f.Spec.Nodes.Provider != ProviderKubernetes || f.Spec.Nodes.Kubernetes.Headroom == "" || f.Spec.Nodes.OvercommitCPU != 0 {
				t.Errorf("%s: %+v", c.name, f.Spec.Nodes)
			}
			if err := f.Validate(); err != nil {
				t.Errorf("%s: valid until it was defaulted: %v", c.name, err)
			}
		}
	}
}

const scaled = templateInCluster + `
mode: scale
queue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}, password: {secret: {name: s, key: k}}}}
`

func TestTargets(t *testing.T) {
	f, err := inCluster(t, scaled+"targets: [{apiVersion: apps/v1, kind: Deployment, name: w}, {apiVersion: apps/v1, kind: Deployment, name: nodes, drives: nodes}]")
	if err != nil {
		t.Fatal(err)
	}
	if ns := f.Spec.Queue.Redis.Password.Secret.Namespace; ns != "team-a" {
		t.Errorf("a secret is read in namespace %q", ns)
	}
	want := []Target{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "w", Drives: "workers", PerReplica: 1, Reports: "optional"},
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "nodes", Drives: "nodes", PerReplica: 1, Reports: "off"},
	}
	if d := cmp.Diff(want, f.Spec.Targets); d != "" {
		t.Error(d)
	}
	for target, want := range map[string]string{
		"{apiVersion: a/b/c, kind: D, name: w}":                                  `apiVersion: "a/b/c" is none`,
		"{kind: D, name: w}":                                                     "apiVersion: \"\" is none",
		"{apiVersion: v1, name: w}":                                              "kind: is missing",
		"{apiVersion: v1, kind: D, name: W}":                                     `name: "W" cannot be one`,
		"{apiVersion: v1, kind: D, name: w, min: 3, max: 1}":                     "min: 3 is more than max, 1",
		"{apiVersion: v1, kind: D, name: w, template: x}":                        `template: "x" does not exist; want default`,
		"{apiVersion: v1, kind: D, name: w, drives: nodes, template: default}":   "template: has no meaning",
		"{apiVersion: v1, kind: D, name: w, drives: pods}":                       `drives: "pods" is unknown`,
		"{apiVersion: v1, kind: D, name: w}, {apiVersion: v1, kind: D, name: w}": "drives the object of spec.targets[0], too",
	} {
		if _, err := inCluster(t, scaled+"targets: ["+target+"]"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}

func TestSlotResources(t *testing.T) {
	f, err := inCluster(t, `templates: [{name: a, image: x, resources: {cpus: 1, memory: 4Gi}}, {name: b, image: x, resources: {cpus: 2, memory: 1Gi}}]`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.SlotResources()
	if err != nil || got.MilliCPU != 2000 || got.MemoryBytes != 4<<30 {
		t.Errorf("%+v, %v", got, err)
	}
	f.Spec.Nodes.Kubernetes.SlotSize = SlotSize{CPUs: "500m", Memory: "1Gi"}
	if got, err = f.SlotResources(); err != nil || got.MilliCPU != 500 || got.MemoryBytes != 1<<30 {
		t.Errorf("%+v, %v", got, err)
	}
	ts, err := f.TemplateSpecs()
	if err != nil || ts[0].Runtime != fleet.RuntimeAuto {
		t.Errorf("%+v, %v", ts, err)
	}
}

// TestMustBeRestarted: what can be changed while tasks run is.
func TestMustBeRestarted(t *testing.T) {
	for change, want := range map[string]bool{
		"": false, "capacity: {sandboxes: {max: 3}}": false, "objective: {startP99: 1s}": false, "cost: {nodeHourUSD: 2}": false,
		"nodes: {slots: 2}": true, "secrets: {kubernetes: x}": true, "queue: {visibility: 1m}": true,
	} {
		a, err := inCluster(t, templateInCluster)
		if err != nil {
			t.Fatal(err)
		}
		b, err := inCluster(t, templateInCluster+change)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.MustBeRestarted(b); got != want {
			t.Errorf("%q: %t", change, got)
		}
	}
}

// TestFilesOfACluster: a file that names the cluster is checked as the cluster
// would check it, and refused on one machine.
func TestFilesOfACluster(t *testing.T) {
	const head = "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: a, namespace: team-a, annotations: {x: y}}\nspec: {templates: [{name: default, image: debian:12}], "
	f, err := ParseFleet([]byte(head + "nodes: {provider: kubernetes}, secrets: {kubernetes: s}}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckLocal(); err == nil || !strings.Contains(err.Error(), "spec.nodes.provider: is kubernetes, and this is one machine") ||
		!strings.Contains(err.Error(), "spec.secrets.kubernetes: ") {
		t.Error(err)
	}
	if _, err := ParseFleet([]byte(head + "nodes: {provider: kubernetes}, secrets: {env: true}}")); err == nil || !strings.Contains(err.Error(), "spec.secrets.env: is the control plane's own") {
		t.Error(err)
	}
	if f, err = ParseFleet([]byte(head + "}")); err != nil || f.CheckLocal() != nil {
		t.Errorf("a fleet for either: %v, %v", err, f.CheckLocal())
	}
}
