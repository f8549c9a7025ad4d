package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Fleet returns the fleet: what there is, what is wanted, and why.
func (c *Client) Fleet(ctx context.Context) (v1alpha1.FleetView, error) {
	var out v1alpha1.FleetView
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteFleet, nil, nil, &out)
	return out, err
}

// FleetSpec returns the fleet's specification in force, as JSON.
func (c *Client) FleetSpec(ctx context.Context) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteFleetSpec, nil, nil, &out)
	return out, err
}

// Shadow compares what Muster would have had with what there was. since is a
// time (RFC 3339) or a span up to now; empty is all that is kept.
func (c *Client) Shadow(ctx context.Context, since string) (fleet.Shadow, error) {
	ask := url.Values{}
	if since != "" {
		ask.Set("since", since)
	}
	var out fleet.Shadow
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteShadow, ask, nil, &out)
	return out, err
}

// Forecast returns what the fleet expects of its load; see the query's fields.
func (c *Client) Forecast(ctx context.Context, q fleet.ForecastQuery) (fleet.Forecast, error) {
	ask := url.Values{}
	if q.Horizon > 0 {
		ask.Set("horizon", q.Horizon.String())
	}
	if q.Template != "" {
		ask.Set("template", q.Template)
	}
	if q.Zone != nil {
		ask.Set("timezone", q.Zone.String())
	}
	if q.Backtest {
		ask.Set("backtest", "true")
	}
	var out fleet.Forecast
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteForecast, ask, nil, &out)
	return out, err
}

// CostQuery asks what the fleet has cost; empty fields are the server's
// defaults.
type CostQuery struct {
	Since, Until time.Time
	By           string // tenant, team, project, template, task, node, hour, label:KEY
	Fixed        int    // nodes of a fleet to compare with
	OffHours     string // HH:MM-HH:MM
	Weekends     bool   // are off-hours, too
	Timezone     string // of OffHours
	Limit        int    // most groups
}

func (q CostQuery) values() url.Values {
	ask := url.Values{}
	set := func(name, v string, is bool) {
		if is {
			ask.Set(name, v)
		}
	}
	set("since", q.Since.Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.Format(time.RFC3339Nano), !q.Until.IsZero())
	set("by", q.By, q.By != "")
	set("fixed", strconv.Itoa(q.Fixed), q.Fixed != 0)
	set("offHours", q.OffHours, q.OffHours != "")
	set("weekends", "true", q.Weekends)
	set("timezone", q.Timezone, q.Timezone != "")
	set("limit", strconv.Itoa(q.Limit), q.Limit != 0)
	return ask
}

// Cost says what the fleet has cost.
func (c *Client) Cost(ctx context.Context, q CostQuery) (fleet.CostReport, error) {
	var out fleet.CostReport
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteCost, q.values(), nil, &out)
	return out, err
}

// CostFocus writes what the fleet has cost as a FOCUS table, in CSV; only Since
// and Until of the query count.
func (c *Client) CostFocus(ctx context.Context, q CostQuery, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := c.request(ctx, http.MethodGet, v1alpha1.RouteCostFocus, CostQuery{Since: q.Since, Until: q.Until}.values(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/csv")
	resp, err := c.open(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return c.connectError(err)
	}
	return nil
}

// Sandboxes lists those that exist.
func (c *Client) Sandboxes(ctx context.Context) (v1alpha1.SandboxList, error) {
	out := v1alpha1.SandboxList{Sandboxes: []v1alpha1.SandboxView{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteSandboxes, nil, nil, &out)
	return out, err
}

// ExplainEvent says why an event happened.
func (c *Client) ExplainEvent(ctx context.Context, seq int64) (v1alpha1.ExplanationView, error) {
	var out v1alpha1.ExplanationView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteEventExplain, strconv.FormatInt(seq, 10)), nil, nil, &out)
	return out, err
}

// Schedules lists the schedules.
func (c *Client) Schedules(ctx context.Context) (v1alpha1.ScheduleList, error) {
	out := v1alpha1.ScheduleList{Schedules: []v1alpha1.ScheduleView{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteSchedules, nil, nil, &out)
	return out, err
}

// Schedule returns one schedule.
func (c *Client) Schedule(ctx context.Context, name string) (v1alpha1.ScheduleView, error) {
	var out v1alpha1.ScheduleView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteSchedule, name), nil, nil, &out)
	return out, err
}

// PutSchedule creates or replaces a schedule; applying the same twice changes
// nothing.
func (c *Client) PutSchedule(ctx context.Context, name string, s v1alpha1.ScheduleSpec) (v1alpha1.ScheduleView, error) {
	var out v1alpha1.ScheduleView
	err := c.call(ctx, http.MethodPut, path(v1alpha1.RouteSchedule, name), nil, s, &out)
	return out, err
}

// DeleteSchedule removes a schedule; tasks it submitted are left alone.
func (c *Client) DeleteSchedule(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, path(v1alpha1.RouteSchedule, name), nil, nil, nil)
}

// Version asks the server for its version.
func (c *Client) Version(ctx context.Context) (v1alpha1.Version, error) {
	var out v1alpha1.Version
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteVersion, nil, nil, &out)
	return out, err
}

// WhatIf simulates other settings on the fleet's own history; up to a
// minute of work.
func (c *Client) WhatIf(ctx context.Context, r v1alpha1.WhatIfRequest) (fleet.WhatIf, error) {
	var out fleet.WhatIf
	err := c.call(ctx, http.MethodPost, v1alpha1.RouteWhatIf, nil, r, &out)
	return out, err
}

// Advice says what could be set better; up to a minute of work. since and
// until are times (RFC 3339) or spans up to now; empty is the server's default.
func (c *Client) Advice(ctx context.Context, since, until, zone string) (fleet.Advice, error) {
	ask := url.Values{}
	for name, v := range map[string]string{"since": since, "until": until, "timezone": zone} {
		if v != "" {
			ask.Set(name, v)
		}
	}
	var out fleet.Advice
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteAdvice, ask, nil, &out)
	return out, err
}

// Evidence returns what can be shown of the fleet; seconds of work for a month.
// Times are RFC 3339 or spans up to now; empty is the server's default.
func (c *Client) Evidence(ctx context.Context, since, until string) (fleet.Evidence, error) {
	ask := url.Values{}
	for name, v := range map[string]string{"since": since, "until": until} {
		if v != "" {
			ask.Set(name, v)
		}
	}
	var out fleet.Evidence
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteEvidence, ask, nil, &out)
	return out, err
}

// PatchFleet changes the fleet's specification, or says what that would change.
func (c *Client) PatchFleet(ctx context.Context, r v1alpha1.PatchRequest) (v1alpha1.PatchView, error) {
	var out v1alpha1.PatchView
	err := c.call(ctx, http.MethodPost, v1alpha1.RouteFleetPatch, nil, r, &out)
	return out, err
}
