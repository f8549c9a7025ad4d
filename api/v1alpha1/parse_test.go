package v1alpha1

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones asked for must not depend on the machine

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadDocuments: each file of testdata/bad is wrong in many ways, and the
// messages for all of them at once are in the file beside it.
func TestBadDocuments(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := ParseDocuments(src)
			if err == nil {
				t.Fatalf("accepted as %d documents", len(docs))
			}
			if docs != nil {
				t.Error("documents beside an error")
			}
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Error("the error is not ErrInvalid")
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, rerr := os.ReadFile(golden)
			if rerr != nil {
				t.Fatal(rerr)
			}
			if d := cmp.Diff(string(want), err.Error()+"\n"); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

const complete = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: coding-agents, labels: {team: platform}}
spec:
  queue: {type: embedded, maxBacklog: 5000, visibility: 1m}
  templates:
    - name: default
      runtime: runc
      image: debian:12
      resources: &small {cpus: 0.5, memory: 512Mi, pids: 64, disk: 1Gi, files: 1024, log: 1Mi}
      network: {mode: proxy, allow: [github.com, "*.npmjs.org", "registry.example:8443"], allowPrivate: [10.0.0.0/8]}
      env: {CI: true, PORT: 8080, RATE: 1.10, EMPTY: ""}
      repos: [git@github.com:acme/web.git]
      prepare: ["npm ci"]
      mounts: [{source: /srv/models, target: /opt/models}]
      maxAge: 0s
      timeouts: {queue: 1h, startup: 2m, run: 3h, idle: 15m}
      min: 2
    - {name: tiny, resources: *small}
  objective: {startP99: 2s, reactWithin: 30s}
  capacity:
    sandboxes: {min: 1, max: 20}
    floors: [{cron: "0 8 * * MON-FRI", timezone: Europe/Warsaw, for: 10h, min: 4, template: tiny}]
  nodes: {provider: host, reserveCPUs: 500m, reserveMemory: 1Gi, slots: 40, overcommitCPU: 4, overcommitMemory: 1.5}
  cost: {nodeHourUSD: 0.4, budget: {perHour: 40, perDay: 500}}
  tenants: [{name: payments, weight: 2.5, maxRunning: 10}]
  secrets: {dir: /etc/muster/secrets, env: true}
  retention: {tasks: 48h}
`

func TestCompleteFleet(t *testing.T) {
	f, err := ParseFleet([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"CI": "true", "PORT": "8080", "RATE": "1.10", "EMPTY": ""}, f.Spec.Templates[0].Env); d != "" {
		t.Errorf("an env value is not as written\n%s", d)
	}
	ts, err := f.TemplateSpecs()
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Resources{MilliCPU: 500, MemoryBytes: 512 << 20, Pids: 64, DiskBytes: 1 << 30, Files: 1024, LogBytes: 1 << 20}
	for _, got := range ts {
		if d := cmp.Diff(want, got.Resources); d != "" {
			t.Errorf("%s: %s", got.Name, d)
		}
	}
	if ts[0].MaxAge != 0 || ts[1].MaxAge != 6*time.Hour || ts[1].Network.Mode != fleet.NetworkNone || ts[1].Image != fleet.ImageHost {
		t.Errorf("%+v", ts)
	}
}

// TestRoundTrip: what Muster writes it reads as the same, in YAML and JSON.
func TestRoundTrip(t *testing.T) {
	first, err := ParseFleet([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := ParseFleet(out)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if d := cmp.Diff(first, second); d != "" {
		t.Errorf("(-first +second)\n%s", d)
	}
	js, err := yaml.YAMLToJSON(out)
	if err != nil {
		t.Fatal(err)
	}
	var third Fleet
	if err := DecodeJSON(js, &third); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, &third); d != "" {
		t.Errorf("(-yaml +json)\n%s", d)
	}
}

// TestDefaults: the smallest fleet is valid, defaults are idempotent, and a
// defaulted fleet is valid, too.
func TestDefaults(t *testing.T) {
	f, err := ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec: {templates: [{name: default}]}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(); err != nil {
		t.Error(err)
	}
	before, _ := yaml.Marshal(f)
	f.Default()
	after, _ := yaml.Marshal(f)
	if d := cmp.Diff(string(before), string(after)); d != "" {
		t.Error(d)
	}
	ts, err := f.TemplateSpecs()
	if err != nil {
		t.Fatal(err)
	}
	got := ts[0]
	got.Revision = ""
	want := fleet.Template{
		Name: "default", Runtime: fleet.RuntimeAuto, Image: "host", MaxAge: 6 * time.Hour, Network: fleet.Network{Mode: fleet.NetworkNone},
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30, Pids: 512, DiskBytes: 10 << 30, Files: 4096, LogBytes: 64 << 20},
		Timeouts:  fleet.Timeouts{Queue: 24 * time.Hour, Startup: time.Minute, Run: 2 * time.Hour},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestManyDocuments(t *testing.T) {
	docs, err := ParseDocuments([]byte(`---
---
apiVersion: muster.dev/v1alpha1
kind: Task
metadata: {name: one, labels: {team: a}}
spec: {command: [sleep, 1], labels: {x: y}}
---
# nothing here
---
apiVersion: muster.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec: {cron: "0 2 * * *", timezone: Europe/Warsaw, task: {command: [make, nightly]}}
...
`))
	if err != nil || len(docs) != 2 {
		t.Fatal(len(docs), err)
	}
	task := docs[0].(*Task)
	want := TaskSpec{Name: "one", Labels: map[string]string{"team": "a", "x": "y"}, Command: []string{"sleep", "1"}}
	if d := cmp.Diff(want, task.Spec); d != "" {
		t.Error(d)
	}
	if s := docs[1].(*Schedule); s.Spec.Task.Command[1] != "nightly" {
		t.Errorf("%+v", s)
	}
	if _, err := ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Task\nspec: {command: [x]}")); err == nil || !strings.Contains(err.Error(), "kind: is Task; want Fleet") {
		t.Errorf("a task read as a fleet: %v", err)
	}
}

// TestHostileYAML: no document makes us use much time or memory, whatever is
// in it.
func TestHostileYAML(t *testing.T) {
	laughs := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		laughs += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 10) + "]\n"
	}
	for name, src := range map[string]string{
		"billion laughs": laughs,
		"own alias":      "a: &a [*a]",
		"own key":        "a: &a {b: *a}",
		"deep":           strings.Repeat("[", 100_000),
		"deep block":     strings.Repeat("- ", 20_000),
		"deep JSON":      strings.Repeat(`{"a":`, 50_000),
		"too long":       strings.Repeat("#", MaxInput+1),
		"not UTF-8":      "kind: \xff",
		"NUL":            "kind: \x00",
		"merge key":      "kind: Task\na: &a {x: 1}\n<<: *a",
		"binary tag":     "kind: Task\nspec: !!binary aGk=",
		"tag":            "kind: !foo Task",
		"list key":       "? [a]\n: b",
		"unclosed":       `kind: "Task`,
		"tabs":           "kind:\n\t- x",
		"no alias":       "kind: *x",
		"empty":          "",
		"comments":       "# nothing\n---\n# at all\n",
		"scalar":         "hello",
		"kind as list":   "kind: [Task]",
	} {
		start := time.Now()
		_, err := ParseDocuments([]byte(src))
		if err == nil || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if err != nil && len(err.Error()) > 20_000 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

func TestWebhooks(t *testing.T) {
	for text, want := range map[string]string{
		"{secrets: {env: true}, webhooks: {secret: HOOK_KEY}}":                                 "",
		"{secrets: {env: true}, webhooks: {secret: \"no name\"}}":                              `"no name" cannot be one`,
		"{webhooks: {secret: HOOK_KEY}}":                                                       "spec.secrets.dir or spec.secrets.env",
		"{webhooks: {key: x}}":                                                                 "is not a field",
		"{webhooks: {endpoints: [{url: \"https://a.test/x\", events: [scale_out, gave_up]}]}}": "",
		"{webhooks: {endpoints: [{events: [scale_out]}]}}":                                     "spec.webhooks.endpoints[0].url: is missing; want an http or https URL",
		"{webhooks: {endpoints: [{url: \"ftp://a.test\"}]}}":                                   "spec.webhooks.endpoints[0].url: \"ftp://a.test\" has the scheme",
		"{webhooks: {endpoints: [{url: \"https://a.test\", events: [scale_up]}]}}":             "spec.webhooks.endpoints[0].events[0]: \"scale_up\" is unknown; want one of scale_out",
		"{webhooks: {endpoints: [{url: \"https://a.test\"}, {url: \"https://a.test\"}]}}":      "spec.webhooks.endpoints[1].url: is that of another entry, too",
	} {
		_, err := ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: f}\nspec: " +
			strings.Replace(text, "{", "{templates: [{name: default}], ", 1)))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseDocuments(f *testing.F) {
	f.Add([]byte(complete))
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		docs, err := ParseDocuments(src)
		if (err == nil) != (len(docs) > 0) {
			t.Fatalf("%d documents and %v", len(docs), err)
		}
		if err != nil && !errors.Is(err, fleet.ErrInvalid) {
			t.Fatalf("not ErrInvalid: %v", err)
		}
		for _, d := range docs { // what was accepted can be used
			switch d := d.(type) {
			case *Fleet:
				d.Default()
				if err := d.Validate(); err != nil {
					t.Fatalf("valid until it was defaulted: %v", err)
				}
				if _, err := d.TemplateSpecs(); err != nil {
					t.Fatal(err)
				}
			case *Task:
				if _, err := oneFleet.ResolveTask(d.Spec, time.Unix(1e9, 0)); err != nil && d.Spec.Template == "" && d.Spec.Network == nil && d.Spec.NotBefore == "" {
					t.Fatal(err)
				}
			}
		}
	})
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"tasks":[{"command":["x"],"env":{"A":"b"},"retries":{"max":1}}]}`))
	f.Add([]byte(`{"tasks":[{"comand":null,"priority":1e3}]}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		var r SubmitRequest
		if err := DecodeJSON(src, &r); err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Fatalf("not ErrInvalid: %v", err)
			}
			return
		}
		for _, s := range r.Tasks {
			_, _ = oneFleet.ResolveTask(s, time.Unix(1e9, 0))
		}
	})
}
