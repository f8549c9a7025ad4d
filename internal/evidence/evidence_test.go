package evidence

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// monday is a Monday.
var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

// records are a store of what a test says.
type records struct {
	fleet.Store
	decisions []time.Time
	tasks     []fleet.Task
	boxes     []fleet.Sandbox
	events    []fleet.Event
	revisions []fleet.Revision // newest first
}

func (r *records) Decisions(_ context.Context, f fleet.DecisionFilter) (out []fleet.DecisionRecord, _ error) {
	for i, at := range r.decisions {
		if !at.Before(f.Since) && !at.After(f.Until) && len(out) < f.Limit {
			out = append(out, fleet.DecisionRecord{Seq: int64(i + 1), At: at})
		}
	}
	return out, nil
}

func (r *records) Tasks(_ context.Context, f fleet.TaskFilter) (out []fleet.Task, _ error) {
	for _, t := range r.tasks {
		if !t.SubmittedAt.Before(f.Since) {
			out = append(out, t)
		}
	}
	return out, nil
}

func (r *records) Sandboxes(_ context.Context, since time.Time) (out []fleet.Sandbox, _ error) {
	for _, b := range r.boxes {
		if b.GoneAt.IsZero() || !b.GoneAt.Before(since) {
			out = append(out, b)
		}
	}
	return out, nil
}

func (r *records) Events(_ context.Context, f fleet.EventFilter) (out []fleet.Event, _ error) {
	for _, e := range r.events {
		if e.At.Before(f.Since) || f.Layer != "" && e.Layer != f.Layer || len(f.Kinds) > 0 && f.Kinds[0] != e.Kind && f.Kinds[1] != e.Kind {
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

func (r *records) Revisions(context.Context, fleet.RevisionFilter) ([]fleet.Revision, error) {
	return r.revisions, nil
}

func (r *records) Revision(_ context.Context, n int64) (fleet.Revision, error) {
	for _, x := range r.revisions {
		if x.Number == n {
			return x, nil
		}
	}
	return fleet.Revision{}, fleet.ErrNotFound
}

// week is a fleet of one week: down for two hours on Tuesday, another's pod on
// its node on Wednesday, a task that waited 90 s on Thursday.
func week() *records {
	day := 24 * time.Hour
	r := &records{}
	for at := monday; at.Before(monday.Add(7 * day)); at = at.Add(time.Minute) {
		if at.Before(monday.Add(day+10*time.Hour)) || at.After(monday.Add(day+12*time.Hour)) {
			r.decisions = append(r.decisions, at)
		}
	}
	spec := func(min string) []byte { return []byte(`{"spec":{"capacity":{"sandboxes":{"min":` + min + `}}}}`) }
	r.revisions = []fleet.Revision{
		{Number: 3, At: monday.Add(3 * day), Author: "ada", Source: fleet.FromAPI, Note: "advice: <b>less</b>", Spec: spec("2")},
		{Number: 2, At: monday.Add(-3 * day), Author: "bob", Source: fleet.FromFile, Spec: spec("6")},
		{Number: 1, At: monday.Add(-9 * day), Author: "bob", Source: fleet.FromFile, Spec: spec("5")},
	}
	task := func(name string, at time.Time, wait time.Duration) fleet.Task {
		return fleet.Task{ID: fleet.NewTaskID(at), Spec: fleet.TaskSpec{Name: name}, SubmittedAt: at, DueAt: at, StartedAt: at.Add(wait), EndedAt: at.Add(wait + time.Hour), State: fleet.TaskSucceeded}
	}
	thursday := monday.Add(3*day + 9*time.Hour)
	r.tasks = []fleet.Task{task(hostile, thursday, 90*time.Second), task("quick", thursday.Add(time.Hour), 200*time.Millisecond), task("quick", thursday.Add(2*time.Hour), time.Second)}
	never := task("never", thursday.Add(3*time.Hour), 0)
	never.StartedAt, never.EndedAt, never.State = time.Time{}, thursday.Add(4*time.Hour), fleet.TaskTimedOut
	waits := task("waits", monday.Add(7*day-time.Second), 0)
	waits.StartedAt, waits.EndedAt, waits.State = time.Time{}, time.Time{}, fleet.TaskQueued
	r.tasks = append(r.tasks, never, waits)
	kernel := fleet.Isolation{Runtime: fleet.RuntimeRunc, UserNamespace: true, UID: 1000, NoNewPrivs: true, Seccomp: true, ReadOnlyRoot: true, Network: fleet.NetworkNone, Cgroups: "v2", Volume: "loop"}
	for i, t := range r.tasks[:3] {
		iso := kernel
		iso.HostUID = 100000 + i
		if i == 2 {
			iso.Lost = []string{"the confinement was not observed from inside, it is what the pod asks for: no"}
		}
		r.boxes = append(r.boxes, fleet.Sandbox{
			Spec:  fleet.SandboxSpec{ID: fleet.NewSandboxID(t.DueAt), Node: "n1", Template: "default", Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, Pids: 64, DiskBytes: 1 << 30}},
			State: fleet.SandboxGone, Isolation: iso, Task: t.ID, CreatedAt: t.DueAt, ClaimedAt: t.StartedAt, GoneAt: t.EndedAt,
			Usage: fleet.Usage{CPU: 30 * time.Minute, MemoryPeakBytes: 1 << 29},
		})
	}
	r.boxes = append(r.boxes, fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(monday), Node: "n1"}, State: fleet.SandboxStarting, CreatedAt: monday.Add(6 * day)})
	r.events = []fleet.Event{
		{Seq: 1, At: monday.Add(day), Kind: "scale_out", Layer: "sandboxes", Pool: "default", Reason: "2 wait: " + hostile},
		{Seq: 2, At: monday.Add(2 * day), Kind: "dedication_breach", Layer: "nodes", Node: "n1", Reason: "pod shop/web runs on node n1, which is for agents alone"},
		{Seq: 3, At: monday.Add(2*day + time.Hour), Kind: "dedication_restored", Layer: "nodes", Node: "n1", Reason: "no longer: pod shop/web runs on node n1, which is for agents alone"},
		{Seq: 4, At: monday.Add(3 * day), Kind: "sandbox_ready", Layer: "sandboxes"},
		{Seq: 5, At: monday.Add(4 * day), Kind: "task_started", Layer: "tasks"},
	}
	return r
}

func service(t *testing.T, r *records, dedicated *fleet.DedicationView) *Service {
	t.Helper()
	f, err := v1alpha1.ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: agents}\nspec: {templates: [{name: default}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	each := int64(690_000)
	return New(Options{
		Store: r, Fleet: func() *v1alpha1.Fleet { return f }, Version: "v0", Clock: func() time.Time { return monday.Add(7 * 24 * time.Hour) },
		View: func(context.Context) (fleet.View, error) {
			return fleet.View{ScaleOut: fleet.ScaleOut{Samples: 4, P50Seconds: 3, P95Seconds: 41, MaxSeconds: 44}, Dedication: dedicated, Nodes: []fleet.NodeView{{Node: fleet.Node{ID: "n1", Kind: fleet.NodeKind{InstanceType: "m7i.xlarge"}}}}}, nil
		},
		Explain: func(context.Context, fleet.TaskID) (fleet.Explanation, error) {
			return fleet.Explanation{Summary: "waited: " + hostile}, nil
		},
		Report: func(_ context.Context, q fleet.CostQuery) (fleet.CostReport, error) {
			return fleet.CostReport{Began: monday, MicroUSD: 2_070_000, BusyHours: 3, NodeHours: 5, AgentHourMicroUSD: &each, IdleShare: 0.4, Unpriced: 1}, nil
		},
	})
}

func gather(t *testing.T, s *Service) fleet.Evidence {
	t.Helper()
	e, err := s.Evidence(t.Context(), fleet.EvidenceQuery{Since: monday})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvidence(t *testing.T) {
	e := gather(t, service(t, week(), &fleet.DedicationView{At: monday.Add(6 * 24 * time.Hour)}))
	if len(e.Gaps) != 1 || !e.Gaps[0].From.Equal(monday.Add(34*time.Hour-time.Minute)) || !e.Gaps[0].Until.Equal(monday.Add(36*time.Hour+time.Minute)) {
		t.Errorf("gaps: %+v", e.Gaps)
	}
	if e.Unseen < 0.012 || e.Unseen > 0.0122 || !e.Began.IsZero() {
		t.Errorf("unseen %v, began %v", e.Unseen, e.Began)
	}
	c := e.Compute
	if len(c.Nodes) != 1 || c.Nodes[0].Agents != 3 || c.Nodes[0].Kind.InstanceType != "m7i.xlarge" || !c.Watched {
		t.Errorf("compute: %+v", c)
	}
	if len(c.Breaches) != 1 || c.Breaches[0].Until.Sub(c.Breaches[0].From) != time.Hour || !strings.Contains(c.Sentence, "1 breach on record") || !strings.Contains(c.Sentence, "1 gap") {
		t.Errorf("breaches: %+v %s", c.Breaches, c.Sentence)
	}
	r := e.Reaction
	if r.Tasks != 4 || r.PromiseSeconds != 60 || r.Within != 0.5 || r.Max != 3600 || len(r.Breaches) != 2 {
		t.Fatalf("reaction: %+v", r)
	}
	if late := r.Breaches[1]; r.Breaches[0].Started || late.Wait != 90 || !late.Started || late.Name != hostile || !strings.HasPrefix(late.Cause, "waited") {
		t.Errorf("breaches: %+v", r.Breaches)
	}
	total := 0
	for _, b := range r.Buckets {
		total += b.Tasks
	}
	if total != r.Tasks || r.Buckets[0].Tasks != 0 || r.Buckets[1].Tasks != 1 || r.Buckets[2].Tasks != 1 {
		t.Errorf("buckets: %+v", r.Buckets)
	}
	if len(e.Profiles) != 2 || !e.Profiles[0].Observed || e.Profiles[0].Sandboxes != 2 || e.Profiles[1].Observed {
		t.Errorf("profiles: %+v", e.Profiles)
	}
	if a := e.Agents[2]; a.Name != hostile || a.Profile != 0 || a.MemoryPart != 0.5 || a.CPUShare != 0.5 || e.Agents[0].Profile != 1 {
		t.Errorf("agents: %+v", e.Agents)
	}
	if len(e.Changes) != 2 || e.Changes[0].Number != 2 || e.Changes[1].Changes[0] != "capacity.sandboxes.min 6 → 2" || e.Changes[1].Author != "ada" {
		t.Errorf("changes: %+v", e.Changes)
	}
	if len(e.Events) != 3 || e.Events[0].Kind != "scale_out" {
		t.Errorf("events: %+v", e.Events)
	}
	if len(e.Weeks) != 1 || *e.Weeks[0].AgentHourMicroUSD != 690_000 || !e.Weeks[0].From.Equal(monday) || len(e.Notes) != 1 {
		t.Errorf("weeks: %+v %v", e.Weeks, e.Notes)
	}
}

// TestNotObserved: what nobody looked at is not said to be fine.
func TestNotObserved(t *testing.T) {
	r := week()
	r.events, r.decisions = nil, nil
	r.revisions = r.revisions[2:]
	r.revisions[0].At = monday.Add(24 * time.Hour)
	e := gather(t, service(t, r, nil))
	if e.Compute.Watched || !strings.Contains(e.Compute.Sentence, "was not observed") {
		t.Errorf("%s", e.Compute.Sentence)
	}
	if !e.Began.Equal(monday.Add(24*time.Hour)) || len(e.Gaps) != 1 || !e.Gaps[0].From.Equal(e.Began) || e.Unseen != 1 {
		t.Errorf("began %v, gaps %+v, unseen %v", e.Began, e.Gaps, e.Unseen)
	}
	standing := gather(t, service(t, r, &fleet.DedicationView{Error: "forbidden", Trespasses: []fleet.Trespass{{Kind: fleet.TrespassForeign, Node: "n1", Workload: "pod shop/web"}}}))
	if len(standing.Compute.Breaches) != 1 || !strings.Contains(standing.Compute.Sentence, "The last look failed: forbidden") {
		t.Errorf("%+v", standing.Compute)
	}
}

func TestQueries(t *testing.T) {
	s := service(t, week(), nil)
	for _, q := range []fleet.EvidenceQuery{{Since: monday.Add(9 * 24 * time.Hour)}, {Since: monday.Add(-40 * 24 * time.Hour)}, {Since: monday, Until: monday}} {
		_, err := s.Evidence(t.Context(), q)
		var e *fleet.FieldError
		if !errors.As(err, &e) || e.Field != "since" || e.Right == "" {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestPage: it stands alone, says what is to be said, and nothing that a task
// calls itself is markup of it.
func TestPage(t *testing.T) {
	e := gather(t, service(t, week(), &fleet.DedicationView{At: monday}))
	var b strings.Builder
	if err := Write(&b, &e); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<b>less|@import|url\(|src=x?"|https?://`).FindString(html); m != "" {
		t.Errorf("the page reaches out, or holds what a task says: %s", m)
	}
	for _, want := range []string{"Content-Security-Policy", "default-src 'none'", "prefers-color-scheme: dark", "@media print", "pod shop/web", "not observed", "capacity.sandboxes.min 6 → 2", "$0.69", "&lt;img src=x", "2 of 4 tasks started within the promised 60 s", "lately 4 times since the control plane started"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if m := regexp.MustCompile(`NaN|Inf|%!|ZgotmplZ`).FindString(html); m != "" {
		t.Errorf("a value went wrong: %s", m)
	}
	b.Reset()
	empty := gather(t, service(t, &records{}, nil))
	if err := Write(&b, &empty); err != nil || regexp.MustCompile(`NaN|Inf|%!|ZgotmplZ`).MatchString(b.String()) {
		t.Errorf("of nothing: %v", err)
	}
}
