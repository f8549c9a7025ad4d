package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

const rulesFile = "../../deploy/prometheus/muster.yaml"

// rules is a file of rules.
type rules struct {
	Groups []struct {
		Name  string
		Rules []map[string]any
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	b, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var r rules
	if err := yaml.UnmarshalStrict(b, &map[string]any{}); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAlerts: each alert fires when it should and not before, and says what to
// do; the rules are tested by Prometheus' own tool.
func TestAlerts(t *testing.T) {
	promtool := servers.Program(t, "promtool")
	b, err := os.ReadFile("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := readRules(t)
	for _, g := range r.Groups {
		for _, rule := range g.Rules {
			name, is := rule["alert"].(string)
			if !is {
				continue
			}
			said, _ := rule["annotations"].(map[string]any)
			labels, _ := rule["labels"].(map[string]any)
			if len(fmt.Sprint(said["runbook"])) < 80 || said["summary"] == nil || labels["severity"] == nil {
				t.Errorf("%s has no summary, no severity or no runbook", name)
			}
			if !regexp.MustCompile(`alertname: ` + name + `\b[^\n]*\n[^\n]*\n +exp_alerts: \[\{`).Match(b) {
				t.Errorf("no test lets %s fire", name)
			}
			delete(rule, "annotations") // they would have to be written twice
		}
	}
	dir := t.TempDir()
	plain, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	plain = regexp.MustCompile(`(?m)^Groups:`).ReplaceAll(plain, []byte("groups:"))
	plain = regexp.MustCompile(`(?m)^( *-? ?)Name:`).ReplaceAll(plain, []byte("${1}name:"))
	plain = regexp.MustCompile(`(?m)^( *-? ?)Rules:`).ReplaceAll(plain, []byte("${1}rules:"))
	for name, text := range map[string][]byte{"rules.yaml": plain, "test.yaml": []byte(strings.ReplaceAll(string(b), "RULES", "rules.yaml"))} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", filepath.Join(dir, "test.yaml")}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// mayBeEmpty tells whether a query may find nothing in the fleet of
// TestQueriesFindSomething: an alert where nothing is wrong (TestAlerts shows
// what they find), and breaches where nodes are not meant for agents alone.
func mayBeEmpty(where, expr string) bool {
	return strings.HasPrefix(where, "alert ") || strings.Contains(expr, "muster_dedication_breaches")
}

const monitoredFleet = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: monitored}
spec:
  templates:
    - {name: default, runtime: runc, image: host, resources: {cpus: 1, memory: 256Mi, pids: 128, disk: 64Mi}, network: {mode: none}}
    - {name: broken, runtime: runc, image: host, prepare: ["exit 3"], resources: {cpus: 1, memory: 256Mi, pids: 128, disk: 64Mi}, network: {mode: none}}
  objective: {startP99: 10ms}
  capacity: {sandboxes: {min: 1, max: 3}}
  cost: {nodeHourUSD: 100}
`

// TestQueriesFindSomething: every query of the dashboards, of their variables
// and of the rules is asked of a real Prometheus that scrapes a real fleet under
// load; each is understood, and finds series, but for what mayBeEmpty lists.
func TestQueriesFindSomething(t *testing.T) {
	needSandboxes(t)
	servers.Program(t, "prometheus")
	hooks := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hooks.Close()
	m := newMachine(t, monitoredFleet)
	m.start()
	at, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	p := servers.PrometheusOf(t, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: muster
    static_configs: [{targets: [%q], labels: {namespace: ns, fleet: monitored}}]
`, at, strings.TrimPrefix(m.base, "http://")), "", "")
	client := prometheus{t, "http://" + p.Address}
	client.await("muster_view_up") // the first scrape is before the load: what counts from zero is seen to rise
	load := func() {
		for range 6 {
			m.must("submit", "--label", "tenant=payments", "--webhook", hooks.URL, "--", "sleep", "0.2")
		}
		m.must("submit", "--", "sh", "-c", "exit 3")
	}
	load()
	m.must("submit", "--template", "broken", "--", "true")
	queries := shippedQueries(t)
	missing := map[string]string{}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); load() {
		missing = map[string]string{}
		for where, expr := range queries {
			if client.query(where, expr) == 0 && !mayBeEmpty(where, expr) {
				missing[where] = expr
			}
		}
		if len(missing) == 0 {
			break
		}
		time.Sleep(2 * time.Second) // another program scrapes
	}
	for where, expr := range missing {
		t.Errorf("%s finds nothing: %s", where, expr)
	}
	for _, a := range client.broken() {
		t.Error(a)
	}
}

// shippedQueries are the queries of all that is shipped, by where they are, as
// Grafana asks them when everything is chosen.
func shippedQueries(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, g := range readRules(t).Groups {
		for i, r := range g.Rules {
			if name, is := r["alert"]; is {
				out[fmt.Sprintf("alert %d %s", i, name)] = fmt.Sprint(r["expr"])
			} else {
				out[fmt.Sprintf("record %s", r["record"])] = fmt.Sprint(r["record"]) // what it made
			}
		}
	}
	chosen := strings.NewReplacer("$namespace", ".*", "$fleet", ".*", "$template", ".*", "$__rate_interval", "30s")
	values := regexp.MustCompile(`^label_values\((.*), \w+\)$`)
	names, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(names) < 3 {
		t.Fatalf("dashboards %v, %v", names, err)
	}
	for _, name := range names {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ RefID, Expr string }
			}
			Templating struct {
				List []struct{ Name, Type, Definition string }
			}
		}
		b, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(b, &d)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		base := filepath.Base(name)
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			m := values.FindStringSubmatch(v.Definition)
			if m == nil {
				t.Fatalf("%s: the variable %s asks %q", base, v.Name, v.Definition)
			}
			out[base+" variable "+v.Name] = chosen.Replace(m[1])
		}
		for i, p := range d.Panels {
			for _, q := range p.Targets {
				out[fmt.Sprintf("%s panel %d %q %s", base, i, p.Title, q.RefID)] = chosen.Replace(q.Expr)
			}
		}
	}
	for where, q := range out {
		if strings.Contains(q, "$") {
			t.Errorf("%s has a variable that is not known here: %s", where, q)
		}
	}
	return out
}

// prometheus is a client of one.
type prometheus struct {
	t    *testing.T
	base string
}

func (p prometheus) get(path string, v any) {
	p.t.Helper()
	r, err := http.Get(p.base + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
}

// query returns how many series a query finds now.
func (p prometheus) query(where, expr string) int {
	p.t.Helper()
	var a struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	p.get("/api/v1/query?query="+url.QueryEscape(expr), &a)
	if a.Status != "success" {
		p.t.Fatalf("%s: %s\n%s", where, a.Error, expr)
	}
	return len(a.Data.Result)
}

func (p prometheus) await(expr string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); p.query("a scrape", expr) == 0; time.Sleep(200 * time.Millisecond) { // another program scrapes
		if time.Now().After(deadline) {
			p.t.Fatalf("%s did not show within a minute", expr)
		}
	}
}

// broken names the rules that could not be evaluated, and scrapes that failed.
func (p prometheus) broken() []string {
	p.t.Helper()
	var r struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	p.get("/api/v1/rules", &r)
	out, n := map[string]bool{}, 0
	for _, g := range r.Data.Groups {
		for _, x := range g.Rules {
			if n++; x.Health != "ok" {
				out[fmt.Sprintf("rule %s is %s: %s", x.Name, x.Health, x.LastError)] = true
			}
		}
	}
	if n < 20 {
		out[fmt.Sprintf("Prometheus has %d rules", n)] = true
	}
	return slices.Sorted(maps.Keys(out))
}
