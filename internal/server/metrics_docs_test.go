package server

import (
	"bytes"
	flags "flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"muster.dev/muster/internal/fleet"
)

var update = flags.Bool("update", false, "write the table of docs/metrics.md anew")

// busy is a fleet in which there is something of everything.
func busy() fleet.View {
	return fleet.View{
		SignalsAsOf: time.Now(), NodesDesired: 1, NodeHourMicroUSD: 400_000, ObjectiveP99: 5 * time.Second,
		Queues:     []fleet.QueueView{{Name: "embedded", AsOf: time.Now(), Backlog: 3}, {Name: "redis", Error: "connection refused"}},
		Nodes:      []fleet.NodeView{{Node: fleet.Node{State: fleet.NodeReady, Slots: 10}, Used: 4}},
		Dedication: &fleet.DedicationView{At: time.Now(), Trespasses: []fleet.Trespass{{Kind: fleet.TrespassOpen}}},
		Pools: []fleet.PoolView{
			{Pool: "default", Template: "default", Bound: "node.slots", TimeToEmpty: time.Second, StartLead: fleet.Lead{P50: time.Second, Samples: 3}},
			{Pool: "default~0123456789ab", Template: "default", Bound: "node.slots", TimeToEmpty: -1},
		},
	}
}

// tell tells a meter something of everything.
func tell(m *Meter) {
	m.Started("default~0123456789ab", fleet.LaunchWarm, 4*time.Millisecond)
	m.Settled(fleet.Task{State: fleet.TaskSucceeded, Launch: fleet.LaunchWarm, StartedAt: time.Now(), Phases: fleet.Phases{Run: time.Second}})
	m.Decided(fleet.Decided{Took: time.Millisecond, Changed: true, Why: []fleet.DecidedWhy{{Layer: "sandboxes", Cause: "demand"}}})
	m.Reacted(fleet.ReactTotal, time.Second)
	m.Late()
	m.Created("default", fleet.StartReady, time.Second)
	m.Created("default", "made up", time.Second)
	m.Booted(time.Minute, true)
	m.Booted(0, false)
	m.Happened("scale_out")
	m.Stored("submit", time.Millisecond, nil)
	m.Stored("submit", time.Millisecond, fmt.Errorf("submit: %w", fleet.ErrUnavailable))
	m.Hooked(HookDelivered)
	m.Charged(fleet.Charged{NodeSeconds: 10, BusySeconds: 4, PerHour: 400_000, By: []fleet.ChargedFor{
		{Cause: "task", Tenant: "payments", MicroUSD: 1500}, {Cause: "headroom", MicroUSD: 500}}})
}

func (r *rig) families() map[string]*dto.MetricFamily {
	r.t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	f, err := p.TextToMetricFamilies(strings.NewReader(r.scrape()))
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// TestMetricsAreDocumented: the table of docs/metrics.md is what /metrics shows
// of a fleet in which there is something of everything. -update writes it anew.
func TestMetricsAreDocumented(t *testing.T) {
	r := newRig(t)
	r.engine.view = busy()
	tell(r.meter)
	families := r.families()
	var b strings.Builder
	b.WriteString("| metric | type | unit | labels | what it is |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		var labels []string
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(labels, "`"+l.GetName()+"`") {
					labels = append(labels, "`"+l.GetName()+"`")
				}
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), unitOf(name), strings.Join(labels, ", "), f.GetHelp())
	}
	const path, from, until = "../../docs/metrics.md", "<!-- metrics: made by go test ./internal/server -run Documented -update -->\n", "<!-- end of metrics -->"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), from)
	table, after, ok2 := strings.Cut(rest, until)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has lost the marks of its table", path)
	case *update:
		if err := os.WriteFile(path, []byte(before+from+b.String()+until+after), 0o600); err != nil {
			t.Fatal(err)
		}
	case table != b.String():
		t.Errorf("%s is not what /metrics shows; run go test ./internal/server -run Documented -update", path)
	}
}

func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	switch {
	case strings.HasSuffix(name, "_usd_per_hour"):
		return "US dollars an hour"
	case strings.HasSuffix(name, "_usd"):
		return "US dollars"
	case strings.HasSuffix(name, "_seconds"):
		return "seconds"
	case strings.HasSuffix(name, "_rate"):
		return "tasks a second"
	case strings.HasSuffix(name, "_error"), strings.HasSuffix(name, "_open"), strings.HasSuffix(name, "_up"), strings.HasSuffix(name, "_info"),
		name == "muster_leader", name == "muster_binding":
		return "0 or 1"
	}
	return "count"
}

// TestPromtool: Prometheus' own linter has nothing to say.
func TestPromtool(t *testing.T) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	r := newRig(t)
	r.engine.view = busy()
	tell(r.meter)
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(r.scrape())
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLabelsAreBounded: what users write (templates, tenants, kinds of events)
// and ids cannot grow a scrape without end.
func TestLabelsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 5000 {
		name := fmt.Sprintf("n%d", i)
		r.meter.Started(fleet.PoolKey(name), fleet.LaunchWarm, 0)
		r.meter.Created(name, name, 0)
		r.meter.Happened(name)
		r.meter.Settled(fleet.Task{ID: fleet.TaskID(name), Sandbox: fleet.SandboxID(name), State: fleet.TaskState(name), Launch: fleet.Launch(name), StartedAt: time.Now(), Result: fleet.Result{Reason: fleet.TaskReason(name)}})
		r.meter.Charged(fleet.Charged{By: []fleet.ChargedFor{{Cause: "task", Tenant: fleet.TenantID(name), MicroUSD: 1_000_000}}})
	}
	for name, f := range r.families() {
		if n := len(f.GetMetric()); n > mostTemplates+1 {
			t.Errorf("%s has %d series", name, n)
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if n := l.GetName(); n == "task" || n == "sandbox" || n == "node" || n == "pool" {
					t.Errorf("%s has the label %s, which has no bound", name, n)
				}
			}
		}
	}
	sum := 0.0
	for _, m := range r.families()["muster_tenant_cost_usd_total"].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	if sum < 4999.9 || sum > 5000.1 {
		t.Errorf("the tenants' cost adds up to $%f, want 5000: nothing is lost with those that are not told apart", sum)
	}
}

// TestNativeHistograms: a scraper that asks for them gets native buckets, one
// that does not gets classic ones.
func TestNativeHistograms(t *testing.T) {
	r := newRig(t)
	tell(r.meter)
	req := r.request("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	resp := r.do(req)
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	dec, native := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header)), 0
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err != nil {
			break
		}
		if f.GetType() != dto.MetricType_HISTOGRAM || !strings.HasPrefix(f.GetName(), "muster_") {
			continue
		}
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h.Schema == nil || len(h.GetBucket()) == 0 {
				t.Errorf("%s: schema %v with %d classic buckets", f.GetName(), h.Schema, len(h.GetBucket()))
			}
		}
		native++
	}
	if native < 8 {
		t.Errorf("%d native histograms", native)
	}
	if !strings.Contains(r.scrape(), `muster_reaction_seconds_bucket{stage="total",le="1"} 1`) {
		t.Error("no classic buckets in the text")
	}
}

// TestLeadership: one that stands by says so, and shows no fleet.
func TestLeadership(t *testing.T) {
	why := "another one leads"
	f, err := NewFleets(FleetsConfig{Token: testToken, Standby: func() string { return why }})
	if err != nil {
		t.Fatal(err)
	}
	read := func() map[string]float64 {
		got, err := f.own.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, mf := range got {
			out[mf.GetName()] = mf.GetMetric()[0].GetGauge().GetValue()
		}
		return out
	}
	if v, ok := read()["muster_leader"]; !ok || v != 0 {
		t.Errorf("stands by with muster_leader %v, %v", v, ok)
	}
	if why = ""; read()["muster_leader"] != 1 {
		t.Error("leads with muster_leader 0")
	}
}
