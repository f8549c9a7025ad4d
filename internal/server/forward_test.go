package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// ownerRig is a consumer: a server with an engine of its own on the same store,
// reached over TLS as the leader reaches it.
type ownerRig struct {
	engine    *engine
	address   string
	transport *http.Transport
	asked     atomic.Int32
	headers   chan http.Header
}

// newOwned is a rig whose tasks another process carries.
func newOwned(t *testing.T) (*rig, *ownerRig) {
	t.Helper()
	o := &ownerRig{transport: http.DefaultTransport.(*http.Transport).Clone(), headers: make(chan http.Header, 16)}
	t.Cleanup(o.transport.CloseIdleConnections)
	r := newRig(t, func(c *Config) { c.Forward = &Forwarding{Transport: o.transport, Path: FleetPath("team", "agents")} })
	o.engine = &engine{store: r.store}
	c := r.server.Config
	c.Engine, c.Registry, c.Forward = o.engine, nil, nil
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	all, err := NewFleets(FleetsConfig{Token: testToken, Standby: func() string { return "this process carries sandboxes" }})
	if err != nil {
		t.Fatal(err)
	}
	all.Add("team", "agents", s)
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		select {
		case o.headers <- r.Header.Clone():
		default:
		}
		all.Forwarded(w, r)
	}))
	t.Cleanup(func() {
		_ = s.Shutdown(context.Background())
		h.Close()
	})
	o.transport.TLSClientConfig = h.Client().Transport.(*http.Transport).TLSClientConfig
	o.address = strings.TrimPrefix(h.URL, "https://")
	return r, o
}

// owned starts a task in a sandbox of consumer "c1".
func (r *rig) owned() fleet.TaskID {
	r.t.Helper()
	ctx := context.Background()
	id := r.submit(echo())[0].ID
	d, err := r.queue.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"default": 1}, Visibility: time.Minute})
	if err != nil || len(d) == 0 {
		r.t.Fatalf("lease: %v, %d", err, len(d))
	}
	box := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Pool: d[0].Task.Spec.Pool}, State: fleet.SandboxReady, Owner: "c1"}
	if err := r.store.PutSandbox(ctx, box); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.store.ClaimSandbox(ctx, d[0].Lease, fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now(), Owner: "c1"}); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) tells(address string) {
	r.t.Helper()
	if err := r.store.PutConsumer(context.Background(), fleet.Consumer{Name: "c1", Address: address}); err != nil {
		r.t.Fatal(err)
	}
}

// TestExecIsForwarded: through both servers, in both directions, with the exit
// code.
func TestExecIsForwarded(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	r.tells(o.address)
	r.engine.exec = func(context.Context, fleet.TaskID, fleet.ExecRequest) (int, error) {
		return 0, fmt.Errorf("the leader was asked: %w", fleet.ErrConflict)
	}
	o.engine.exec = func(_ context.Context, got fleet.TaskID, q fleet.ExecRequest) (int, error) {
		if got != id || q.Command[0] != "cat" {
			return 0, fmt.Errorf("asked for %s %+v", got, q)
		}
		_, err := io.Copy(q.Stdout, q.Stdin)
		return 7, err
	}
	c, err := client.New(client.Options{Server: r.url, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	input := strings.Repeat("0123456789", 30_000)
	code, err := c.Exec(t.Context(), id, fleet.ExecRequest{Command: []string{"cat"}, Stdin: strings.NewReader(input), Stdout: &out, Stderr: io.Discard})
	if err != nil || code != 7 || out.String() != input {
		t.Errorf("code %d, %d bytes, %v", code, out.Len(), err)
	}
	h := <-o.headers
	if h.Get(headerForwarded) == "" || h.Get("Authorization") != "Bearer "+testToken {
		t.Errorf("headers of what was forwarded: %v", h)
	}
}

// TestExecEndsWithTheServer: a forwarded command ends when the leader stops.
func TestExecEndsWithTheServer(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	r.tells(o.address)
	started, ended := make(chan struct{}), make(chan struct{})
	o.engine.exec = func(ctx context.Context, _ fleet.TaskID, _ fleet.ExecRequest) (int, error) {
		close(started)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}
	c, err := client.New(client.Options{Server: r.url, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Exec(context.WithoutCancel(t.Context()), id, fleet.ExecRequest{Command: []string{"sleep"}, Stdout: io.Discard, Stderr: io.Discard})
	}()
	<-started
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-ended
	<-done
}

// TestUsageIsForwarded: what is live is the owner's to say; what is over is on
// record.
func TestUsageIsForwarded(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	r.tells(o.address)
	path := "/v1/tasks/" + string(id) + "/usage"
	a := r.do(r.request("GET", path, nil))
	b, _ := io.ReadAll(a.Body)
	if a.StatusCode != 200 || o.asked.Load() != 1 || !strings.Contains(string(b), `"cpuSeconds":1.5`) {
		t.Errorf("%d %s, asked %d times", a.StatusCode, b, o.asked.Load())
	}
	if n := len(a.Header.Values("X-Frame-Options")); n != 1 {
		t.Errorf("%d X-Frame-Options", n)
	}
	// Only once: what was forwarded is answered here.
	req := r.request("GET", path, nil)
	req.Header.Set(headerForwarded, "1")
	if a := r.do(req); a.StatusCode != 200 || o.asked.Load() != 1 {
		t.Errorf("%d, asked %d times", a.StatusCode, o.asked.Load())
	}
	waiting := r.submit(echo())[0].ID
	if a := r.do(r.request("GET", "/v1/tasks/"+string(waiting)+"/usage", nil)); a.StatusCode != 200 || o.asked.Load() != 1 {
		t.Errorf("of a task that waits: %d, asked %d times", a.StatusCode, o.asked.Load())
	}
	if a := r.do(r.request("GET", "/v1/tasks/nothing/usage", nil)); a.StatusCode != 404 {
		t.Errorf("of no task: %d", a.StatusCode)
	}
}

func TestOwnerIsAway(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	path := "/v1/tasks/" + string(id)
	p := r.problem(r.request("GET", path+"/usage", nil), 503)
	if !strings.Contains(p.Detail, "consumer c1, which carries the sandbox of task "+string(id)+", has not been heard of lately") {
		t.Errorf("%+v", p)
	}
	gone := httptest.NewServer(nil)
	r.tells(strings.TrimPrefix(gone.URL, "http://"))
	gone.Close()
	if p := r.problem(r.request("GET", path+"/usage", nil), 503); !strings.Contains(p.Detail, "does not answer") {
		t.Errorf("%+v", p)
	}
	a := r.do(r.request("POST", path+"/cancel", nil))
	if a.StatusCode != 200 {
		t.Errorf("cancel: %d", a.StatusCode)
	}
	if t2, err := r.store.Task(t.Context(), id); err != nil || !t2.Cancel {
		t.Errorf("the cancellation is not on record: %+v, %v", t2, err)
	}
	if o.asked.Load() != 0 {
		t.Error("somebody answered")
	}
}

func TestCancelTellsTheOwner(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	r.tells(o.address)
	if a := r.do(r.request("POST", "/v1/tasks/"+string(id)+"/cancel", nil)); a.StatusCode != 200 || o.asked.Load() != 1 {
		t.Errorf("%d, the owner was told %d times", a.StatusCode, o.asked.Load())
	}
}

// TestForwardedOnly: what was not passed on, or has no token, gets nothing.
func TestForwardedOnly(t *testing.T) {
	r, o := newOwned(t)
	id := r.owned()
	for _, c := range []struct {
		path, token, forwarded string
		want                   int
	}{
		{"/fleets/team/agents/v1/tasks/" + string(id) + "/usage", testToken, "1", 200},
		{"/fleets/team/agents/v1/tasks/" + string(id) + "/usage", testToken, "", 404},
		{"/fleets/team/agents/v1/tasks/" + string(id) + "/usage", "", "1", 401},
		{"/fleets/team/agents/v1/tasks", testToken, "1", 404},
		{"/fleets/team/agents/v1/fleet", testToken, "1", 404},
		{"/fleets/team/other/v1/tasks/" + string(id) + "/usage", testToken, "1", 503},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+o.address+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if c.forwarded != "" {
			req.Header.Set(headerForwarded, c.forwarded)
		}
		a, err := o.transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		var any json.RawMessage
		_ = json.NewDecoder(a.Body).Decode(&any)
		_ = a.Body.Close()
		if a.StatusCode != c.want {
			t.Errorf("%+v: %d %s", c, a.StatusCode, any)
		}
	}
}
