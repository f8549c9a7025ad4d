package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestFleetSeries(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	r := newRig(t, func(c *Config) { c.Clock = func() time.Time { return now } })
	write := func(at time.Time, backlog int) {
		t.Helper()
		d := fleet.DecisionRecord{At: at,
			Observation: fmt.Appendf(nil, `{"queues":[{"pools":[{"backlog":%d,"inFlight":2}]},{"pools":[{"backlog":1}]}],
				"pools":[{"ready":3,"starting":1,"running":2,"releasing":1}],"floors":[{"template":"a","from":"2026-03-02T11:00:00Z","until":"2026-03-02T20:00:00Z","min":3},
				{"template":"a","from":"2026-03-02T09:00:00Z","until":"2026-03-02T20:00:00Z","min":2},{"template":"b","from":"2026-03-02T11:00:00Z","until":"2026-03-02T12:00:00Z","min":1},
				{"template":"b","from":"2026-03-02T12:00:00Z","until":"2026-03-02T20:00:00Z","min":50}],"nodes":[{"state":"ready","slots":8},{"state":"booting","slots":8},{"state":"gone"}]}`, backlog),
			Plan: []byte(`{"consumers":4,"pools":[{"desired":7,"warm":4}],"nodes":{"desired":2}}`)}
		if _, err := r.store.AppendDecision(context.Background(), d, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(now.Add(-2*time.Hour), 99) // before the time asked for
	for i := range 60 {
		write(now.Add(-time.Hour+time.Duration(i)*time.Minute), i%10)
	}
	if _, err := r.store.AppendDecision(context.Background(), fleet.DecisionRecord{At: now.Add(-time.Second), Observation: []byte("odd"), Plan: []byte("odd")}, nil); err != nil {
		t.Fatal(err)
	}
	s := call[v1alpha1.FleetSeries](r, "GET", "/v1/fleet/series?since=1h&step=10m", nil, 200)
	if len(s.Points) != 6 || s.StepSeconds != 600 {
		t.Fatalf("%d points of %g s", len(s.Points), s.StepSeconds)
	}
	for i, p := range s.Points {
		backlog := 2 // the most of the first two minutes
		if i == 5 {
			backlog = 10 // and of the last step, of its last two
		}
		if p.Backlog != backlog || p.InFlight != 2 || p.Ready != 3 || p.Starting != 1 || p.Running != 2 || p.Draining != 1 || p.Consumers != 4 ||
			p.Desired != 7 || p.WarmTarget != 4 || p.Nodes != 2 || p.NodesBooting != 1 || p.NodesDesired != 2 || p.Slots != 16 || p.Floor != 4 || p.Decision == 0 {
			t.Errorf("%+v", p)
		}
	}
	if s := call[v1alpha1.FleetSeries](r, "GET", "/v1/fleet/series?since=1h&until=30m", nil, 200); len(s.Points) != 30 || !s.Points[0].At.Equal(now.Add(-time.Hour)) {
		t.Errorf("%d points", len(s.Points))
	}
	if s := call[v1alpha1.FleetSeries](r, "GET", "/v1/fleet/series?since=10h&until=5h", nil, 200); s.Points == nil || len(s.Points) != 0 {
		t.Errorf("before there was anything: %+v", s.Points)
	}
	for _, q := range []string{"since=x", "until=x", "step=x", "step=-1s", "step=1ms", "since=720h&step=1s", "since=0s", "since=10m&until=1h", "since=2026-03-03T00:00:00Z"} {
		r.problem(r.request("GET", "/v1/fleet/series?"+q, nil), 422)
	}
}

// TestFleetSeriesLong: a month of decisions is not read whole.
func TestFleetSeriesLong(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	r := newRig(t, func(c *Config) { c.Clock = func() time.Time { return now } })
	for i := range 4320 {
		d := fleet.DecisionRecord{At: now.Add(-720 * time.Hour).Add(time.Duration(i) * 600 * time.Second), Observation: []byte(`{}`), Plan: []byte(`{}`)}
		if _, err := r.store.AppendDecision(context.Background(), d, nil); err != nil {
			t.Fatal(err)
		}
	}
	s := call[v1alpha1.FleetSeries](r, "GET", "/v1/fleet/series?since=720h", nil, 200)
	if n := len(s.Points); n < 239 || n > 241 {
		t.Errorf("%d points of a month", n)
	}
}
