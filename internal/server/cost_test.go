package server

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// books is a Ledger that says what it was asked.
type books struct{ asked fleet.CostQuery }

func (b *books) Report(_ context.Context, q fleet.CostQuery) (fleet.CostReport, error) {
	b.asked = q
	if q.By == "colour" {
		return fleet.CostReport{}, &fleet.FieldError{Field: "by", Wrong: "is unknown"}
	}
	each := int64(400_000)
	return fleet.CostReport{
		MicroUSD: 5, AgentHourMicroUSD: &each, Idle: []fleet.CostIdle{{Cause: "boot"}}, Fixed: []fleet.CostFixed{{Kind: "asked"}},
		OffHours: &fleet.CostOffHours{From: "20:00"}, Groups: []fleet.CostGroup{{Name: "pay", AgentHourMicroUSD: &each}},
	}, nil
}

func (b *books) Series(_ context.Context, since, until time.Time) (fleet.CostSeries, error) {
	b.asked = fleet.CostQuery{Since: since, Until: until}
	if until.Sub(since) > 400*24*time.Hour {
		return fleet.CostSeries{}, &fleet.FieldError{Field: "since", Wrong: "is too long ago"}
	}
	return fleet.CostSeries{StepSeconds: 3600, Points: []fleet.CostPoint{{At: since, MicroUSD: 9, TaskMicroUSD: 4, Idle: map[string]int64{"warm_pool": 5}}}}, nil
}

func (b *books) Past(_ context.Context, q fleet.PastQuery) (fleet.Past, error) {
	b.asked = fleet.CostQuery{Since: q.Since, Until: q.Until}
	if q.Step%time.Hour != 0 {
		return fleet.Past{}, &fleet.FieldError{Field: "step", Wrong: "is no hour"}
	}
	return fleet.Past{StepSeconds: q.Step.Seconds(), Points: []fleet.PastPoint{{At: q.Since, KnownHours: 1, Running: 2.5, Nodes: 3, NodesPeak: 4}}}, nil
}

func (b *books) Focus(_ context.Context, q fleet.CostQuery, to io.Writer) error {
	b.asked = q
	if !q.Until.IsZero() && q.Until.Before(q.Since) {
		return &fleet.FieldError{Field: "since", Wrong: "is after until"}
	}
	_, err := io.WriteString(to, "BilledCost\n1\n")
	return err
}

func (b *books) TaskCost(_ context.Context, id fleet.TaskID) (fleet.TaskCost, error) {
	return fleet.TaskCost{Task: id, MicroUSD: 7, Busy: 90 * time.Second}, nil
}

func (b *books) Budgets() []fleet.BudgetView {
	return []fleet.BudgetView{
		{Period: fleet.BudgetDay, LimitMicroUSD: 500e6, SpentMicroUSD: 412e6, ForecastMicroUSD: 655e6, Sentence: "at this rate"},
		{Tenant: "pay", Period: fleet.BudgetHour, LimitMicroUSD: 5e6, SpentMicroUSD: 5e6, ForecastMicroUSD: 5e6, Binds: true},
	}
}

// Budgets are in the view of the fleet, and in the metrics.
func TestBudgetsAreShown(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Ledger = &books{} })
	v := call[v1alpha1.FleetView](r, "GET", "/v1/fleet", nil, 200)
	if len(v.Budgets) != 2 || v.Budgets[0].ForecastMicroUSD != 655e6 || v.Budgets[1].Tenant != "pay" {
		t.Errorf("%+v", v.Budgets)
	}
	text := r.scrape()
	for _, want := range []string{
		`muster_budget_spent_usd{period="day",tenant=""} 412`, `muster_budget_limit_usd{period="day",tenant=""} 500`,
		`muster_budget_forecast_usd{period="day",tenant=""} 655`, `muster_budget_binds{period="hour",tenant="pay"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func TestCost(t *testing.T) {
	b := &books{}
	r := newRig(t, func(c *Config) { c.Ledger = b })
	got := call[fleet.CostReport](r, "GET", "/v1/cost?by=team&since=2026-03-01T00:00:00Z&until=2026-03-02T00:00:00Z&fixed=5&offHours=20:00-07:00&weekends=true&timezone=Europe/Warsaw&limit=3", nil, 200)
	if got.MicroUSD != 5 || len(got.Groups) != 1 {
		t.Errorf("%+v", got)
	}
	if q := b.asked; q.By != "team" || q.Fixed != 5 || q.OffFrom != 20*time.Hour || q.OffUntil != 7*time.Hour || !q.Weekends || q.Zone.String() != "Europe/Warsaw" || q.Limit != 3 || q.Until.Sub(q.Since) != 24*time.Hour {
		t.Errorf("asked %+v", q)
	}
	for query, field := range map[string]string{"by=colour": "query.by", "offHours=late": "query.offHours", "timezone=Mars": "query.timezone", "since=soon": "query.since", "until=soon": "query.until"} {
		p := r.problem(r.request("GET", "/v1/cost?"+query, nil), 422)
		if len(p.Errors) != 1 || p.Errors[0].Location != field {
			t.Errorf("%s: %+v", query, p)
		}
	}
	over := call[fleet.CostSeries](r, "GET", "/v1/cost/series?since=2026-03-01T00:00:00Z&until=2026-03-02T00:00:00Z", nil, 200)
	if len(over.Points) != 1 || over.Points[0].Idle["warm_pool"] != 5 || b.asked.Until.Sub(b.asked.Since) != 24*time.Hour {
		t.Errorf("%+v, asked %+v", over, b.asked)
	}
	if p := r.problem(r.request("GET", "/v1/cost/series?since=2020-03-01T00:00:00Z&until=2026-03-02T00:00:00Z", nil), 422); len(p.Errors) != 1 || p.Errors[0].Location != "query.since" {
		t.Errorf("%+v", p)
	}
	resp := r.do(r.request("GET", "/v1/cost/focus?since=24h", nil))
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "BilledCost\n1\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/csv") {
		t.Errorf("%s, %v, %v", text, resp.Header, err)
	}
	r.problem(r.request("GET", "/v1/cost/focus?since=1h&until=2h", nil), 422)
	id := r.submit(v1alpha1.TaskSpec{Command: []string{"true"}})[0].ID
	if v := call[v1alpha1.TaskView](r, "GET", "/v1/tasks/"+string(id), nil, 200); v.Cost == nil || v.Cost.ComputeMicroUSD != 7 || v.Cost.BusySeconds != 90 {
		t.Errorf("%+v", v.Cost)
	}
}

func TestNoLedger(t *testing.T) {
	r := newRig(t)
	r.problem(r.request("GET", "/v1/cost", nil), 404)
	r.problem(r.request("GET", "/v1/cost/series", nil), 404)
	r.problem(r.request("GET", "/v1/cost/focus", nil), 404)
}
