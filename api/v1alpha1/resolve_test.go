package v1alpha1

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

// oneFleet is a fleet to resolve tasks in.
var oneFleet = func() *Fleet {
	f, err := ParseFleet([]byte(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: x}
spec:
  templates:
    - name: default
    - name: web
      repos: ["https://github.com/acme/web.git"]
      resources: {cpus: 2, memory: 4Gi}
      network: {mode: proxy, allow: [github.com, npmjs.org]}
      timeouts: {run: 30m}
`))
	if err != nil {
		panic(err)
	}
	return f
}()

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func resolved(t *testing.T, s TaskSpec) fleet.TaskSpec {
	t.Helper()
	out, err := oneFleet.ResolveTask(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestResolveChoosesTheTemplate(t *testing.T) {
	for _, c := range []struct {
		spec TaskSpec
		want string
	}{
		{TaskSpec{}, "default"},
		{TaskSpec{Template: "web"}, "web"},
		{TaskSpec{Repo: &Repo{URL: "https://github.com/acme/web"}}, "web"},
		{TaskSpec{Repo: &Repo{URL: "https://github.com/acme/web.git/"}}, "web"},
		{TaskSpec{Repo: &Repo{URL: "https://github.com/acme/api"}}, "default"},
		{TaskSpec{Template: "default", Repo: &Repo{URL: "https://github.com/acme/web"}}, "default"},
	} {
		c.spec.Command = []string{"x"}
		if got := resolved(t, c.spec); got.Template != c.want || got.Pool != fleet.PoolKey(c.want) {
			t.Errorf("%+v goes to %s, pool %s; want %s", c.spec, got.Template, got.Pool, c.want)
		}
	}
}

func TestResolveDefaults(t *testing.T) {
	one := 1
	got := resolved(t, TaskSpec{
		Template: "web", Command: []string{"x"}, Repo: &Repo{URL: "/srv/r", Ref: "main"}, Labels: map[string]string{"team": "a", "tenant": "b"},
		Timeouts: &Timeouts{Idle: "5m"}, Retries: &Retries{Max: &one, OnExit: true}, Budget: &TaskBudget{MaxUSD: 1.5}, NotBefore: "+10m",
	})
	want := fleet.TaskSpec{
		Labels: map[string]string{"team": "a", "tenant": "b"}, Tenant: "b", Template: "web", Pool: "web",
		Repo: &fleet.Repo{URL: "/srv/r", Ref: "main", Depth: 1}, Command: []string{"x"}, Image: "host",
		Resources: fleet.Resources{MilliCPU: 2000, MemoryBytes: 4 << 30, Pids: 512, DiskBytes: 10 << 30, Files: 4096, LogBytes: 64 << 20},
		Network:   fleet.Network{Mode: "proxy", Allow: []string{"github.com", "npmjs.org"}},
		Timeouts:  fleet.Timeouts{Queue: 24 * time.Hour, Startup: time.Minute, Run: 30 * time.Minute, Idle: 5 * time.Minute},
		Retries:   fleet.RetryPolicy{Max: 1, OnExit: true, Backoff: time.Second}, MaxMicroUSD: 1_500_000, NotBefore: now.Add(10 * time.Minute),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	plain := resolved(t, TaskSpec{Command: []string{"x"}, Repo: &Repo{URL: "/srv/r", Depth: -1}, Labels: map[string]string{"team": "a"}})
	if plain.Tenant != "a" || plain.Repo.Depth != 0 || plain.Retries.Max != 3 {
		t.Errorf("%+v", plain)
	}
	if d := resolved(t, TaskSpec{Command: []string{"x"}}); d.Tenant != "default" {
		t.Errorf("tenant %q", d.Tenant)
	}
}

// TestVariants: a task that wants another sandbox than its template's gets a
// pool of its own, the same for all that want the same.
func TestVariants(t *testing.T) {
	ts, err := oneFleet.TemplateSpecs()
	if err != nil {
		t.Fatal(err)
	}
	web := ts[1]
	same := []TaskSpec{
		{Resources: &Resources{CPUs: "2000m", Memory: "4096Mi"}}, {Image: "host"}, {Network: &Network{Mode: "proxy"}},
		{Network: &Network{Allow: []string{"npmjs.org", "github.com"}}}, {Timeouts: &Timeouts{Run: "1m"}}, {Resources: &Resources{Log: "1Mi"}},
	}
	for _, s := range same {
		s.Template, s.Command = "web", []string{"x"}
		r := resolved(t, s)
		if r.Pool != "web" {
			t.Errorf("%+v goes to %s", s, r.Pool)
		}
		if v := Variant(web, r); v.Revision != web.Revision {
			t.Errorf("%+v: another revision", s)
		}
	}
	seen := map[fleet.PoolKey]bool{}
	for _, s := range []TaskSpec{
		{Resources: &Resources{Memory: "8Gi"}}, {Resources: &Resources{CPUs: "1"}}, {Resources: &Resources{Pids: 64}}, {Image: "debian:12"},
		{Network: &Network{Mode: "none"}}, {Network: &Network{Mode: "open"}}, {Network: &Network{Allow: []string{"github.com"}}},
	} {
		s.Template, s.Command = "web", []string{"x"}
		r := resolved(t, s)
		if again := resolved(t, s); again.Pool != r.Pool {
			t.Errorf("%+v: two pools", s)
		}
		if !strings.HasPrefix(string(r.Pool), "web~") || seen[r.Pool] {
			t.Errorf("%+v goes to %s", s, r.Pool)
		}
		seen[r.Pool] = true
		v := Variant(web, r)
		if v.Revision == web.Revision || v.Min != 0 || v.Repos != nil || v.Name != "web" || v.Image != r.Image || v.Resources != r.Resources {
			t.Errorf("%+v: %+v", s, v)
		}
	}
}

// TestRevision: it changes with what shapes a sandbox, and with nothing else.
func TestRevision(t *testing.T) {
	base := fleet.Template{Name: "a", Image: "host", Env: map[string]string{"A": "1", "B": "2"}, Network: fleet.Network{Mode: "proxy", Allow: []string{"a", "b"}}}
	change := func(f func(*fleet.Template)) string {
		c := base
		f(&c)
		return revision(c)
	}
	for name, f := range map[string]func(*fleet.Template){
		"name": func(t *fleet.Template) { t.Name = "b" }, "min": func(t *fleet.Template) { t.Min = 5 }, "maxAge": func(t *fleet.Template) { t.MaxAge = 1 },
		"repos": func(t *fleet.Template) { t.Repos = []string{"x"} }, "timeouts": func(t *fleet.Template) { t.Timeouts.Run = 1 },
		"log": func(t *fleet.Template) { t.Resources.LogBytes = 1 }, "order": func(t *fleet.Template) { t.Network.Allow = []string{"b", "a"} },
	} {
		if change(f) != revision(base) {
			t.Errorf("%s changes the revision", name)
		}
	}
	for name, f := range map[string]func(*fleet.Template){
		"image": func(t *fleet.Template) { t.Image = "x" }, "env": func(t *fleet.Template) { t.Env = nil }, "runtime": func(t *fleet.Template) { t.Runtime = "runc" },
		"memory": func(t *fleet.Template) { t.Resources.MemoryBytes = 1 }, "network": func(t *fleet.Template) { t.Network.Mode = "none" },
		"prepare": func(t *fleet.Template) { t.Prepare = []string{"x"} }, "mounts": func(t *fleet.Template) { t.Mounts = []fleet.Mount{{Source: "/a", Target: "/b"}} },
	} {
		if change(f) == revision(base) {
			t.Errorf("%s does not change the revision", name)
		}
	}
}

// TestTaskSpecRoundTrip: a task as the API shows it resolves to itself.
func TestTaskSpecRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := TaskSpec{
			Command:  rapid.SliceOfN(rapid.StringMatching(`[a-z ]{1,9}/`), 1, 3).Draw(rt, "command"),
			Template: rapid.SampledFrom([]string{"", "default", "web"}).Draw(rt, "template"),
			Priority: rapid.IntRange(-1000, 1000).Draw(rt, "priority"),
			Name:     rapid.StringMatching(`[a-zA-Z0-9 ]{0,20}`).Draw(rt, "name"),
		}
		if rapid.Bool().Draw(rt, "resources") {
			s.Resources = &Resources{
				CPUs:   rapid.SampledFrom([]Quantity{"", "1", "0.25", "1500m", "3.3333"}).Draw(rt, "cpus"),
				Memory: rapid.SampledFrom([]Quantity{"", "64Mi", "1G", "1.5Gi", "123456789"}).Draw(rt, "memory"),
				Pids:   rapid.SampledFrom([]int{0, 8, 100}).Draw(rt, "pids"),
			}
		}
		if rapid.Bool().Draw(rt, "network") {
			s.Network = &Network{Mode: "proxy", Allow: rapid.SliceOfN(rapid.SampledFrom([]string{"a.com", "*.b.org", "c:80"}), 1, 3).Draw(rt, "allow")}
		}
		if rapid.Bool().Draw(rt, "timeouts") {
			s.Timeouts = &Timeouts{Run: rapid.SampledFrom([]string{"", "0", "90s", "1h30m"}).Draw(rt, "run")}
		}
		if rapid.Bool().Draw(rt, "repo") {
			s.Repo = &Repo{URL: "/srv/r", Depth: rapid.SampledFrom([]int{-1, 0, 1, 50}).Draw(rt, "depth")}
		}
		if rapid.Bool().Draw(rt, "retries") {
			n := rapid.IntRange(0, 100).Draw(rt, "max")
			s.Retries = &Retries{Max: &n, Backoff: rapid.SampledFrom([]string{"", "0", "250ms", "5m"}).Draw(rt, "backoff")}
		}
		s.NotBefore = rapid.SampledFrom([]string{"", "+90s", "2026-03-02T08:00:00+01:00"}).Draw(rt, "notBefore")
		first, err := oneFleet.ResolveTask(s, now)
		if err != nil {
			rt.Fatal(err)
		}
		shown := NewTaskSpec(first)
		raw, err := json.Marshal(shown)
		if err != nil {
			rt.Fatal(err)
		}
		var read TaskSpec
		if err := DecodeJSON(raw, &read); err != nil {
			rt.Fatalf("%v in %s", err, raw)
		}
		second, err := oneFleet.ResolveTask(read, now)
		if err != nil {
			rt.Fatalf("%v in %s", err, raw)
		}
		if d := cmp.Diff(first, second, cmp.Transformer("utc", func(t time.Time) time.Time { return t.UTC() })); d != "" {
			rt.Fatalf("(-first +second)\n%s", d)
		}
	})
}

func TestValidateInCode(t *testing.T) {
	// Values no document can hold, but a program can.
	f := *oneFleet
	f.Spec.Cost.NodeHourUSD = math.NaN()
	f.Spec.Nodes.OvercommitCPU = math.Inf(1)
	f.Spec.Tenants = []Tenant{{Name: "a", Weight: -1}}
	err := f.Validate()
	for _, want := range []string{"spec.cost.nodeHourUSD", "spec.nodes.overcommitCPU", "spec.tenants[0].weight"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
	s := TaskSpec{Command: []string{"x"}, Prompt: strings.Repeat("x", 1<<20)}
	if err := s.Validate("spec"); err == nil || !strings.Contains(err.Error(), "spec: prompt, input, env and commands have") {
		t.Errorf("%v", err)
	}
	s = TaskSpec{Command: []string{"x", strings.Repeat("x", 128<<10)}, Env: map[string]string{"A": strings.Repeat("x", 128<<10)}}
	for _, want := range []string{"spec.command[1]", "spec.env.A"} {
		if err := s.Validate("spec"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}

func TestSuggest(t *testing.T) {
	for typed, want := range map[string]string{
		"comand": "command", "Command": "command", "cmd": "command", "cpu": "resources.cpus", "memory": "resources.memory", "artefacts": "artifacts",
		"webhok": "webhook", "labls": "labels", "allow": "network.allow", "onExit": "retries.onExit", "timeout": "timeouts",
	} {
		err := DecodeJSON([]byte(`{"tasks":[{"`+typed+`":1}]}`), &SubmitRequest{})
		if err == nil || !strings.Contains(err.Error(), "did you mean "+want+"?") {
			t.Errorf("%s: %v", typed, err)
		}
	}
	err := DecodeJSON([]byte(`{"tasks":[{"zzzzzzzzz":1}]}`), &SubmitRequest{})
	if err == nil || strings.Contains(err.Error(), "did you mean") || !strings.Contains(err.Error(), "one of name, labels") {
		t.Errorf("%v", err)
	}
}

// TestEdits holds the distance against its definition.
func TestEdits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.StringMatching(`[abc]{0,6}`)
		a, b := word.Draw(rt, "a"), word.Draw(rt, "b")
		d := edits(a, b, 99)
		if d != edits(b, a, 99) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a)-len(b), len(b)-len(a)) {
			rt.Fatalf("%q %q: %d", a, b, d)
		}
	})
	for _, c := range []struct {
		a, b string
		want int
	}{{"ab", "ba", 1}, {"memroy", "memory", 1}, {"kitten", "sitting", 3}} {
		if got := edits(c.a, c.b, 99); got != c.want {
			t.Errorf("%s, %s: %d", c.a, c.b, got)
		}
	}
}

func TestAllowRules(t *testing.T) {
	for _, ok := range []string{"github.com", "*.github.com", "github.com:443", "a_b.example", "10.0.0.0/8", "192.0.2.1", "192.0.2.1:80", "[::1]:80", "::1", "example.com.", "localhost"} {
		if err := allowRule(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "*", "https://github.com/x", "a b", "github.com:", "github.com:0", "github.com:99999", "*.*.com", "a..b", "-a.com", "a/b", "10.0.0.0/99", "a\x00b"} {
		if err := allowRule(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", time.Minute: "1m", 2 * time.Hour: "2h", 150 * time.Minute: "2h30m",
		time.Hour + 30*time.Second: "1h0m30s", 10 * time.Second: "10s", 10 * time.Minute: "10m", 20 * time.Hour: "20h", 250 * time.Millisecond: "250ms",
	} {
		if got := text(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		} else if back, err := time.ParseDuration(got); err != nil || back != d {
			t.Errorf("%q reads as %v %v", got, back, err)
		}
	}
}

func TestQuantities(t *testing.T) {
	for q, want := range map[Quantity]int64{"2Gi": 2 << 30, "1.5Gi": 3 << 29, "500M": 500e6, "1e9": 1e9, "0": 0, "100m": 1} {
		if got, err := q.Bytes(); err != nil || got != want {
			t.Errorf("%s: %d %v", q, got, err)
		}
	}
	for _, q := range []Quantity{"2GB", "", "abc", "1 Gi", "9e99", "1e999999999", "1e-999999999", "99999999999999999999Gi", Quantity(strings.Repeat("9", 100)), "0x10", "NaN", "+Inf"} {
		if n, err := q.Bytes(); err == nil {
			t.Errorf("%q is %d", q, n)
		}
		if n, err := q.Milli(); err == nil {
			t.Errorf("%q is %d", q, n)
		}
	}
	if _, err := Quantity("2GB").Bytes(); !strings.Contains(err.Error(), "did you mean 2G?") {
		t.Error(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(0, 1<<50).Draw(rt, "n")
		if got, err := BytesQuantity(n).Bytes(); err != nil || got != n {
			rt.Fatalf("%d is written %s, read %d %v", n, BytesQuantity(n), got, err)
		}
		if got, err := MilliQuantity(n).Milli(); err != nil || got != n {
			rt.Fatalf("%d is written %s, read %d %v", n, MilliQuantity(n), got, err)
		}
	})
}

func TestViewExitCode(t *testing.T) {
	for _, c := range []struct {
		task fleet.Task
		want []int
	}{
		{fleet.Task{State: fleet.TaskRunning}, nil},
		{fleet.Task{State: fleet.TaskSucceeded}, []int{0}},
		{fleet.Task{State: fleet.TaskFailed, Result: fleet.Result{ExitCode: 3}}, []int{3}},
		{fleet.Task{State: fleet.TaskFailed, Result: fleet.Result{ExitCode: -1}}, nil},
		{fleet.Task{State: fleet.TaskTimedOut}, nil},
		{fleet.Task{State: fleet.TaskCancelled}, nil},
	} {
		var got []int
		if v := NewTaskView(c.task); v.ExitCode != nil {
			got = []int{*v.ExitCode}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %d: shown as %v", c.task.State, c.task.Result.ExitCode, got)
		}
	}
}
