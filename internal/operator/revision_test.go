package operator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"muster.dev/muster/internal/fleet"
)

func managed(at time.Time, manager string, op metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	t := metav1.NewTime(at)
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: op, Time: &t, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
}

// TestAuthor: who wrote the spec last, and what would undo another's change.
func TestAuthor(t *testing.T) {
	now := time.Now()
	spec, meta := `{"f:spec":{"f:templates":{}}}`, `{"f:metadata":{}}`
	for _, x := range []struct {
		name   string
		fields []metav1.ManagedFieldsEntry
		labels map[string]string
		author string
		keeps  string
	}{
		{"nobody", nil, nil, "unknown", ""},
		{"newest", []metav1.ManagedFieldsEntry{
			managed(now, "ada", metav1.ManagedFieldsOperationUpdate, spec),
			managed(now.Add(time.Minute), "kubectl-edit", metav1.ManagedFieldsOperationUpdate, spec),
			managed(now.Add(time.Hour), "muster", metav1.ManagedFieldsOperationUpdate, meta),
		}, nil, "kubectl-edit (Update)", ""},
		{"apply", []metav1.ManagedFieldsEntry{managed(now, "kubectl", metav1.ManagedFieldsOperationApply, spec)}, nil, "kubectl (Apply)", `the field manager "kubectl" owns the specification by server-side apply`},
		{"argo", []metav1.ManagedFieldsEntry{managed(now, "argocd-controller", metav1.ManagedFieldsOperationUpdate, spec)}, nil, "argocd-controller (Update)", "Argo CD applies this fleet"},
		{"flux", nil, map[string]string{"kustomize.toolkit.fluxcd.io/name": "x"}, "unknown", "Flux applies this fleet and would put its own specification back"},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"b": int64(1), "a": "x"}}}
		u.SetName("agents")
		u.SetManagedFields(x.fields)
		u.SetLabels(x.labels)
		written, author, note := revisionOf(u)
		if author != x.author || note != "" || !strings.Contains(string(written), `"spec":{"a":"x","b":1}`) {
			t.Errorf("%s: %s by %q, note %q", x.name, written, author, note)
		}
		if got := keptBy(u); (got == "") != (x.keeps == "") || !strings.Contains(got, x.keeps) {
			t.Errorf("%s: kept by %q, want %q", x.name, got, x.keeps)
		}
	}
}

// TestPutBack: an earlier spec is put back whole, with who wanted it; another
// owner is not written over unasked, and what the definition refuses is told by
// field.
func TestPutBack(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	w, _ := setUp(t, c, c.Config, ns)
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "agents", template), metav1.CreateOptions{FieldManager: "ada"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", 20*time.Second, func(context.Context) bool { return w.newest() != nil })
	r := w.newest()
	first := r.f
	if first.Author != "ada (Update)" || len(first.Written) == 0 {
		t.Errorf("the first by %q: %s", first.Author, first.Written)
	}
	patch(t, c, ns, "agents", map[string]any{"capacity": map[string]any{"sandboxes": map[string]any{"max": 7}}, "scaling": map[string]any{"lateShare": 0.01}})
	taken := func(what string, is func(Fleet) bool) {
		t.Helper()
		eventually(t, what, 10*time.Second, func(context.Context) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return is(r.f)
		})
	}
	taken("the change is taken over", func(f Fleet) bool { return f.Spec.Spec.Capacity.Sandboxes.Max == 7 })
	var second Fleet
	r.do(func() { second = r.f })
	back := Change{Key: first.Key, Written: first.Written, By: "bob (API token)", Note: "rollback to 1"}
	dry := back
	dry.Dry = true
	if _, err := PutBack(t.Context(), c.Dynamic, dry); err != nil {
		t.Fatal(err)
	}
	if _, err := PutBack(t.Context(), c.Dynamic, back); err != nil {
		t.Fatal(err)
	}
	taken("it is put back", func(f Fleet) bool {
		return string(f.Written) == string(first.Written) && f.Author == "bob (API token)" && f.Note == "rollback to 1"
	})
	forth := back
	forth.Written, forth.Note = second.Written, "rollback to 2"
	if _, err := PutBack(t.Context(), c.Dynamic, forth); err != nil {
		t.Fatal(err)
	}
	taken("and forth, fractions too", func(f Fleet) bool {
		return string(f.Written) == string(second.Written) && f.Spec.Spec.Scaling.LateShare == 0.01
	})
	bad := back
	bad.Written = []byte(`{"spec": {"templates": [{"name": "Bad", "image": "x"}]}}`)
	var field *fleet.FieldError
	if _, err := PutBack(t.Context(), c.Dynamic, bad); !errors.As(err, &field) || field.Field != "spec.templates[0].name" {
		t.Errorf("refused with %v", err)
	}
	u := fleetOf(t, ns, "agents", template)
	if _, err := fleets.Apply(t.Context(), "agents", u, metav1.ApplyOptions{FieldManager: "deployer", Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := PutBack(t.Context(), c.Dynamic, back); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), `"deployer" owns`) {
		t.Errorf("over another owner: %v", err)
	}
	back.Force = true
	if warned, err := PutBack(t.Context(), c.Dynamic, back); err != nil || len(warned) != 1 {
		t.Errorf("forced: %v, %v", warned, err)
	}
}
