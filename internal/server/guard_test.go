package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestAuthorization(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name, header string
	}{
		{"none", ""}, {"empty", "Bearer "}, {"wrong", "Bearer " + strings.Repeat("x", 32)}, {"a part", "Bearer " + testToken[:31]},
		{"more", "Bearer " + testToken + "0"}, {"basic", "Basic " + testToken}, {"bare", testToken},
	} {
		req := r.request("GET", "/v1/tasks", nil)
		req.Header.Set("Authorization", c.header)
		if c.header == "" {
			req.Header.Del("Authorization")
		}
		p := r.problem(req, 401)
		if strings.Contains(p.Detail, testToken) {
			t.Errorf("%s: the answer holds the token", c.name)
		}
	}
	req := r.request("GET", "/v1/tasks", nil)
	req.Header.Del("Authorization")
	if h := r.do(req).Header.Get("WWW-Authenticate"); !strings.HasPrefix(h, "Bearer") {
		t.Errorf("WWW-Authenticate %q", h)
	}
	for _, open := range []string{"/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/metrics"} {
		req := r.request("GET", open, nil)
		req.Header.Del("Authorization")
		if resp := r.do(req); resp.StatusCode != 200 {
			t.Errorf("%s: %s", open, resp.Status)
		}
	}
	req = httptest.NewRequest("GET", "/metrics", nil)
	req.Host, req.RemoteAddr = "192.0.2.1:7433", "192.0.2.7:5000"
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	if w.Code != 401 {
		t.Errorf("metrics to another machine without the token: %d", w.Code)
	}
}

func TestHostsAndOrigins(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts = []string{"fleet.example.com"} })
	port := r.url[strings.LastIndexByte(r.url, ':'):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "LOCALHOST": 200, "[::1]" + port: 200, "app.localhost": 200,
		"fleet.example.com" + port: 200, "attacker.example" + port: 403, "127.0.0.1.attacker.example": 403, "localhost.attacker.example": 403,
	} {
		req := r.request("GET", "/v1/version", nil)
		req.Host = host
		if want == 200 {
			if resp := r.do(req); resp.StatusCode != 200 {
				t.Errorf("host %s: %s", host, resp.Status)
			}
			continue
		}
		r.problem(req, want)
	}
	for origin, want := range map[string]int{
		r.url: 200, "https://attacker.example": 403, "null": 403, "http://localhost:1": 403, "%": 403,
	} {
		req := r.request("GET", "/v1/version", nil)
		req.Header.Set("Origin", origin)
		if want == 200 {
			if resp := r.do(req); resp.StatusCode != 200 {
				t.Errorf("origin %s: %s", origin, resp.Status)
			}
			continue
		}
		r.problem(req, want)
	}
	req := r.request("OPTIONS", "/v1/tasks", nil) // a preflight
	req.Header.Set("Origin", "https://attacker.example")
	resp := r.do(req)
	if resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.StatusCode != 403 {
		t.Errorf("a preflight got %s %v", resp.Status, resp.Header)
	}
}

func TestBodyLimits(t *testing.T) {
	r := newRig(t)
	// Just within: one valid task with a large prompt, twice over.
	s := echo()
	s.Prompt = strings.Repeat("p", 1<<20-200)
	r.submit(s, s, s)
	big := `{"tasks":[{"command":["x"],"prompt":"` + strings.Repeat("p", MaxBody) + `"}]}`
	r.problem(r.request("POST", "/v1/tasks", big), 413)
	endless := r.request("POST", "/v1/tasks", nil)
	endless.Body = io.NopCloser(io.LimitReader(zeros{}, 64<<20))
	endless.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(endless)
	if err == nil { // else the server closed the connection on us, which is as good
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != 413 {
			t.Errorf("an endless body: %s", resp.Status)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}

func TestHostileBodies(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"empty":          {``, 400, "body is required"},
		"not JSON":       {`hello`, 422, "invalid character"},
		"null":           {`null`, 422, "0 tasks"},
		"list":           {`[]`, 422, "is a list"},
		"two values":     {`{"tasks":[]}{}`, 422, "behind the value"},
		"none":           {`{"tasks":[]}`, 422, "0 tasks"},
		"null task":      {`{"tasks":[null]}`, 422, "has no value"},
		"unknown":        {`{"tasks":[{"comand":["x"]}]}`, 422, "did you mean command?"},
		"twice":          {`{"tasks":[{"command":["x"],"command":["y"]}]}`, 422, "given twice"},
		"case":           {`{"tasks":[{"Command":["x"]}]}`, 422, "did you mean command?"},
		"wrong type":     {`{"tasks":[{"command":"x"}]}`, 422, "want a list"},
		"number":         {`{"tasks":[{"command":[1]}]}`, 422, "is a number; want a string"},
		"fraction":       {`{"tasks":[{"command":["x"],"priority":1.5}]}`, 422, "whole number"},
		"huge number":    {`{"tasks":[{"command":["x"],"priority":1e999}]}`, 422, "whole number"},
		"NaN":            {`{"tasks":[{"command":["x"],"budget":{"maxUSD":NaN}}]}`, 422, "invalid character"},
		"infinite":       {`{"tasks":[{"command":["x"],"budget":{"maxUSD":1e400}}]}`, 422, "finite"},
		"NUL":            {`{"tasks":[{"command":["a\u0000b"]}]}`, 422, "NUL byte"},
		"not UTF-8":      {"{\"tasks\":[{\"command\":[\"\xff\"]}]}", 422, "UTF-8"},
		"deep":           {strings.Repeat(`{"tasks":[`, 5000), 422, "too deep"},
		"many":           {`{"tasks":[` + strings.Repeat(`{},`, 1000) + `{}]}`, 422, "1001 tasks"},
		"many values":    {`{"tasks":[{"command":[` + strings.Repeat(`"",`, 250000) + `""]}]}`, 422, "values"},
		"secret in repo": {`{"tasks":[{"command":["x"],"repo":{"url":"https://u:hunter2@h/r"}}]}`, 422, "holds a password"},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.problem(r.request("POST", "/v1/tasks", c.body), c.status)
			if text := p.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "hunter2") {
				t.Errorf("%s", text)
			}
		})
	}
	req := r.request("POST", "/v1/tasks", `{"tasks":[]}`)
	req.Header.Set("Content-Type", "application/yaml")
	r.problem(req, 415)
}

// TestEveryProblemIsAProblem asks for many wrong things, of every route.
func TestEveryProblemIsAProblem(t *testing.T) {
	r := newRig(t)
	task := "/v1/tasks/" + string(fleet.NewTaskID(time.Now()))
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404}, {"GET", "/v1", 404}, {"GET", "/v2/tasks", 404}, {"GET", "/v1/tasks/", 404},
		{"DELETE", "/v1/tasks", 405}, {"POST", "/v1/fleet", 405}, {"PATCH", "/v1/schedules/x", 405}, {"POST", "/metrics", 405},
		{"GET", "/v1/tasks/x", 404}, {"GET", task, 404}, {"POST", task + "/cancel", 404}, {"POST", task + "/retry", 404},
		{"GET", task + "/log", 404}, {"GET", task + "/wait", 404}, {"GET", task + "/patch", 404}, {"GET", task + "/artifacts", 404},
		{"GET", task + "/artifacts/x", 404}, {"GET", task + "/explain", 404}, {"GET", task + "/usage", 404}, {"GET", task + "/exec", 404},
		{"GET", task + "/log?offset=-1", 422}, {"GET", task + "/wait?timeout=1h", 422}, {"GET", "/v1/events?limit=x", 422},
		{"GET", "/v1/events?task=x", 422}, {"GET", "/v1/events?layer=x", 422}, {"GET", "/v1/events/x/explain", 422},
		{"GET", "/v1/sandboxes?gone=x", 422}, {"PUT", "/v1/schedules/x", 400}, {"POST", "/v1/tasks", 400}, {"GET", "/v1/fleet?x=1", 422},
	} {
		t.Run(c.method+c.path, func(t *testing.T) { r.problem(r.request(c.method, c.path, nil), c.status) })
	}
}

func TestSecurityHeaders(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/v1/tasks", "/healthz", "/nothing", "/v1/tasks/x"} {
		h := r.do(r.request("GET", path, nil)).Header
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s: %q", path, name, h.Get(name))
			}
		}
	}
}

// TestPanic: a bug in one handler is one answer's problem and is logged, the
// token is not.
func TestPanic(t *testing.T) {
	var logged bytes.Buffer
	r := newRig(t, func(c *Config) {
		c.Ready = func(context.Context) error { panic("a bug") }
		c.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	p := r.problem(r.request("GET", "/readyz", nil), 500)
	if strings.Contains(p.Detail, "a bug") {
		t.Errorf("%+v", p)
	}
	call[struct{}](r, "GET", "/healthz", nil, 200)
	if !strings.Contains(logged.String(), "a bug") || strings.Contains(logged.String(), testToken) {
		t.Errorf("logged %s", logged.String())
	}
}

// TestSlowHeader: a client that never finishes its header is let go. The
// server's own time is too long for a test, so this looks at the setting.
func TestSlowHeader(t *testing.T) {
	r := newRig(t)
	call[struct{}](r, "GET", "/healthz", nil, 200)
	h := r.server.http
	if h.ReadHeaderTimeout == 0 || h.IdleTimeout == 0 || h.MaxHeaderBytes == 0 || h.WriteTimeout != 0 {
		t.Errorf("%+v", h)
	}
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", strings.Repeat("x", 100<<10)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 100 KiB: %s", resp.Status)
	}
}

func TestHealth(t *testing.T) {
	problem := error(nil)
	r := newRig(t, func(c *Config) { c.Ready = func(context.Context) error { return problem } })
	call[struct{}](r, "GET", "/readyz", nil, 200)
	problem = fmt.Errorf("recovering 3 sandboxes")
	if p := r.problem(r.request("GET", "/readyz", nil), 503); !strings.Contains(p.Detail, "recovering") {
		t.Errorf("%+v", p)
	}
	problem = nil
	r.store.FailOnce("Ping", fleet.ErrUnavailable)
	r.problem(r.request("GET", "/readyz", nil), 503)
	call[struct{}](r, "GET", "/healthz", nil, 200)
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a server of nothing")
	}
	r := newRig(t)
	c := r.server.Config
	c.Token = ""
	if _, err := New(c); err == nil {
		t.Error("a server without a token")
	}
	if _, err := New(r.server.Config); err == nil {
		t.Error("two servers count into one registry")
	}
}

// deadlines records the read deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	read int
}

func (d *deadlines) SetReadDeadline(time.Time) error  { d.read++; return nil }
func (d *deadlines) SetWriteDeadline(time.Time) error { return nil }

// TestLongPollsHaveNoReadDeadline: one that passed during a long poll cancelled
// every later request of the same connection.
func TestLongPollsHaveNoReadDeadline(t *testing.T) {
	r := newRig(t)
	r.do(r.request("GET", "/healthz", nil)) // it serves
	for body, want := range map[string]int{"": 0, "{}": 1} {
		w := &deadlines{ResponseWriter: httptest.NewRecorder()}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/v1/fleet", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+testToken)
		r.server.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, req)
		if w.read != want {
			t.Errorf("body %q: %d read deadlines set, want %d", body, w.read, want)
		}
	}
}
