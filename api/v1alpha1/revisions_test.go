package v1alpha1

import (
	"slices"
	"strings"
	"testing"
)

const asWritten = `
# a comment
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates:
    - name: web
      min: 2
      resources: {cpus: 0.5}
      env: {A: "", PORT: 8080}
    - {name: go}
  capacity: {sandboxes: {max: 100000}, floors: [{cron: "0 8 * * *", for: 1h, min: 2}]}
  tenants: [{name: a, weight: 0.25}]
`

// TestWritten: what is kept is what was written, and reading it gives the same.
func TestWritten(t *testing.T) {
	got, err := Written([]byte(asWritten))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"apiVersion":"muster.dev/v1alpha1","kind":"Fleet","metadata":{"name":"agents"},"spec":{` +
		`"capacity":{"floors":[{"cron":"0 8 * * *","for":"1h","min":2}],"sandboxes":{"max":100000}},` +
		`"templates":[{"env":{"A":"","PORT":"8080"},"min":2,"name":"web","resources":{"cpus":"0.5"}},{"name":"go"}],` +
		`"tenants":[{"name":"a","weight":0.25}]}}`
	if string(got) != want {
		t.Errorf("written as\n%s, want\n%s", got, want)
	}
	again, err := Written(got)
	if err != nil || string(again) != want {
		t.Errorf("read again: %s, %v", again, err)
	}
	if _, err := Written([]byte("kind: Task\nspec: {command: [x]}\n")); err == nil {
		t.Error("a task is no fleet")
	}
}

func TestChanges(t *testing.T) {
	base, err := Written([]byte(asWritten))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ name, old, now, want string }{
		{"same", "", "", ""},
		{"number", "min: 2\n", "min: 5\n", "templates[0].min 2 → 5"},
		{"two", "max: 100000}", "max: 60, min: 1}", "capacity.sandboxes.max 100000 → 60; capacity.sandboxes.min unset → 1"},
		{"item added in front", "    - name: web", "    - {name: new, min: 7}\n    - name: web", "templates[0] unset → new"},
		{"item removed", "    - {name: go}\n", "", "templates[1] go → unset"},
		{"text", "cron: \"0 8 * * *\"", "cron: \"0 9 * * *\"", `capacity.floors[0].cron "0 8 * * *" → "0 9 * * *"`},
		{"name", "{name: agents}", "{name: others}", "metadata.name agents → others"},
		{"map", `A: ""`, "B: c", `templates[0].env.A "" → unset; templates[0].env.B unset → c`},
		{"gone", "  tenants: [{name: a, weight: 0.25}]\n", "", "tenants[0] a → unset"},
	} {
		src := strings.Replace(asWritten, x.old, x.now, 1)
		now, err := Written([]byte(src))
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		c, err := Changes(base, now)
		if err != nil || SummaryOf(c) != x.want {
			t.Errorf("%s: %q, %v, want %q", x.name, SummaryOf(c), err, x.want)
		}
	}
	order := strings.Replace(strings.Replace(asWritten, "    - {name: go}\n", "", 1), "    - name: web", "    - {name: go}\n    - name: web", 1)
	now, err := Written([]byte(order))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Changes(base, now); err != nil || SummaryOf(c) != `templates "web, go" → "go, web"` && SummaryOf(c) != "templates web, go → go, web" {
		t.Errorf("order: %q, %v", SummaryOf(c), err)
	}
	many := []SpecChange{}
	for range 40 {
		many = append(many, SpecChange{"templates[0].resources.memory", "1Gi", "2Gi"})
	}
	if s := SummaryOf(many); len(s) > 300 || !strings.HasSuffix(s, "more") {
		t.Errorf("summary of many: %q", s)
	}
	if _, err := Changes([]byte("{"), base); err == nil {
		t.Error("broken JSON")
	}
}

// TestTakeover: what can be changed while tasks run is; the rest is named.
func TestTakeover(t *testing.T) {
	parse := func(old, now string) *Fleet {
		t.Helper()
		f, err := ParseFleet([]byte(strings.Replace(asWritten, old, now, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := parse("", "")
	for _, x := range []struct {
		old, now string
		awaits   []string
		max      int
	}{
		{"max: 100000", "max: 9", nil, 9},
		{"  tenants: [{name: a, weight: 0.25}]\n", "  tenants: [{name: b}]\n  queue: {visibility: 1m}\n  retention: {tasks: 1h}\n", []string{"spec.queue", "spec.tenants"}, 100000},
	} {
		g := parse(x.old, x.now)
		live, awaits := f.Takeover(g)
		if !slices.Equal(awaits, x.awaits) || live.Spec.Capacity.Sandboxes.Max != x.max || f.MustBeRestarted(live) {
			t.Errorf("%s: awaits %v, live %+v", x.now, awaits, live.Spec)
		}
		if live.Spec.Retention != g.Spec.Retention {
			t.Errorf("%s: retention %+v", x.now, live.Spec.Retention)
		}
	}
	if f.Spec.Tenants[0].Name != "a" {
		t.Error("the fleet that runs was written to")
	}
}

func FuzzChanges(f *testing.F) {
	f.Add([]byte(`{"spec":{"templates":[{"name":"a"}]}}`), []byte(`{"spec":{"templates":[{"name":"b"}, 1]}}`))
	f.Add([]byte(`[]`), []byte(`{"spec":[{}],"x":null}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		changes, err := Changes(a, b)
		if err == nil && string(a) == string(b) && len(changes) > 0 {
			t.Errorf("%s differs from itself: %v", a, changes)
		}
		_ = SummaryOf(changes)
	})
}
