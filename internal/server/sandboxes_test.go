package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// crowd puts n sandboxes into the store: three of four are warm, on nodes of
// eight, the fourth drains.
func (r *rig) crowd(n int) []fleet.SandboxID {
	r.t.Helper()
	at := time.Now().Add(-time.Hour)
	ids := make([]fleet.SandboxID, n)
	for i := range n {
		b := fleet.Sandbox{State: fleet.SandboxReady, CreatedAt: at.Add(time.Duration(i) * time.Second), Spec: fleet.SandboxSpec{
			ID: fleet.NewSandboxID(at.Add(time.Duration(i) * time.Second)), Pool: "default", Template: "default", Node: fleet.NodeID(fmt.Sprintf("node-%d", i/8)),
		}}
		if i%4 == 3 {
			b.State = fleet.SandboxDraining
		}
		if err := r.store.PutSandbox(context.Background(), b); err != nil {
			r.t.Fatal(err)
		}
		ids[i] = b.Spec.ID
	}
	return ids
}

func (r *rig) listBoxes(query string) v1alpha1.SandboxList {
	r.t.Helper()
	return call[v1alpha1.SandboxList](r, "GET", "/v1/sandboxes"+query, nil, 200)
}

func TestSandboxesPageByPage(t *testing.T) {
	r := newRig(t)
	ids := r.crowd(50)
	if all := r.listBoxes(""); len(all.Sandboxes) != 50 || all.Total != 50 || all.Continue != "" || all.Sandboxes[0].Usage.Pids != 7 {
		t.Fatalf("without a limit: %d of %d, continue %q", len(all.Sandboxes), all.Total, all.Continue)
	}
	for _, order := range []string{"", "&sort=age&order=desc", "&sort=node", "&sort=cpu&order=desc", "&sort=state"} {
		var got []fleet.SandboxID
		next, pages := "", 0
		for {
			l := r.listBoxes("?limit=7" + order + next)
			for _, b := range l.Sandboxes {
				got = append(got, b.ID)
			}
			if pages++; l.Total != 50 {
				t.Fatalf("%s: %d in all", order, l.Total)
			}
			if l.Continue == "" {
				break
			}
			next = "&continue=" + url.QueryEscape(l.Continue)
		}
		if pages != 8 {
			t.Errorf("%s: %d pages of 7", order, pages)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			t.Errorf("%s: the pages have %d sandboxes, not each one once", order, len(got))
		}
	}
	if l := r.listBoxes("?limit=3&offset=48&sort=age&order=desc"); len(l.Sandboxes) != 2 || l.Sandboxes[1].ID != ids[0] && l.Sandboxes[1].ID != ids[49] {
		t.Errorf("the end: %d", len(l.Sandboxes))
	}
	if l := r.listBoxes("?sort=age&limit=1"); l.Sandboxes[0].ID != ids[49] {
		t.Error("by age the youngest is not first")
	}
}

func TestSandboxesAreFiltered(t *testing.T) {
	r := newRig(t)
	r.crowd(40)
	task := r.submit(v1alpha1.TaskSpec{Name: "Fix The Flaky Test", Labels: map[string]string{"ticket": "P-17"}, Command: []string{"claude", strings.Repeat("x", 200)}})[0]
	r.start()
	for query, want := range map[string]int{
		"?state=draining": 10, "?state=ready&state=draining": 40, "?state=claimed,draining": 11, "?node=node-1": 8, "?pool=none": 0,
		"?q=node-4+warm": 6, "?q=flaky+TEST": 1, "?q=ticket%3DP-17": 1, "?team=" + string(task.Tenant): 1, "?team=nobody": 0, "?q=running+warm": 0,
	} {
		if l := r.listBoxes(query); len(l.Sandboxes) != want || l.Total != want {
			t.Errorf("%s: %d of %d, want %d", query, len(l.Sandboxes), l.Total, want)
		}
	}
	first := r.listBoxes("?sort=state&limit=1").Sandboxes[0]
	if w := first.Work; w == nil || w.Name != "Fix The Flaky Test" || w.State != fleet.TaskClaimed || w.Labels["ticket"] != "P-17" || len([]rune(w.Command)) != workShown {
		t.Errorf("what it works on: %+v", w)
	}
	if tr := r.listBoxes("?state=claimed&trail=true").Sandboxes[0].Trail; tr == nil || len(tr.At) == 0 || tr.CPU[0] != 0.25 || tr.Pids[0] != 7 {
		t.Errorf("the trail: %+v", tr)
	}
}

func TestSandboxesRefuse(t *testing.T) {
	r := newRig(t)
	r.crowd(3)
	next := url.QueryEscape(r.listBoxes("?limit=1&sort=node").Continue)
	for query, field := range map[string]string{
		"?state=busy": "query.state", "?state=gone": "query.state", "?sort=colour": "query.sort", "?order=up": "query.order", "?limit=-1": "query.limit",
		"?limit=x": "query.limit", "?offset=-3": "query.offset", "?continue=zzz": "query.continue", "?limit=1&continue=" + next: "query.continue",
		"?limit=1&sort=node&offset=1&continue=" + next: "query.offset", "?gone=yesterday": "query.since", "?follow=true&gone=1h": "query.gone",
		"?follow=true&limit=501": "query.limit", "?follow=true&continue=" + next + "&sort=node": "query.continue", "?q=" + strings.Repeat("a", 201): "query.q",
		"?colour=red": "query.colour",
	} {
		p := r.problem(r.request("GET", "/v1/sandboxes"+query, nil), 422)
		if len(p.Errors) != 1 || p.Errors[0].Location != field || p.Errors[0].Message == "" {
			t.Errorf("%s: %+v, want %s", query, p.Errors, field)
		}
	}
}

// delta reads the next delta of a stream.
func delta(t *testing.T, next func() (sseEvent, error)) v1alpha1.SandboxDelta {
	t.Helper()
	for {
		e, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if e.kind != v1alpha1.SandboxRecord {
			continue // a heartbeat
		}
		var d v1alpha1.SandboxDelta
		if err := json.Unmarshal([]byte(e.data), &d); err != nil {
			t.Fatalf("%v in %s", err, e.data)
		}
		return d
	}
}

// TestSandboxesFollow: a page is told once, and after that what changes.
func TestSandboxesFollow(t *testing.T) {
	r := newRig(t)
	ids := r.crowd(30)
	next := r.follow("/v1/sandboxes?follow=true&limit=10&offset=5&state=ready,claimed", "")
	d := delta(t, next)
	if len(d.Rows) != 10 || len(d.IDs) != 10 || d.Total != 23 || d.Offset != 5 || d.Counts != (v1alpha1.SandboxCounts{All: 30, Warm: 23, Other: 7}) {
		t.Fatalf("the first: %d rows, %d ids of %d, %+v", len(d.Rows), len(d.IDs), d.Total, d.Counts)
	}
	d = delta(t, next)
	if d.IDs != nil || len(d.Rows) != 0 || len(d.Uses) != 10 || d.Uses[0].Usage.Pids != 7 {
		t.Fatalf("measured: ids %v, %d rows, %d uses", d.IDs, len(d.Rows), len(d.Uses))
	}
	// One in view gets a message, the first before it drains: all move up by one.
	shown := d.Uses[3].ID
	b, err := r.store.Sandbox(t.Context(), shown)
	if err != nil {
		t.Fatal(err)
	}
	b.Message = "moved"
	gone, err := r.store.Sandbox(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	gone.State = fleet.SandboxDraining
	for _, b := range []fleet.Sandbox{b, gone} {
		if err := r.store.PutSandbox(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	var saw, moved bool
	for end := time.Now().Add(time.Minute); !(saw && moved); {
		if time.Now().After(end) {
			t.Fatalf("not told within a minute: message %v, move %v", saw, moved)
		}
		d := delta(t, next)
		saw = saw || slices.ContainsFunc(d.Rows, func(v v1alpha1.SandboxView) bool { return v.ID == shown && v.Message == "moved" })
		moved = moved || len(d.IDs) == 10 && d.Total == 22
		if len(d.Rows) > 2 {
			t.Errorf("%d rows for a message and a move", len(d.Rows))
		}
	}
}

// TestSandboxesFollowToNothing: a page that is empty says so.
func TestSandboxesFollowToNothing(t *testing.T) {
	r := newRig(t)
	next := r.follow("/v1/sandboxes?follow=true", "")
	if d := delta(t, next); d.Total != 0 || d.IDs == nil || len(d.IDs) != 0 {
		t.Errorf("%+v", d)
	}
}

// TestTrailIsBounded: what is remembered of a sandbox does not grow, and goes
// with it.
func TestTrailIsBounded(t *testing.T) {
	tr := &trail{}
	at := time.Now()
	for i := range 100 {
		tr.add(fleet.Usage{MilliCPUNow: int64(i), IOReadBytes: int64(i) * 2000, IOWriteBytes: int64(i) * 2000}, at.Add(time.Duration(i)*2*time.Second))
	}
	v := tr.view()
	if len(v.At) != trailKept || v.CPU[trailKept-1] != 0.099 || v.CPU[0] != 0.06 || tr.io() != 2000 || v.IOBytes[0] != 2000 {
		t.Errorf("%d points, io %d, %+v", len(v.At), tr.io(), v)
	}
	r := newRig(t)
	ids := r.crowd(2)
	r.listBoxes("")
	b, err := r.store.Sandbox(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	b.State, b.GoneAt = fleet.SandboxGone, time.Now()
	if err := r.store.PutSandbox(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := len(r.server.roster.trails); n != 2 {
		t.Errorf("%d trails of 2", n)
	}
	if r.listBoxes(""); len(r.server.roster.trails) != 1 {
		t.Error("the trail of a sandbox that is gone is kept")
	}
	r.server.roster.drop()
	if len(r.server.roster.trails) != 0 {
		t.Error("nobody looks, and trails are kept")
	}
}

// TestTasksAreSearched: words are found wherever they stand, over pages.
func TestTasksAreSearched(t *testing.T) {
	r := newRig(t)
	for i := range 30 {
		r.submit(v1alpha1.TaskSpec{Name: fmt.Sprintf("Fix %d", i), Labels: map[string]string{"ticket": fmt.Sprint("P-", i%3)}, Command: []string{"make", "check"}})
	}
	seen, before, pages := 0, "", 0
	for {
		l := call[v1alpha1.TaskList](r, "GET", "/v1/tasks?limit=4&q=p-1+FIX&before="+before, nil, 200)
		for _, v := range l.Tasks {
			if v.Labels["ticket"] != "P-1" {
				t.Errorf("%s does not fit", v.Name)
			}
		}
		seen += len(l.Tasks)
		if pages++; l.Before == "" {
			break
		}
		before = string(l.Before)
	}
	if seen != 10 || pages != 3 {
		t.Errorf("%d found on %d pages, want 10 on 3", seen, pages)
	}
	if l := call[v1alpha1.TaskList](r, "GET", "/v1/tasks?q=nothing+of+this", nil, 200); len(l.Tasks) != 0 || l.Before != "" {
		t.Errorf("%d found, before %q", len(l.Tasks), l.Before)
	}
	if p := r.problem(r.request("GET", "/v1/tasks?q="+strings.Repeat("a", 201), nil), 422); p.Errors[0].Location != "query.q" {
		t.Errorf("%+v", p.Errors)
	}
}

// BenchmarkSandboxPage is a page of 60 rows out of 10,000 sandboxes, from the
// request to the last byte of the answer.
func BenchmarkSandboxPage(b *testing.B) {
	r := newRig(b)
	r.crowd(10_000)
	for _, query := range []string{"?limit=60&offset=5000&sort=state", "?limit=60&q=node-77", ""} {
		b.Run(query, func(b *testing.B) {
			size := 0
			for b.Loop() {
				req := httptest.NewRequest(http.MethodGet, "/v1/sandboxes"+query, nil)
				req.Header.Set("Authorization", "Bearer "+testToken)
				req.Host = "localhost"
				w := httptest.NewRecorder()
				if r.server.ServeHTTP(w, req); w.Code != 200 {
					b.Fatal(w.Body)
				}
				size = w.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes/answer")
		})
	}
}

// TestSandboxesOfABrokenStore: an error is an answer, and ends a stream.
func TestSandboxesOfABrokenStore(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Store = failing{c.Store} })
	r.problem(r.request("GET", "/v1/sandboxes?limit=5", nil), 503)
	next := r.follow("/v1/sandboxes?follow=true", "")
	if _, err := next(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream goes on: %v", err)
	}
}

type failing struct{ fleet.Store }

func (failing) Sandboxes(context.Context, time.Time) ([]fleet.Sandbox, error) {
	return nil, fmt.Errorf("read sandboxes: %w", fleet.ErrUnavailable)
}
