package v1alpha1

import (
	"errors"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestMerge(t *testing.T) {
	const before = `{"apiVersion":"muster.dev/v1alpha1","kind":"Fleet","metadata":{"name":"a"},"spec":{` +
		`"capacity":{"floors":[{"cron":"0 8 * * MON","for":"2h","min":3}],"sandboxes":{"max":9,"min":2}},` +
		`"templates":[{"name":"one","resources":{"cpus":"2","memory":"2Gi"}},{"name":"two"}]}}`
	for _, c := range []struct{ name, patch, has, hasNot string }{
		{"a field", `{"spec":{"capacity":{"sandboxes":{"min":0}}}}`, `"sandboxes":{"max":9,"min":0}`, `"min":2`},
		{"null removes", `{"spec":{"capacity":{"floors":null}}}`, `"capacity":{"sandboxes"`, "cron"},
		{"a list without names is replaced", `{"spec":{"capacity":{"floors":[{"cron":"0 9 * * *","for":"1h","min":1}]}}}`, "0 9 * * *", "MON"},
		{"a named item is merged", `{"spec":{"templates":[{"name":"one","resources":{"memory":"512Mi"}}]}}`,
			`[{"name":"one","resources":{"cpus":"2","memory":"512Mi"}},{"name":"two"}]`, "2Gi"},
		{"a new name comes last", `{"spec":{"templates":[{"name":"three","min":1}]}}`, `{"name":"two"},{"min":1,"name":"three"}]`, "null"},
		{"null within what is new", `{"spec":{"cost":{"budget":{"perDay":null,"perHour":3}}}}`, `"cost":{"budget":{"perHour":3}}`, "perDay"},
	} {
		got, err := Merge([]byte(before), []byte(c.patch))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !strings.Contains(string(got), c.has) || strings.Contains(string(got), c.hasNot) {
			t.Errorf("%s: %s; want %s and not %s", c.name, got, c.has, c.hasNot)
		}
		if _, err := ParseFleet(got); err != nil {
			t.Errorf("%s: the result is no fleet: %v", c.name, err)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, patch := range []string{"", "[]", "nonsense", `{"spec":3}`, `{"metadata":{"name":"b"}}`, `{"spec":{},"kind":"Task"}`, `{"spec":{"x":"` + strings.Repeat("a", maxPatch) + `"}}`} {
		_, err := Merge([]byte(`{"spec":{}}`), []byte(patch))
		var e *fleet.FieldError
		if !errors.As(err, &e) || e.Field != "patch" || e.Right == "" {
			t.Errorf("%.40q: %v", patch, err)
		}
	}
}

// FuzzMerge: whatever the patch, nothing panics, and an accepted one gives JSON
// whose spec is an object.
func FuzzMerge(f *testing.F) {
	f.Add(`{"spec":{"templates":[{"name":"one"}]}}`)
	f.Add(`{"spec":{"templates":null,"capacity":{"floors":[1,null,{}]}}}`)
	f.Fuzz(func(t *testing.T, patch string) {
		out, err := Merge([]byte(`{"spec":{"templates":[{"name":"one"},{"name":"two"}],"capacity":{"floors":[{"cron":"x"}]}}}`), []byte(patch))
		if err != nil {
			return
		}
		v, err := tree(out)
		if err != nil || object(object(v)["spec"]) == nil {
			t.Errorf("%s: %v", out, err)
		}
	})
}
