package helm

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// every runs f on each set of values.
func every(t *testing.T, f func(t *testing.T, r *Rendered)) {
	t.Helper()
	for name, values := range sets {
		t.Run(name, func(t *testing.T) { f(t, rendered(t, values)) })
	}
}

func deployment(t *testing.T, r *Rendered) *appsv1.Deployment {
	t.Helper()
	for _, o := range r.Objects {
		if o.GetKind() == "Deployment" {
			return typed(t, o).(*appsv1.Deployment)
		}
	}
	t.Fatal("no Deployment")
	return nil
}

// TestTheControlPlaneIsRestricted asks the code of the API server's own pod
// security admission.
func TestTheControlPlaneIsRestricted(t *testing.T) {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	every(t, func(t *testing.T, r *Rendered) {
		p := deployment(t, r).Spec.Template
		for _, result := range e.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &p.ObjectMeta, &p.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		c := p.Spec.Containers[0]
		if ro := c.SecurityContext.ReadOnlyRootFilesystem; ro == nil || !*ro {
			t.Error("the root file system can be written")
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Error("memory is not bounded")
		}
	})
}

// TestSQLiteIsNeverOpenTwice: a rolling update would start the second program
// beside the first.
func TestSQLiteIsNeverOpenTwice(t *testing.T) {
	every(t, func(t *testing.T, r *Rendered) {
		d := deployment(t, r)
		sqlite := slices.ContainsFunc(d.Spec.Template.Spec.Containers[0].Args, func(a string) bool { return strings.HasPrefix(a, "--store=sqlite:") })
		if sqlite != (d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType) {
			t.Errorf("sqlite %v with strategy %s", sqlite, d.Spec.Strategy.Type)
		}
		if sqlite && *d.Spec.Replicas != 1 {
			t.Errorf("%d replicas with SQLite", *d.Spec.Replicas)
		}
	})
}

// TestSelectors: what selects pods selects the leader's, and ports that are
// named exist.
func TestSelectors(t *testing.T) {
	every(t, func(t *testing.T, r *Rendered) {
		d := deployment(t, r)
		pod := labels.Set(d.Spec.Template.Labels)
		leader := labels.Merge(pod, labels.Set{"muster.dev/leader": "true"})
		ports := map[string]bool{}
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			ports[p.Name] = true
		}
		for _, o := range r.Objects {
			if slices.Contains(foreign, o.GetKind()) {
				continue
			}
			switch v := typed(t, o).(type) {
			case *corev1.Service:
				if !labels.SelectorFromSet(v.Spec.Selector).Matches(leader) || labels.SelectorFromSet(v.Spec.Selector).Matches(pod) {
					t.Errorf("Service %s selects %v, not the leader alone", v.Name, v.Spec.Selector)
				}
				for _, p := range v.Spec.Ports {
					if !ports[p.TargetPort.StrVal] {
						t.Errorf("Service %s: no port %s", v.Name, p.TargetPort.StrVal)
					}
				}
			case *policyv1.PodDisruptionBudget:
				if !labels.SelectorFromSet(v.Spec.Selector.MatchLabels).Matches(pod) {
					t.Errorf("the budget selects %v", v.Spec.Selector)
				}
			case *networkingv1.NetworkPolicy:
				if !labels.SelectorFromSet(v.Spec.PodSelector.MatchLabels).Matches(pod) {
					t.Errorf("the policy selects %v", v.Spec.PodSelector)
				}
				for _, in := range v.Spec.Ingress {
					if len(in.From) == 0 || !ports[in.Ports[0].Port.StrVal] {
						t.Errorf("the policy admits everybody, or to no port: %+v", in)
					}
				}
			}
		}
	})
}

// TestReferences: what the Deployment refers to is made by the chart, or was
// named by the user.
func TestReferences(t *testing.T) {
	given := []string{"muster-db", "muster-token", "gateway-tls", "pull", "mine", "old", "t"}
	every(t, func(t *testing.T, r *Rendered) {
		made := map[string]bool{}
		for _, o := range r.Objects {
			made[o.GetKind()+"/"+o.GetName()] = true
		}
		want := func(kind, name string) {
			if name != "" && !made[kind+"/"+name] && !slices.Contains(given, name) {
				t.Errorf("%s %s is nowhere", kind, name)
			}
		}
		spec := deployment(t, r).Spec.Template.Spec
		want("ServiceAccount", spec.ServiceAccountName)
		for _, e := range spec.Containers[0].Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				want("Secret", e.ValueFrom.SecretKeyRef.Name)
			}
		}
		mounts := map[string]bool{}
		for _, m := range spec.Containers[0].VolumeMounts {
			mounts[m.Name] = true
		}
		for _, v := range spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				want("PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
			}
			if v.Secret != nil {
				want("Secret", v.Secret.SecretName)
			}
			if !mounts[v.Name] {
				t.Errorf("volume %s is mounted nowhere", v.Name)
			}
		}
	})
}

// TestLeastPrivilege: no right is given on everything, secrets are read by
// name only, and nothing lets the control plane raise its own rights.
func TestLeastPrivilege(t *testing.T) {
	every(t, func(t *testing.T, r *Rendered) {
		accounts := map[string]bool{}
		for _, o := range r.Objects {
			switch v := typedOrNil(t, o).(type) {
			case *rbacv1.Role:
				judge(t, v.Name, v.Rules)
			case *rbacv1.ClusterRole:
				judge(t, v.Name, v.Rules)
			case *rbacv1.RoleBinding:
				accounts[v.Subjects[0].Name] = true
			case *rbacv1.ClusterRoleBinding:
				accounts[v.Subjects[0].Name] = true
			}
		}
		if accounts["muster-sandbox"] || len(accounts) > 1 {
			t.Errorf("rights are given to %v; want to the control plane alone", accounts)
		}
	})
}

func judge(t *testing.T, role string, rules []rbacv1.PolicyRule) {
	t.Helper()
	for _, rule := range rules {
		scale := slices.Equal(rule.Resources, []string{"*/scale"})
		if slices.Contains(rule.Verbs, "*") || slices.Contains(rule.Resources, "*") || slices.Contains(rule.APIGroups, "*") && !scale {
			t.Errorf("%s: %+v gives everything", role, rule)
		}
		if slices.Contains(rule.Resources, "secrets") && !slices.Equal(rule.Verbs, []string{"get"}) {
			t.Errorf("%s: secrets may be %v", role, rule.Verbs)
		}
		for _, never := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings", "pods/exec", "pods/attach", "serviceaccounts/token", "nodes/proxy", "pods/eviction"} {
			if slices.Contains(rule.Resources, never) {
				t.Errorf("%s: rights on %s", role, never)
			}
		}
	}
}

func typedOrNil(t *testing.T, o Object) any {
	t.Helper()
	if slices.Contains(foreign, o.GetKind()) {
		return nil
	}
	return typed(t, o)
}

var (
	metricInTable = regexp.MustCompile(`(?m)^\| ` + "`" + `(muster_[a-z_]+)` + "`" + ` \|`)
	metricInQuery = regexp.MustCompile(`\bmuster_[a-z_]+`)
)

// dashboardsAndRules are the files that ask for metrics.
func dashboardsAndRules(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"deploy/grafana/*.json", "deploy/prometheus/*.yaml"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		out = append(out, names...)
	}
	return out
}

// TestMonitoring: dashboards and rules ask for metrics that there are, as
// docs/metrics.md lists them (which is tested against /metrics), and show each.
func TestMonitoring(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	known, used := map[string]bool{}, map[string]bool{}
	for _, m := range metricInTable.FindAllStringSubmatch(string(table), -1) {
		known[m[1]] = true
	}
	if len(known) < 40 {
		t.Fatalf("only %d metrics found in docs/metrics.md", len(known))
	}
	for _, name := range dashboardsAndRules(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(b, &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, m := range metricInQuery.FindAllString(string(b), -1) {
			base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_count"), "_sum")
			used[base] = true
			if !known[base] {
				t.Errorf("%s asks for %s, which the server does not have", name, m)
			}
		}
	}
	for m := range known {
		if !used[m] && m != "muster_build_info" {
			t.Errorf("no panel and no rule shows %s", m)
		}
	}
}

// TestDashboardLayout: panels do not lie over one another, and each has a
// query and says what it shows.
func TestDashboardLayout(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json"))
	if err != nil || len(names) < 3 {
		t.Fatalf("dashboards %v, %v", names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) { checkLayout(t, name) })
	}
}

func checkLayout(t *testing.T, name string) {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
			Targets                  []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %d %q: its id is taken, or it says or asks nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// TestTheProgramKnowsItsArguments asks the real program.
func TestTheProgramKnowsItsArguments(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds muster")
	}
	program := filepath.Join(t.TempDir(), "muster")
	b := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/muster")
	b.Dir, b.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := b.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	every(t, func(t *testing.T, r *Rendered) {
		args := slices.DeleteFunc(deployment(t, r).Spec.Template.Spec.Containers[0].Args, func(a string) bool { return strings.HasPrefix(a, "--example") })
		if out, err := exec.CommandContext(t.Context(), program, append(args, "--help")...).CombinedOutput(); err != nil {
			t.Errorf("muster %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	})
}
