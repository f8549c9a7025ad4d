package helm

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// sets are values that users really give, as they would write them.
var sets = map[string]string{
	"as it comes": ``,
	"several replicas on PostgreSQL": `
replicas: 3
store: {type: postgres, postgres: {existingSecret: muster-db}}
api: {token: {existingSecret: muster-token}}
fleets: {namespace: agents}
image: {repository: "registry.example:5000/team/muster", digest: "sha256:` + strings.Repeat("a1", 32) + `", pullSecrets: [pull]}
serviceMonitor: {create: true, labels: {release: prometheus}}
prometheusRule: {create: true}
dashboards: {create: true, namespace: monitoring}
secrets: {names: [api-keys, queue]}
`,
	"fleets everywhere, every right": `
fleets: {allNamespaces: true}
rbac: {karpenter: true, scaleTargets: true}
gateway: {address: "muster.example:443", tlsSecret: gateway-tls, port: 8443}
networkPolicy: {apiFrom: [{namespaceSelector: {matchLabels: {team: ci}}}], metricsFrom: [{namespaceSelector: {}}]}
nodeSelector: {pool: system}
tolerations: [{key: system, operator: Exists}]
affinity: {nodeAffinity: {}}
podAnnotations: {a: b}
podLabels: {c: d}
env: [{name: AWS_REGION, value: eu-central-1}]
extraArgs: ["--example=1"]
serviceAccount: {annotations: {role: x}}
`,
	"nothing but the program": `
rbac: {create: false}
serviceAccount: {create: false, name: mine}
sandboxes: {serviceAccount: {create: false}}
priorityClasses: {create: false}
networkPolicy: {create: false}
podDisruptionBudget: {create: false}
store: {type: sqlite, sqlite: {existingClaim: old}}
api: {token: {existingSecret: t}}
`,
	"the least of the rights": `
rbac: {nodes: false, capacityBuffers: false, agentSandbox: false, metrics: false}
store: {type: sqlite, sqlite: {size: 5Gi, storageClass: fast}}
fullnameOverride: fleet
`,
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func rendered(t *testing.T, values string) *Rendered {
	t.Helper()
	c, err := Load(filepath.Join(root, chartDir))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Render(c, Release{Name: "muster", Namespace: "control", Values: parsed(t, values)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLint(t *testing.T) {
	for name, values := range sets {
		t.Run(name, func(t *testing.T) {
			l := lint.RunAll(filepath.Join(root, chartDir), parsed(t, values), "control")
			for _, m := range l.Messages {
				if m.Severity >= support.WarningSev {
					t.Error(m)
				}
			}
		})
	}
}

// foreign are kinds of operators that may not be installed; what the chart
// says of them is checked in TestMonitoring.
var foreign = []string{"ServiceMonitor", "PrometheusRule"}

// typed decodes an object as the API server would with strict validation.
func typed(t *testing.T, o Object) runtime.Object {
	t.Helper()
	codec := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	got, _, err := codec.Decode(o.YAML, nil, nil)
	if err != nil {
		t.Fatalf("%s: %s %s: %v\n%s", o.Template, o.GetKind(), o.GetName(), err, o.YAML)
	}
	return got
}

func TestEveryObjectIsOne(t *testing.T) {
	for name, values := range sets {
		t.Run(name, func(t *testing.T) {
			r := rendered(t, values)
			seen := map[string]bool{}
			for _, o := range r.Objects {
				if !slices.Contains(foreign, o.GetKind()) {
					typed(t, o)
				}
				id := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
				if seen[id] {
					t.Errorf("%s is there twice", id)
				}
				seen[id] = true
				if o.GetLabels()["app.kubernetes.io/name"] == "" {
					t.Errorf("%s does not say whose it is", id)
				}
				clusterWide := slices.Contains([]string{"ClusterRole", "ClusterRoleBinding", "PriorityClass"}, o.GetKind())
				if clusterWide != (o.GetNamespace() == "") {
					t.Errorf("%s: namespace %q", id, o.GetNamespace())
				}
			}
			if !strings.Contains(r.Notes, "muster doctor --kubernetes") {
				t.Errorf("the notes do not name the next step:\n%s", r.Notes)
			}
		})
	}
}

func kinds(r *Rendered) string {
	count := map[string]int{}
	for _, o := range r.Objects {
		count[o.GetKind()]++
	}
	return strings.Join(slices.Sorted(maps.Keys(count)), " ")
}

func TestWhatIsAskedForIsThere(t *testing.T) {
	for name, want := range map[string]string{
		"as it comes":                    "ClusterRole ClusterRoleBinding Deployment NetworkPolicy PersistentVolumeClaim PriorityClass Role RoleBinding Secret Service ServiceAccount",
		"several replicas on PostgreSQL": "ClusterRole ClusterRoleBinding ConfigMap Deployment NetworkPolicy PodDisruptionBudget PriorityClass PrometheusRule Role RoleBinding Service ServiceAccount ServiceMonitor",
		"nothing but the program":        "Deployment Service",
	} {
		if got := kinds(rendered(t, sets[name])); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestBadValues: what cannot be is refused, and the message names the value.
func TestBadValues(t *testing.T) {
	c, err := Load(filepath.Join(root, chartDir))
	if err != nil {
		t.Fatal(err)
	}
	for values, want := range map[string]string{
		`replica: 2`:              "replica",
		`replicas: two`:           "/replicas",
		`replicas: 3`:             "store.type: postgres",
		`store: {type: mysql}`:    "/store/type",
		`store: {type: postgres}`: "store.postgres.existingSecret",
		`store: {type: sqlite, sqlite: {size: 5}}`:                        "/store/sqlite/size",
		`image: {repository: "muster:latest@x"}`:                          "/image/repository",
		`image: {digest: sha256:123}`:                                     "/image/digest",
		`image: {pullPolicy: Sometimes}`:                                  "/image/pullPolicy",
		`api: {port: 80}`:                                                 "/api/port",
		`gateway: {address: "https://a:1"}`:                               "/gateway/address",
		`gateway: {address: "a"}`:                                         "/gateway/address",
		`fleets: {namespace: a, allNamespaces: true}`:                     "fleets.namespace",
		`fleets: {namespace: Agents}`:                                     "/fleets/namespace",
		`priorityClasses: {seats: {name: s, value: 5}}`:                   "/priorityClasses/seats/value",
		`priorityClasses: {seats: {name: s, value: -20}}`:                 "/priorityClasses/seats/value",
		`lease: {name: Not_A_Name}`:                                       "/lease/name",
		`logLevel: trace`:                                                 "/logLevel",
		`rbac: {everything: true}`:                                        "everything",
		`extraArgs: [serve]`:                                              "/extraArgs/0",
		`env: [{value: x}]`:                                               "/env/0",
		`resources: {limits: {memory: lots}}`:                             "/resources/limits/memory",
		`secrets: {names: [Bad_Name]}`:                                    "/secrets/names/0",
		`serviceMonitor: {interval: soon}`:                                "/serviceMonitor/interval",
		`sandboxes: {serviceAccount: {create: true, name: ""}}`:           "/sandboxes/serviceAccount/name",
		`networkPolicy: {apiFrom: {podSelector: {}}}`:                     "/networkPolicy/apiFrom",
		`podDisruptionBudget: {create: "yes"}`:                            "/podDisruptionBudget/create",
		`terminationGracePeriodSeconds: 0`:                                "/terminationGracePeriodSeconds",
		`store: {type: sqlite, sqlite: {storageClass: "Not A Class"}}`:    "/store/sqlite/storageClass",
		`api: {service: {type: ExternalName}}`:                            "/api/service/type",
		`dashboards: {create: true, labels: {grafana_dashboard: 1}}`:      "/dashboards/labels/grafana_dashboard",
		`nodeSelector: {pool: 1}`:                                         "/nodeSelector/pool",
		`fullnameOverride: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`: "/fullnameOverride",
	} {
		_, err := Render(c, Release{Name: "muster", Namespace: "control", Values: parsed(t, values)})
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "at '", "at '"), want) {
			t.Errorf("%s: %v; want it to name %s", values, err, want)
		}
	}
}

// TestSchemaIsComplete: each value that values.yaml shows is in the schema,
// which has nothing that values.yaml does not show, so that neither is stale.
func TestSchemaIsComplete(t *testing.T) {
	values, err := os.ReadFile(filepath.Join(root, chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "", parsed(t, string(values)), parsed(t, string(b)))
}

func compare(t *testing.T, at string, values, schema map[string]any) {
	t.Helper()
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		return // a free map: labels, resources
	}
	if schema["additionalProperties"] != false {
		t.Errorf("%s: the schema takes unknown names", at)
	}
	for name, v := range values {
		inner, ok := properties[name].(map[string]any)
		if !ok {
			t.Errorf("%s/%s is in values.yaml and not in the schema", at, name)
			continue
		}
		if m, ok := v.(map[string]any); ok {
			compare(t, at+"/"+name, m, inner)
		}
	}
	for name := range properties {
		if _, ok := values[name]; !ok && at+"/"+name != "/global" && at+"/"+name != "/resources/claims" {
			t.Errorf("%s/%s is in the schema and not in values.yaml", at, name)
		}
	}
}

func TestNothingIsStale(t *testing.T) {
	files, err := Generated(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): run make manifests", name, err)
		}
	}
	if len(files) < 2 {
		t.Errorf("only %d files are made; the walk is broken", len(files))
	}
}

// TestReleasesOfOneNamespace: two releases elect apart, and share no object but
// the priority classes, which the second leaves out.
func TestReleasesOfOneNamespace(t *testing.T) {
	c, err := Load(filepath.Join(root, chartDir))
	if err != nil {
		t.Fatal(err)
	}
	leases, objects := map[string]string{}, map[string]string{}
	for release, values := range map[string]string{
		"muster": `fleets: {namespace: team-a}`,
		"second": `{fleets: {namespace: team-b}, priorityClasses: {create: false}}`,
		"third":  `{fleets: {namespace: team-c}, priorityClasses: {create: false}, lease: {name: mine}}`,
	} {
		r, err := Render(c, Release{Name: release, Namespace: "control", Values: parsed(t, values)})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range r.Objects {
			name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
			if other, taken := objects[name]; taken {
				t.Errorf("%s is of both %s and %s", name, other, release)
			}
			objects[name] = release
			if o.GetKind() == "Deployment" {
				d := typed(t, o).(*appsv1.Deployment)
				for _, arg := range d.Spec.Template.Spec.Containers[0].Args {
					if lease, ok := strings.CutPrefix(arg, "--lease="); ok {
						leases[release] = lease
					}
				}
			}
		}
	}
	if leases["muster"] != "muster" || leases["second"] != "second-muster" || leases["third"] != "mine" {
		t.Errorf("%v", leases)
	}
}
