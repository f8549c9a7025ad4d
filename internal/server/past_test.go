package server

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestFleetPast(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	b := &books{}
	r := newRig(t, func(c *Config) { c.Ledger, c.Clock = b, func() time.Time { return now } })
	p := call[fleet.Past](r, "GET", "/v1/fleet/past?since=2160h&until=24h&step=6h", nil, 200)
	if p.StepSeconds != 6*3600 || len(p.Points) != 1 || p.Points[0].Running != 2.5 || p.Points[0].NodesPeak != 4 {
		t.Errorf("%+v", p)
	}
	if !b.asked.Since.Equal(now.AddDate(0, 0, -90)) || !b.asked.Until.Equal(now.AddDate(0, 0, -1)) {
		t.Errorf("asked for %s to %s", b.asked.Since, b.asked.Until)
	}
	if p := call[fleet.Past](r, "GET", "/v1/fleet/past", nil, 200); p.StepSeconds != 0 {
		t.Errorf("a step of %g s was asked for", p.StepSeconds)
	}
	for q, field := range map[string]string{"step=x": "query.step", "step=-1h": "query.step", "step=90m": "query.step", "since=x": "query.since", "until=x": "query.until"} {
		if e := r.problem(r.request("GET", "/v1/fleet/past?"+q, nil), 422); len(e.Errors) != 1 || e.Errors[0].Location != field {
			t.Errorf("%s: %+v", q, e)
		}
	}
	bare := newRig(t)
	bare.problem(bare.request("GET", "/v1/fleet/past", nil), 404)
}
