package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testToken = "0123456789abcdef0123456789abcdef"

const testFleet = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates:
    - name: default
    - name: web
      repos: ["https://example.com/web.git"]
      resources: {memory: 1Gi}
      network: {mode: proxy, allow: [github.com]}
`

// engine is a fleet.Engine whose answers a test sets.
type engine struct {
	mu    sync.Mutex
	store *memory.Store
	view  fleet.View
	err   error
	exec  func(ctx context.Context, id fleet.TaskID, r fleet.ExecRequest) (int, error)
}

func (e *engine) View(context.Context) (fleet.View, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.view, e.err
}

func (e *engine) Cancel(ctx context.Context, id fleet.TaskID, by string) (fleet.Task, error) {
	return e.store.Cancel(ctx, id, by, time.Now())
}

func (e *engine) Exec(ctx context.Context, id fleet.TaskID, r fleet.ExecRequest) (int, error) {
	return e.exec(ctx, id, r)
}

func (e *engine) Usage(context.Context, fleet.TaskID) (fleet.Usage, error) {
	return fleet.Usage{CPU: 1500 * time.Millisecond, MemoryPeakBytes: 1 << 20}, e.err
}

func (e *engine) SandboxUsage(context.Context, fleet.SandboxID) (fleet.Usage, error) {
	return fleet.Usage{MilliCPUNow: 250, Pids: 7}, e.err
}

func (e *engine) ExplainTask(_ context.Context, id fleet.TaskID) (fleet.Explanation, error) {
	return fleet.Explanation{Summary: "waited 3.2 s: pool empty", Steps: []fleet.Event{{Seq: 1, Task: id}}}, e.err
}

func (e *engine) ExplainEvent(_ context.Context, seq int64) (fleet.Explanation, error) {
	if seq > 100 {
		return fleet.Explanation{}, fleet.ErrNotFound
	}
	return fleet.Explanation{Summary: "because"}, e.err
}

func (e *engine) Shadow(_ context.Context, since time.Time) (fleet.Shadow, error) {
	if since.Year() > 2020 {
		return fleet.Shadow{}, fleet.ErrNotFound
	}
	return fleet.Shadow{Slots: 8, Hours: []fleet.ShadowHour{{Seconds: 3600, Sandboxes: 7200, Workers: 14400, Known: 3600, KnownSandboxes: 7200}}, Sum: fleet.ShadowHour{Seconds: 3600}}, nil
}

func (e *engine) Forecast(_ context.Context, q fleet.ForecastQuery) (fleet.Forecast, error) {
	if q.Template != "" && q.Template != "web" {
		return fleet.Forecast{}, fleet.ErrNotFound
	}
	cost := int64(3_100_000)
	f := fleet.Forecast{
		Template: q.Template, At: time.Now(), Timezone: q.Zone.String(), HorizonSeconds: q.Horizon.Seconds(), StepSeconds: 60,
		Basis: fleet.ForecastBasis{Kind: "recent", KnownMinutes: 5, Sentence: "from 5 minutes of history"},
		Steps: []fleet.ForecastStep{{From: time.Now()}},
		Week:  fleet.ForecastWeek{Arrivals: []float64{1}, Demand: []float64{1}, WeeksSeen: []int{2}, Waits: []float64{3}, WaitsSeen: []float64{7}},
		Peaks: []fleet.ForecastPeak{{Days: "Mondays", Weekdays: []time.Weekday{time.Monday}, CostMicroUSD: &cost}},
	}
	if q.Backtest {
		f.Backtest = &fleet.ForecastBacktest{Scores: []fleet.ForecastScore{{Of: "arrivals"}}}
	}
	return f, e.err
}

func (e *engine) LeadTimes(context.Context) (fleet.LeadTimes, error) {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	return fleet.LeadTimes{
		At: at, Since: at.Add(-time.Hour), Stages: []fleet.StageLead{{Stage: fleet.StageStart, Samples: 3, P50: time.Second, Max: 2 * time.Second}},
		Reactions: []fleet.Reaction{{Pool: "web", Due: at.Add(-5 * time.Second), Seen: at.Add(-4 * time.Second), Applied: at.Add(-4 * time.Second)}},
	}, e.err
}

// rig is a server on a loopback port with everything behind it.
type rig struct {
	t       testing.TB
	url     string
	server  *Server
	store   *memory.Store
	queue   fleet.Queue
	archive *archive.Archive
	engine  *engine
	meter   *Meter
	client  *http.Client
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	f, err := v1alpha1.ParseFleet([]byte(testFleet))
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(memory.Options{MaxBacklog: 5000})
	files, err := archive.Open(t.TempDir(), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: store, queue: store.Queue(), archive: files, engine: &engine{store: store}}
	reg := prometheus.NewRegistry()
	if r.meter, err = NewMeter(reg); err != nil {
		t.Fatal(err)
	}
	c := Config{
		Store: store, Archive: files, Engine: r.engine, Fleet: func() *v1alpha1.Fleet { return f },
		Token: testToken, Version: "v0.0.0-test", Registry: reg,
	}
	for _, f := range change {
		f(&c)
	}
	if r.server, err = New(c); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(l) }()
	tr := &http.Transport{MaxIdleConnsPerHost: 16}
	r.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = files.Close()
		_ = store.Close()
	})
	return r
}

// request makes a request that carries the token.
func (r *rig) request(method, path string, body any) *http.Request {
	r.t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, r.url+path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func (r *rig) do(req *http.Request) *http.Response {
	r.t.Helper()
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// call expects a status and decodes the answer.
func call[T any](r *rig, method, path string, body any, status int) T {
	r.t.Helper()
	resp := r.do(r.request(method, path, body))
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != status {
		r.t.Fatalf("%s %s: %s, want %d: %s", method, path, resp.Status, status, raw)
	}
	var v T
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &v); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return v
}

// problem expects a problem and returns it.
func (r *rig) problem(req *http.Request, status int) v1alpha1.Problem {
	r.t.Helper()
	resp := r.do(req)
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != status {
		r.t.Fatalf("%s %s: %s, want %d: %s", req.Method, req.URL, resp.Status, status, raw)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		r.t.Fatalf("%s %s: the problem is %q: %s", req.Method, req.URL, ct, raw)
	}
	var p v1alpha1.Problem
	if err := json.Unmarshal(raw, &p); err != nil {
		r.t.Fatal(err)
	}
	if p.Status != status || p.Title == "" || p.Detail == "" {
		r.t.Errorf("an incomplete problem: %s", raw)
	}
	return p
}

func (r *rig) submit(specs ...v1alpha1.TaskSpec) []v1alpha1.TaskView {
	r.t.Helper()
	return call[v1alpha1.TaskList](r, "POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: specs}, 201).Tasks
}

func echo() v1alpha1.TaskSpec { return v1alpha1.TaskSpec{Command: []string{"echo", "hi"}} }

// start leases and claims the oldest queued task, as the dispatcher does.
func (r *rig) start() fleet.Delivery {
	r.t.Helper()
	ctx := context.Background()
	d, err := r.queue.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"default": 1, "web": 1}, Visibility: time.Minute})
	if err != nil || len(d) == 0 {
		r.t.Fatalf("lease: %v, %d", err, len(d))
	}
	box := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Pool: d[0].Task.Spec.Pool}, State: fleet.SandboxReady}
	if err := r.store.PutSandbox(ctx, box); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.store.ClaimSandbox(ctx, d[0].Lease, fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()}); err != nil {
		r.t.Fatal(err)
	}
	return d[0]
}

// settle ends a task, with the event that says so.
func (r *rig) settle(d fleet.Delivery, s fleet.Settlement) {
	r.t.Helper()
	ctx := context.Background()
	s.EndedAt = time.Now()
	if _, err := r.store.Settle(ctx, d.Task.ID, d.Lease.Fence, s); err != nil {
		r.t.Fatal(err)
	}
	if err := r.archive.EndLog(d.Task.ID, d.Lease.Attempt); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.store.AppendEvents(ctx, []fleet.Event{{Kind: "task_settled", Layer: "tasks", Task: d.Task.ID, At: time.Now(), Reason: "done"}}); err != nil {
		r.t.Fatal(err)
	}
}

// log appends to a task's log.
func (r *rig) log(d fleet.Delivery, text string) {
	r.t.Helper()
	at, err := r.archive.LogSize(d.Task.ID, d.Lease.Attempt)
	if err != nil {
		r.t.Fatal(err)
	}
	rec := fleet.LogRecord{Offset: at, At: time.Now(), Stream: fleet.StreamStdout, Data: []byte(text)}
	if err := r.archive.AppendLog(d.Task.ID, d.Lease.Attempt, rec); err != nil {
		r.t.Fatal(err)
	}
}

// sseEvent is one server-sent event.
type sseEvent struct{ id, kind, data string }

// events reads server-sent events; comments come as events of kind "".
func events(t testing.TB, body io.Reader) func() (sseEvent, error) {
	var buf []byte
	chunk := make([]byte, 32<<10)
	return func() (sseEvent, error) {
		for {
			if i := bytes.Index(buf, []byte("\n\n")); i >= 0 {
				block := string(buf[:i])
				buf = buf[i+2:]
				var e sseEvent
				for _, line := range strings.Split(block, "\n") {
					k, v, _ := strings.Cut(line, ":")
					v = strings.TrimPrefix(v, " ")
					switch k {
					case "id":
						e.id = v
					case "event":
						e.kind = v
					case "data":
						e.data = v
					}
				}
				return e, nil
			}
			n, err := body.Read(chunk)
			buf = append(buf, chunk[:n]...)
			if n == 0 && err != nil {
				return sseEvent{}, err
			}
		}
	}
}
