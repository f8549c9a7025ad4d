package server

import (
	"fmt"
	"strings"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestPatchFleet(t *testing.T) {
	v := &reviser{}
	r := newRig(t, func(c *Config) { c.Reviser = v })
	const change = `{"patch":{"spec":{"templates":[{"name":"default","min":9}]}},"from":%d,"note":"advice: more","by":"ada"}`
	r.problem(r.request("POST", "/v1/fleet/patch", fmt.Sprintf(change, 0)), 409) // nothing is on record
	r.revise(2, 5)
	got := call[v1alpha1.PatchView](r, "POST", "/v1/fleet/patch", fmt.Sprintf(change, 2), 200)
	if got.From != 2 || got.Revision != 4 || got.Summary != "templates[0].min 5 → 9" || !strings.Contains(got.Diff, "+  - min: 9") || len(got.Awaits) != 1 {
		t.Errorf("%+v", got)
	}
	if v.order.Note != "advice: more" || v.order.By != "ada" || v.order.Dry || v.order.Revision.Number != 0 || string(v.order.Revision.Spec) != string(specOf(9)) {
		t.Errorf("the order: %+v", v.order)
	}
	for _, c := range []struct {
		body   string
		err    error
		status int
		has    string
	}{
		{fmt.Sprintf(change, 1), nil, 409, "revision 2 is the newest"},
		{`{"patch":{"spec":{"templates":[{"name":"default","min":5}]}}}`, nil, 409, "changes nothing"},
		{`{}`, nil, 422, "body.patch"},
		{`{"patch":{"metadata":{}}}`, nil, 422, "body.patch"},
		{`{"patch":{"spec":{}},"from":-1}`, nil, 422, "body.from"},
		{`{"patch":{"spec":{}},"note":"a\nb"}`, nil, 422, "body.note"},
		{`{"patch":{"spec":{}},"by":"\u0007"}`, nil, 422, "body.by"},
		{fmt.Sprintf(change, 0), &StaleError{Err: &fleet.FieldError{Field: "spec.x", Wrong: "is wrong", Right: "right"}}, 422, "spec.x"},
	} {
		v.err = c.err
		p := r.problem(r.request("POST", "/v1/fleet/patch", c.body), c.status)
		if text := fmt.Sprintf("%+v", p); !strings.Contains(text, c.has) {
			t.Errorf("%s: %s, want %q", c.body, text, c.has)
		}
	}
	bare := newRig(t)
	bare.problem(bare.request("POST", "/v1/fleet/patch", fmt.Sprintf(change, 0)), 409)
}

func TestAdviceRoute(t *testing.T) {
	a := &adviser{}
	r := newRig(t, func(c *Config) { c.Adviser = a })
	got := call[fleet.Advice](r, "GET", "/v1/advice?since=48h&timezone=Europe/Warsaw", nil, 200)
	if len(got.Items) != 1 || string(got.Items[0].Patch) != `{"spec":{}}` || a.query.Since.IsZero() || a.query.Zone.String() != "Europe/Warsaw" {
		t.Errorf("%+v %+v", got, a.query)
	}
	for _, q := range []string{"since=soon", "until=soon", "timezone=Nowhere", "more=1"} {
		r.problem(r.request("GET", "/v1/advice?"+q, nil), 422)
	}
	a.err = fmt.Errorf("busy: %w", fleet.ErrFull)
	r.problem(r.request("GET", "/v1/advice", nil), 429)
}
