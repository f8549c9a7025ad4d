package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
)

// adviser answers as a test says, and remembers what it was asked.
type adviser struct {
	asked fleet.WhatIfQuery
	query fleet.AdviceQuery
	err   error
}

func (a *adviser) Advice(_ context.Context, q fleet.AdviceQuery) (fleet.Advice, error) {
	a.query = q
	return fleet.Advice{Items: []fleet.AdviceItem{{Number: 1, Kind: fleet.AdviceMinimum, Patch: []byte(`{"spec":{}}`), Changes: []string{}}}, Withheld: []fleet.AdviceNote{}, Use: []fleet.TemplateUse{}}, a.err
}

func (a *adviser) WhatIf(_ context.Context, q fleet.WhatIfQuery) (fleet.WhatIf, error) {
	a.asked = q
	return fleet.WhatIf{Present: fleet.WhatIfOutcome{Policy: "muster", MicroUSD: 7}, Policies: []fleet.WhatIfOutcome{}, Changes: []string{}, Sentence: "said"}, a.err
}

func TestWhatIfRoute(t *testing.T) {
	a := &adviser{}
	r := newRig(t, func(c *Config) { c.Adviser = a })
	got := call[fleet.WhatIf](r, "POST", "/v1/whatif", `{"since":"48h","patch":{"spec":{"capacity":{"floors":null,"sandboxes":{"min":2}},"templates":[{"name":"a b","env":{}}]}},"policies":["keda"]}`, 200)
	if got.Sentence != "said" || got.Present.MicroUSD != 7 {
		t.Errorf("%+v", got)
	}
	if want := `{"spec":{"capacity":{"floors":null,"sandboxes":{"min":2}},"templates":[{"name":"a b","env":{}}]}}`; string(a.asked.Patch) != want {
		t.Errorf("the patch came as %s", a.asked.Patch)
	}
	if a.asked.Since.IsZero() || !a.asked.Until.IsZero() || len(a.asked.Policies) != 1 {
		t.Errorf("%+v", a.asked)
	}
	call[fleet.WhatIf](r, "POST", "/v1/whatif", `{}`, 200)
	if a.asked.Patch != nil {
		t.Errorf("no patch came as %s", a.asked.Patch)
	}
}

func TestWhatIfProblems(t *testing.T) {
	a := &adviser{}
	r := newRig(t, func(c *Config) { c.Adviser = a })
	for _, c := range []struct {
		body     string
		err      error
		status   int
		location string
	}{
		{`{"patches":{}}`, nil, 422, "patches"},
		{`{"since":"soon"}`, nil, 422, "body.since"},
		{`{"policies":"keda"}`, nil, 422, "policies"},
		{`{}`, &fleet.FieldError{Field: "patch", Wrong: "is not", Right: "a patch"}, 422, "body.patch"},
		{`{}`, &fleet.FieldError{Field: "spec.capacity", Wrong: "is not", Right: "so"}, 422, "spec.capacity"},
		{`{}`, fmt.Errorf("busy: %w", fleet.ErrFull), 429, ""},
		{`{}`, fmt.Errorf("nothing: %w", fleet.ErrNotFound), 404, ""},
	} {
		a.err = c.err
		p := r.problem(r.request("POST", "/v1/whatif", c.body), c.status)
		if c.location != "" && (len(p.Errors) != 1 || !strings.HasSuffix(p.Errors[0].Location, c.location)) {
			t.Errorf("%s: %+v", c.body, p)
		}
	}
	bare := newRig(t)
	bare.problem(bare.request("POST", "/v1/whatif", `{}`), 404)
}
