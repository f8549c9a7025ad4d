package tracing

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"

	"encoding/hex"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a collector.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	spans    map[string]*otlp.Span // by span id
	resource map[string]string
	refuse   bool
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{spans: map[string]*otlp.Span{}, resource: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(w http.ResponseWriter, q *http.Request) {
	b, _ := io.ReadAll(q.Body)
	var m collector.ExportTraceServiceRequest
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := proto.Unmarshal(b, &m); err != nil || r.refuse || q.URL.Path != "/v1/traces" {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	for _, rs := range m.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			r.resource[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				r.spans[hex.EncodeToString(s.GetSpanId())] = s
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// tree writes what was received as lines, children below their parents.
func (r *receiver) tree() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	byParent := map[string][]*otlp.Span{}
	for _, s := range r.spans {
		p := hex.EncodeToString(s.GetParentSpanId())
		if r.spans[p] == nil {
			p = ""
		}
		byParent[p] = append(byParent[p], s)
	}
	var b strings.Builder
	var write func(parent, indent string)
	write = func(parent, indent string) {
		at := byParent[parent]
		slices.SortFunc(at, func(a, b *otlp.Span) int { return int(a.GetStartTimeUnixNano() - b.GetStartTimeUnixNano()) })
		for _, s := range at {
			b.WriteString(indent + s.GetName() + " " + time.Duration(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano()).String())
			if s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR {
				b.WriteString(" error: " + s.GetStatus().GetMessage())
			}
			b.WriteString("\n")
			write(hex.EncodeToString(s.GetSpanId()), indent+"  ")
		}
	}
	write("", "")
	return b.String()
}

func attributes(s *otlp.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.GetAttributes() {
		out[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return out
}

// export sends the traces of tasks to the receiver.
func export(t *testing.T, r *receiver, journal fleet.Journal, tasks ...fleet.Task) {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	x, err := Open(t.Context(), Options{Journal: journal, Fleet: "agents", Version: "v1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		x.Settled(task)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := x.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

var epoch = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// ran is a task that succeeded after 10 s.
func ran(id fleet.TaskID) fleet.Task {
	return fleet.Task{
		ID: id, State: fleet.TaskSucceeded, Attempt: 1, Sandbox: "s1", Node: "n1", Launch: fleet.LaunchWarm,
		Spec:        fleet.TaskSpec{Name: "fix", Tenant: "pay", Template: "default"},
		Phases:      fleet.Phases{Queue: time.Second, Claim: 2 * time.Millisecond, Start: 8 * time.Millisecond, Setup: 2 * time.Second, Run: 6 * time.Second, Collect: 990 * time.Millisecond},
		SubmittedAt: epoch, DueAt: epoch, ClaimedAt: epoch.Add(time.Second), StartedAt: epoch.Add(1010 * time.Millisecond),
		RunningAt: epoch.Add(3010 * time.Millisecond), EndedAt: epoch.Add(10 * time.Second),
	}
}

func TestTree(t *testing.T) {
	r := newReceiver(t)
	task := ran("t1")
	task.Spec.Trace = fleet.ParseTrace(parent, "vendor=1")
	export(t, r, memory.New(memory.Options{}), task)
	const want = `task 10s
  attempt 1 10s
    queue 1s
    claim 2ms
    start 8ms
    setup 2s
    run 6s
    collect 990ms
`
	if got := r.tree(); got != want {
		t.Errorf("the trace is\n%swant\n%s", got, want)
	}
	root, run := r.spans[task.SpanID("task", 0)], r.spans[task.SpanID(fleet.SpanRun, 1)]
	if root == nil || run == nil {
		t.Fatal("ids do not follow from the task's")
	}
	if hex.EncodeToString(root.GetTraceId()) != "4bf92f3577b34da6a3ce929d0e0e4736" || hex.EncodeToString(root.GetParentSpanId()) != "00f067aa0ba902b7" || root.GetTraceState() != "vendor=1" {
		t.Errorf("the root is not the submitter's: %v", root)
	}
	if _, span, _ := task.AgentTrace(1).IDs(); span != hex.EncodeToString(run.GetSpanId()) {
		t.Error("what the agent does does not belong to the span of its run")
	}
	a := attributes(root)
	for k, v := range map[string]string{"muster.task.id": "t1", "muster.task.name": "fix", "muster.tenant": "pay", "muster.template": "default", "muster.task.state": "succeeded"} {
		if a[k] != v {
			t.Errorf("%s is %q, want %q", k, a[k], v)
		}
	}
	if a := attributes(r.spans[task.SpanID("attempt", 1)]); a["muster.sandbox.id"] != "s1" || a["muster.node.id"] != "n1" || a["muster.launch"] != "warm" {
		t.Errorf("the attempt says %v", a)
	}
	if r.resource["service.name"] != "muster" || r.resource["muster.fleet"] != "agents" || r.resource["service.version"] != "v1" {
		t.Errorf("the source says %v", r.resource)
	}
}

// TestAttempts: each has a span of its own, and the same ids when they are made
// again, as after a restart.
func TestAttempts(t *testing.T) {
	store := memory.New(memory.Options{})
	task := ran("t1")
	task.Attempt, task.Sandbox, task.State = 2, "s2", fleet.TaskFailed
	task.Result = fleet.Result{Reason: fleet.ReasonExit, Message: "exit code 3", ExitCode: 3}
	task.SubmittedAt = epoch.Add(-time.Minute)
	if _, err := store.AppendEvents(t.Context(), []fleet.Event{
		{At: epoch.Add(-50 * time.Second), Kind: "task_claimed", Task: "t1", Sandbox: "s1", Node: "n1", Numbers: map[string]float64{"attempt": 1, "queueSeconds": 10}},
		{At: epoch.Add(-5 * time.Second), Kind: "task_retried", Task: "t1", Sandbox: "s1", Reason: "attempt 1 ended (sandbox lost); next in 5s"},
		{At: epoch.Add(time.Second), Kind: "task_claimed", Task: "t1", Sandbox: "s2", Numbers: map[string]float64{"attempt": 2, "queueSeconds": 1}},
	}); err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t)
	export(t, r, store, task)
	const want = `task 1m10s error: exit code 3
  attempt 1 55s error: attempt 1 ended (sandbox lost); next in 5s
    queue 10s
    run 45s
  attempt 2 10s error: exit code 3
    queue 1s
    claim 2ms
    start 8ms
    setup 2s
    run 6s
    collect 990ms
`
	if got := r.tree(); got != want {
		t.Errorf("the trace is\n%swant\n%s", got, want)
	}
	before := slices.Sorted(maps.Keys(r.spans))
	export(t, r, store, task)
	if after := slices.Sorted(maps.Keys(r.spans)); !slices.Equal(before, after) {
		t.Errorf("made again, the spans have other ids: %v, %v", before, after)
	}
}

// TestOddTasks: one that never ran, one whose submitter does not want it
// sampled, and one whose times are out of order.
func TestOddTasks(t *testing.T) {
	r := newReceiver(t)
	waited := fleet.Task{ID: "t1", State: fleet.TaskCancelled, SubmittedAt: epoch, DueAt: epoch, EndedAt: epoch.Add(time.Minute), Result: fleet.Result{Message: "cancelled by ann"}}
	quiet := ran("t2")
	quiet.Spec.Trace = fleet.ParseTrace(strings.TrimSuffix(parent, "1")+"0", "")
	export(t, r, memory.New(memory.Options{}), waited, quiet)
	if got, want := r.tree(), "task 1m0s error: cancelled by ann\n  attempt 1 1m0s error: cancelled by ann\n    queue 1m0s\n"; got != want {
		t.Errorf("the trace is\n%swant\n%s", got, want)
	}
	odd := ran("t3")
	odd.EndedAt, odd.StartedAt = epoch.Add(-time.Hour), time.Time{}
	export(t, r, memory.New(memory.Options{}), odd)
	for _, s := range r.spans {
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("%s ends before it begins", s.GetName())
		}
	}
}

// TestARefusingCollector costs spans and nothing else.
func TestARefusingCollector(t *testing.T) {
	r := newReceiver(t)
	r.refuse = true
	export(t, r, memory.New(memory.Options{}), ran("t1"))
	if len(r.spans) != 0 {
		t.Error("it took spans nevertheless")
	}
}

func TestEnabled(t *testing.T) {
	for _, c := range []struct {
		env   map[string]string
		on    bool
		wrong string
	}{
		{env: map[string]string{}},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, on: true},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp"}, on: true},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, wrong: "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, wrong: "OTEL_TRACES_EXPORTER"},
	} {
		on, err := Enabled(func(name string) string { return c.env[name] })
		var fe *fleet.FieldError
		if on != c.on || (c.wrong != "") != errors.As(err, &fe) || fe != nil && fe.Field != c.wrong {
			t.Errorf("%v: %v, %v", c.env, on, err)
		}
	}
}
