package server

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"muster.dev/muster/internal/fleet"
)

func (r *rig) scrape() string {
	r.t.Helper()
	b, err := io.ReadAll(r.do(r.request("GET", "/metrics", nil)).Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.engine.view = fleet.View{
		SignalsAsOf: time.Now(), Consumers: 7, Dead: 1, ObjectiveP99: 5 * time.Second,
		Nodes: []fleet.NodeView{{Node: fleet.Node{State: fleet.NodeReady, Slots: 10}, Used: 4}},
		Pools: []fleet.PoolView{
			{Pool: "default", Template: "default", Backlog: 3, Ready: 2, Running: 4, TimeToEmpty: 3 * time.Second, OldestAge: time.Second, Breaker: fleet.Breaker{Open: true}, StartLead: fleet.Lead{P50: time.Second, Samples: 3}},
			{Pool: "default~0123456789ab", Template: "default", Backlog: 2, Running: 1, TimeToEmpty: -1, OldestAge: 2 * time.Second},
			{Pool: "web", Template: "web", TimeToEmpty: -1},
		},
	}
	r.meter.Started("default", fleet.LaunchWarm, 4*time.Millisecond)
	r.meter.Started("default", "odd", -time.Second)
	r.meter.Settled(fleet.Task{State: fleet.TaskFailed, Result: fleet.Result{Reason: fleet.ReasonOOM}, Phases: fleet.Phases{Run: time.Second}})
	r.meter.Settled(fleet.Task{State: "odd", Result: fleet.Result{Reason: "made up"}})
	text := r.scrape()
	for _, want := range []string{
		`muster_backlog{template="default"} 5`, `muster_sandboxes{state="running",template="default"} 5`, `muster_sandboxes{state="ready",template="default"} 2`,
		`muster_oldest_age_seconds{template="default"} 2`, `muster_time_to_empty_seconds{template="default"} 3`, `muster_breaker_open{template="default"} 1`,
		`muster_breaker_open{template="web"} 0`, `muster_start_lead_seconds{percentile="50",template="default"} 1`, `muster_node_slots{state="total"} 10`,
		`muster_view_up 1`, `muster_consumers{state="desired"} 7`, `muster_dead_letters 1`,
		`muster_tasks_settled_total{reason="oom",state="failed"} 1`, `muster_tasks_settled_total{reason="other",state="other"} 1`,
		`muster_start_latency_seconds_bucket{launch="warm",le="0.005"} 1`, `muster_start_latency_seconds_count{launch="cold"} 1`,
		`muster_build_info{goversion=`, `version="v0.0.0-test"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `muster_time_to_empty_seconds{template="web"}`) || strings.Contains(text, "~") {
		t.Error("a pool that is not being depleted has a time to empty, or a variant a label")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetricsNeverZeroForUnknown: an unreadable fleet shows as that.
func TestMetricsNeverZeroForUnknown(t *testing.T) {
	r := newRig(t)
	r.engine.err = fleet.ErrUnavailable
	text := r.scrape()
	if !strings.Contains(text, "muster_view_up 0") || strings.Contains(text, "muster_backlog") || !strings.Contains(text, "muster_build_info") {
		t.Errorf("%s", text)
	}
}

// TestMetricsAreBounded: ten thousand variants of one template are one line.
func TestMetricsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 10_000 {
		r.engine.view.Pools = append(r.engine.view.Pools, fleet.PoolView{Pool: fleet.PoolKey(fmt.Sprintf("default~%012d", i)), Template: "default", TimeToEmpty: -1})
	}
	if n := strings.Count(r.scrape(), "\n"); n > 400 {
		t.Errorf("%d lines", n)
	}
}
