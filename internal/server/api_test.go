package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestTaskLife(t *testing.T) {
	r := newRig(t)
	v := r.submit(v1alpha1.TaskSpec{Name: "first", Command: []string{"echo", "hi"}, Labels: map[string]string{"team": "payments"}})[0]
	if v.State != fleet.TaskQueued || v.Tenant != "payments" || v.Pool != "default" || v.Template != "default" || !fleet.ValidID("t", string(v.ID)) {
		t.Errorf("submitted as %+v", v)
	}
	path := "/v1/tasks/" + string(v.ID)
	if got := call[v1alpha1.TaskView](r, "GET", path, nil, 200); got.Name != "first" {
		t.Errorf("got %+v", got)
	}
	d := r.start()
	r.log(d, "hello\n")
	if got := call[v1alpha1.TaskView](r, "GET", path+"/wait?timeout=1ms", nil, 200); got.State != fleet.TaskClaimed || got.ExitCode != nil {
		t.Errorf("while it runs: %+v", got)
	}
	r.settle(d, fleet.Settlement{
		State: fleet.TaskFailed, Phases: fleet.Phases{Run: 1500 * time.Millisecond},
		Result: fleet.Result{Reason: fleet.ReasonExit, ExitCode: 3, Message: "exit 3", Usage: fleet.Usage{CPU: time.Second}},
	})
	got := call[v1alpha1.TaskView](r, "GET", path+"/wait", nil, 200)
	if got.State != fleet.TaskFailed || got.ExitCode == nil || *got.ExitCode != 3 || got.Phases.RunSeconds != 1.5 || got.Usage.CPUSeconds != 1 {
		t.Errorf("in the end: %+v", got)
	}
	again := call[v1alpha1.TaskView](r, "POST", path+"/retry", nil, 201)
	if again.ID == v.ID || again.State != fleet.TaskQueued || again.Name != "first" {
		t.Errorf("retried as %+v", again)
	}
	gone := call[v1alpha1.TaskView](r, "POST", "/v1/tasks/"+string(again.ID)+"/cancel", nil, 200)
	if gone.State != fleet.TaskCancelled {
		t.Errorf("cancelled as %+v", gone)
	}
	if e := call[v1alpha1.ExplanationView](r, "GET", path+"/explain", nil, 200); e.Summary == "" || len(e.Steps) != 1 {
		t.Errorf("explained as %+v", e)
	}
	if u := call[v1alpha1.UsageView](r, "GET", path+"/usage", nil, 200); u.CPUSeconds != 1.5 {
		t.Errorf("usage %+v", u)
	}
}

func TestSubmitAllOrNone(t *testing.T) {
	r := newRig(t)
	bad := echo()
	bad.Resources = &v1alpha1.Resources{Memory: "1Mi"}
	worse := v1alpha1.TaskSpec{Template: "nope"}
	p := r.problem(r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{echo(), bad, worse}}), 422)
	var where []string
	for _, f := range p.Errors {
		where = append(where, f.Location)
	}
	want := []string{"tasks[1].resources.memory", "tasks[2].command", "tasks[2].template"}
	if d := cmp.Diff(want, where); d != "" {
		t.Errorf("located at (-want +got)\n%s", d)
	}
	if l := call[v1alpha1.TaskList](r, "GET", "/v1/tasks", nil, 200); len(l.Tasks) != 0 {
		t.Errorf("%d tasks were accepted", len(l.Tasks))
	}
}

// A task that fits on no node is refused rather than left to wait for ever.
func TestSubmitMoreThanANode(t *testing.T) {
	r := newRig(t)
	big := echo()
	big.Resources = &v1alpha1.Resources{CPUs: "100", Memory: "900Gi"}
	r.submit(big) // no node is known yet
	r.engine.mu.Lock()
	r.engine.view.Nodes = []fleet.NodeView{
		{Node: fleet.Node{MilliCPU: 16_000, MemoryBytes: 1 << 30}},
		{Node: fleet.Node{MilliCPU: 1000, MemoryBytes: 8 << 30}},
	}
	r.engine.mu.Unlock()
	for _, c := range []struct {
		cpus, memory v1alpha1.Quantity
		want         []string
	}{
		{"100", "900Gi", []string{"tasks[0].resources.cpus", "tasks[0].resources.memory"}},
		{"1", "9Gi", []string{"tasks[0].resources.memory"}},
		{"2", "2Gi", []string{"tasks[0].resources"}},
	} {
		big.Resources = &v1alpha1.Resources{CPUs: c.cpus, Memory: c.memory}
		p := r.problem(r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{big}}), 422)
		var where []string
		for _, f := range p.Errors {
			where = append(where, f.Location)
		}
		if d := cmp.Diff(c.want, where); d != "" {
			t.Errorf("%s cores, %s: located at (-want +got)\n%s", c.cpus, c.memory, d)
		}
	}
	big.Resources = &v1alpha1.Resources{CPUs: "1", Memory: "8Gi"}
	r.submit(big)
}

func TestIdempotency(t *testing.T) {
	r := newRig(t)
	s := echo()
	s.IdempotencyKey = "k1"
	first := r.submit(s)[0]
	second := call[v1alpha1.TaskList](r, "POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{s}}, 200)
	if second.Tasks[0].ID != first.ID {
		t.Errorf("a second task: %s, %s", first.ID, second.Tasks[0].ID)
	}
	s.Command = []string{"other"}
	r.problem(r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{s}}), 409)
}

func TestListPages(t *testing.T) {
	r := newRig(t)
	for i := range 25 {
		s := echo()
		s.Labels = map[string]string{"n": fmt.Sprint(i % 2)}
		r.submit(s)
		time.Sleep(time.Millisecond) // ids sort by the millisecond
	}
	seen, before, pages := map[fleet.TaskID]bool{}, "", 0
	for {
		l := call[v1alpha1.TaskList](r, "GET", "/v1/tasks?limit=10&before="+before, nil, 200)
		for _, v := range l.Tasks {
			if seen[v.ID] {
				t.Fatalf("%s is on two pages", v.ID)
			}
			seen[v.ID] = true
		}
		pages++
		if before = string(l.Before); before == "" {
			break
		}
	}
	if len(seen) != 25 || pages != 3 {
		t.Errorf("%d tasks on %d pages", len(seen), pages)
	}
	if l := call[v1alpha1.TaskList](r, "GET", "/v1/tasks?label=n=1&state=queued,running&state=lost&since=1h", nil, 200); len(l.Tasks) != 12 {
		t.Errorf("%d tasks of the label", len(l.Tasks))
	}
	for _, q := range []string{"state=gone", "label=x", "since=yesterday", "before=x", "limit=-1", "limit=x", "unknown=1", "limit=10001"} {
		p := r.problem(r.request("GET", "/v1/tasks?"+q, nil), 422)
		if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, "query.") {
			t.Errorf("%s: %+v", q, p)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{fmt.Errorf("submit: %w", fleet.ErrFull), 429, true},
		{fmt.Errorf("no space left on the disk of /x: %w", fleet.ErrFull), 507, false},
		{fmt.Errorf("write: %w", syscall.ENOSPC), 507, false},
		{fmt.Errorf("submit: %w", fleet.ErrUnavailable), 503, true},
		{fmt.Errorf("submit: %w", fleet.ErrConflict), 409, false},
		{fmt.Errorf("submit: %w", fleet.ErrCorrupt), 500, false},
		{errors.New("odd"), 500, false},
		{context.DeadlineExceeded, 503, true},
		{&fleet.FieldError{Field: "x", Wrong: "is wrong", Right: "y"}, 422, false},
	} {
		r.store.FailOnce("Submit", c.err)
		req := r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{echo()}})
		resp := r.do(req)
		raw, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || (resp.Header.Get("Retry-After") != "") != c.retry || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: %s %v %s", c.err, resp.Status, resp.Header, raw)
		}
	}
}

func TestBacklogBound(t *testing.T) {
	r := newRig(t)
	many := make([]v1alpha1.TaskSpec, 1000)
	for i := range many {
		many[i] = echo()
	}
	for range 5 {
		r.submit(many...)
	}
	p := r.problem(r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: many[:1]}), 429)
	if !strings.Contains(p.Detail, "maxBacklog") {
		t.Errorf("%+v", p)
	}
}

func TestFleetRoutes(t *testing.T) {
	r := newRig(t)
	r.engine.view = fleet.View{
		Name: "agents", Backlog: 3, OldestAge: 1500 * time.Millisecond, StartP99: 2 * time.Second,
		Pools: []fleet.PoolView{{Pool: "default", Template: "default", TimeToEmpty: -1}, {Pool: "web", Template: "web", TimeToEmpty: 2 * time.Second}},
	}
	v := call[v1alpha1.FleetView](r, "GET", "/v1/fleet", nil, 200)
	if v.OldestAgeSeconds != 1.5 || v.Start.P99Seconds != 2 || v.Pools[0].TimeToEmptySeconds != nil || *v.Pools[1].TimeToEmptySeconds != 2 || v.Nodes == nil {
		t.Errorf("%+v", v)
	}
	f := call[v1alpha1.Fleet](r, "GET", "/v1/fleet/spec", nil, 200)
	if f.Spec.Templates[0].Resources.Memory != "2Gi" || f.Spec.Capacity.Sandboxes.Max != 200 {
		t.Errorf("%+v", f.Spec)
	}
	r.submit(echo())
	r.start()
	if l := call[v1alpha1.SandboxList](r, "GET", "/v1/sandboxes", nil, 200); len(l.Sandboxes) != 1 || l.Sandboxes[0].State != fleet.SandboxClaimed ||
		l.Sandboxes[0].Usage.CPUNow != 0.25 || l.Sandboxes[0].Usage.Pids != 7 {
		t.Errorf("%+v", l)
	}
	seq, err := r.store.AppendDecision(context.Background(), fleet.DecisionRecord{At: time.Now(), Observation: []byte(`{"a":1}`), Plan: []byte(`not json`), Changed: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := call[v1alpha1.DecisionView](r, "GET", fmt.Sprintf("/v1/decisions/%d", seq), nil, 200)
	if string(d.Observation) != `{"a":1}` || string(d.Plan) != `"not json"` {
		t.Errorf("%s %s", d.Observation, d.Plan)
	}
	r.problem(r.request("GET", "/v1/decisions/999", nil), 404)
	r.problem(r.request("GET", "/v1/decisions/0", nil), 422)
	r.problem(r.request("GET", "/v1/decisions/x", nil), 422)
	r.problem(r.request("GET", "/v1/events/999/explain", nil), 404)
	if e := call[v1alpha1.ExplanationView](r, "GET", "/v1/events/1/explain", nil, 200); e.Summary != "because" {
		t.Errorf("%+v", e)
	}
	if v := call[v1alpha1.Version](r, "GET", "/v1/version", nil, 200); v.Version != "v0.0.0-test" || v.APIVersion != v1alpha1.APIVersion {
		t.Errorf("%+v", v)
	}
	r.engine.err = fleet.ErrUnavailable
	r.problem(r.request("GET", "/v1/fleet", nil), 503)
}

func TestSchedules(t *testing.T) {
	r := newRig(t)
	spec := v1alpha1.ScheduleSpec{Cron: "0 8 * * MON", Timezone: "Europe/Warsaw", Task: echo()}
	made := call[v1alpha1.ScheduleView](r, "PUT", "/v1/schedules/weekly", spec, 200)
	if made.Name != "weekly" || !made.Next.After(time.Now()) || made.Task.Command[0] != "echo" {
		t.Errorf("%+v", made)
	}
	same := call[v1alpha1.ScheduleView](r, "PUT", "/v1/schedules/weekly", spec, 200)
	if d := cmp.Diff(made, same); d != "" {
		t.Errorf("the same again changes\n%s", d)
	}
	if l := call[v1alpha1.ScheduleList](r, "GET", "/v1/schedules", nil, 200); len(l.Schedules) != 1 {
		t.Errorf("%+v", l)
	}
	spec.Paused = true
	if p := call[v1alpha1.ScheduleView](r, "PUT", "/v1/schedules/weekly", spec, 200); !p.Next.IsZero() {
		t.Errorf("paused, and next at %s", p.Next)
	}
	bad := v1alpha1.ScheduleSpec{Cron: "61 * * * *", Timezone: "Europe/Warsaw", Task: v1alpha1.TaskSpec{IdempotencyKey: "x"}}
	p := r.problem(r.request("PUT", "/v1/schedules/Bad_Name", bad), 422)
	var where []string
	for _, f := range p.Errors {
		where = append(where, f.Location)
	}
	want := []string{"metadata.name", "spec.cron", "spec.task.command", "spec.task.idempotencyKey"}
	if d := cmp.Diff(want, where); d != "" {
		t.Errorf("located at (-want +got)\n%s", d)
	}
	id, err := r.server.SubmitScheduled(context.Background(), "weekly", []byte(`{"command":["true"]}`), "schedule/weekly/1")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.server.SubmitScheduled(context.Background(), "weekly", []byte(`{"command":["true"]}`), "schedule/weekly/1"); again != id || err != nil {
		t.Errorf("a firing was submitted twice: %s %s %v", id, again, err)
	}
	call[struct{}](r, "DELETE", "/v1/schedules/weekly", nil, 204)
	r.problem(r.request("DELETE", "/v1/schedules/weekly", nil), 404)
	r.problem(r.request("GET", "/v1/schedules/weekly", nil), 404)
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	v := r.submit(echo())[0]
	path := "/v1/tasks/" + string(v.ID)
	r.problem(r.request("GET", path+"/patch", nil), 409)
	d := r.start()
	for name, text := range map[string]string{"patch": "diff --git a b\n", "artifacts/out/a b.xml": "<x/>", "artifacts/secret": "no"} {
		if _, err := r.archive.PutFile(v.ID, name, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	r.settle(d, fleet.Settlement{State: fleet.TaskSucceeded, Result: fleet.Result{
		PatchBytes: 15, Artifacts: []fleet.Artifact{{Path: "out/a b.xml", Bytes: 4}, {Path: "gone.txt", Bytes: 1}},
	}})
	get := func(p string) (string, http.Header) {
		resp := r.do(r.request("GET", path+p, nil))
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %s %s", p, resp.Status, b)
		}
		return string(b), resp.Header
	}
	if b, h := get("/patch"); b != "diff --git a b\n" || h.Get("Content-Type") != "text/x-patch; charset=utf-8" || !strings.Contains(h.Get("Content-Disposition"), "attachment") {
		t.Errorf("patch %q %v", b, h)
	}
	b, h := get("/artifacts/out/a%20b.xml")
	if b != "<x/>" || h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Content-Disposition") != `attachment; filename="a b.xml"` || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("artifact %q %v", b, h)
	}
	if b, _ := get("/artifacts/out%2Fa%20b.xml"); b != "<x/>" {
		t.Errorf("with an escaped slash: %q", b)
	}
	if l := call[v1alpha1.ArtifactList](r, "GET", path+"/artifacts", nil, 200); len(l.Artifacts) != 2 {
		t.Errorf("%+v", l)
	}
	for _, p := range []string{"secret", "..%2Fpatch", "%2e%2e/patch", "out", "gone.txt", "out/../secret", "%00"} {
		req := r.request("GET", path+"/artifacts/"+p, nil)
		resp := r.do(req)
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 404 || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s %s", p, resp.Status, b)
		}
	}
}

func TestOnlyNamesOfSecrets(t *testing.T) {
	r := newRig(t)
	s := echo()
	s.Secrets = []string{"API_KEY"}
	raw, err := json.Marshal(r.submit(s)[0])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `"secrets":["API_KEY"]`) {
		t.Errorf("%s", raw)
	}
}
