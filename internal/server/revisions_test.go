package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// reviser remembers what it was asked for.
type reviser struct {
	order Order
	err   error
}

func (r *reviser) Rollback(_ context.Context, o Order) (Outcome, error) {
	r.order = o
	return Outcome{Revision: 4, Awaits: []string{"spec.queue"}}, r.err
}

func specOf(min int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"muster.dev/v1alpha1","kind":"Fleet","metadata":{"name":"a"},"spec":{"templates":[{"min":%d,"name":"default"}]}}`, min)
}

func (r *rig) revise(mins ...int) {
	r.t.Helper()
	for _, m := range mins {
		if _, _, err := r.store.AppendRevision(r.t.Context(), fleet.Revision{At: time.Now(), Author: "ada", Source: fleet.FromFile, Spec: specOf(m)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestRevisions(t *testing.T) {
	r := newRig(t)
	if got := call[v1alpha1.RevisionList](r, "GET", "/v1/fleet/revisions", nil, 200); got.Revisions == nil || len(got.Revisions) != 0 {
		t.Errorf("of a new fleet: %+v", got)
	}
	r.revise(2, 5, 7)
	page := call[v1alpha1.RevisionList](r, "GET", "/v1/fleet/revisions?limit=2", nil, 200)
	if len(page.Revisions) != 2 || page.Before != 2 || page.Revisions[1].Summary != "templates[0].min 2 → 5" || page.Revisions[1].Author != "ada" {
		t.Errorf("first page: %+v", page)
	}
	page = call[v1alpha1.RevisionList](r, "GET", "/v1/fleet/revisions?before=2", nil, 200)
	if len(page.Revisions) != 1 || page.Before != 0 || page.Revisions[0].Summary != "the first" {
		t.Errorf("last page: %+v", page)
	}
	one := call[v1alpha1.RevisionDetail](r, "GET", "/v1/fleet/revisions/2", nil, 200)
	for _, want := range []string{"--- revision 1\n+++ revision 2\n@@ ", "\n-  - min: 2\n+  - min: 5\n"} {
		if !strings.Contains(one.Diff, want) {
			t.Errorf("the diff lacks %q:\n%s", want, one.Diff)
		}
	}
	if string(one.Spec) != string(specOf(5)) {
		t.Errorf("spec %s", one.Spec)
	}
	first := call[v1alpha1.RevisionDetail](r, "GET", "/v1/fleet/revisions/1", nil, 200)
	if !strings.Contains(first.Diff, "+++ revision 1\n@@ -0,0 +1,") {
		t.Errorf("diff of the first:\n%s", first.Diff)
	}
	if p := call[v1alpha1.Problem](r, "GET", "/v1/fleet/revisions/9", nil, 404); !strings.Contains(p.Detail, "there is no revision 9") {
		t.Errorf("%+v", p)
	}
}

func TestRollback(t *testing.T) {
	back := &reviser{}
	r := newRig(t, func(c *Config) { c.Reviser = back })
	refused := func(ask any, status int, want string) {
		t.Helper()
		p := call[v1alpha1.Problem](r, "POST", "/v1/fleet/rollback", ask, status)
		if text := p.Error(); !strings.Contains(text, want) {
			t.Errorf("%+v: %q, want %q", ask, text, want)
		}
	}
	refused(v1alpha1.RollbackRequest{}, 409, "no specification of this fleet is on record yet")
	r.revise(2)
	refused(v1alpha1.RollbackRequest{}, 409, "nothing to roll back to")
	r.revise(5, 2)
	refused(v1alpha1.RollbackRequest{To: 9}, 404, "there is no revision 9; there are 1 to 3")
	refused(v1alpha1.RollbackRequest{To: 1}, 409, "revision 1 is the same as revision 3")
	refused(v1alpha1.RollbackRequest{To: 3}, 409, "revision 3 is the newest")
	refused(v1alpha1.RollbackRequest{To: -1}, 422, "body.to")
	refused(v1alpha1.RollbackRequest{By: "a\nb"}, 422, "body.by")
	refused(map[string]any{"too": 2}, 422, "did you mean to?")
	back.err = &StaleError{2, &fleet.FieldError{Field: "spec.templates[0].min", Wrong: "is too much", Right: "less"}}
	refused(v1alpha1.RollbackRequest{}, 422, "revision 2 does not hold any more")
	refused(v1alpha1.RollbackRequest{}, 422, "spec.templates[0].min: is too much; want less")
	back.err = nil
	got := call[v1alpha1.RollbackView](r, "POST", "/v1/fleet/rollback", v1alpha1.RollbackRequest{By: "ada", DryRun: true}, 200)
	if got.From != 3 || got.To != 2 || got.Revision != 4 || !got.DryRun || got.Summary != "templates[0].min 2 → 5" || !strings.Contains(got.Diff, "--- revision 3\n+++ revision 2\n") || len(got.Awaits) != 1 {
		t.Errorf("%+v", got)
	}
	if o := back.order; o.Revision.Number != 2 || o.By != "ada" || !o.Dry {
		t.Errorf("asked for %+v", o)
	}
	bare := newRig(t)
	bare.revise(1, 2)
	if p := call[v1alpha1.Problem](bare, "POST", "/v1/fleet/rollback", v1alpha1.RollbackRequest{}, 409); !strings.Contains(p.Detail, "cannot change its fleet") {
		t.Errorf("%+v", p)
	}
}
