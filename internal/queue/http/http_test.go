package http

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0penSesame"

func TestConformance(t *testing.T) {
	ways := map[string]struct {
		sent func(*http.Request) string
		with func(*Config, connect.Credential)
	}{
		"bearer": {
			func(r *http.Request) string { return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") },
			func(c *Config, s connect.Credential) { c.Token = s },
		},
		"basic": {
			func(r *http.Request) string { _, p, _ := r.BasicAuth(); return p },
			func(c *Config, s connect.Credential) { c.Username, c.Password = "muster", s },
		},
		"key in a header": {
			func(r *http.Request) string { return r.Header.Get("X-Api-Key") },
			func(c *Config, s connect.Credential) { c.APIKey = s },
		},
		"key in the address": {
			func(r *http.Request) string { return r.URL.Query().Get("key") },
			func(c *Config, s connect.Credential) { c.APIKey, c.APIKeyQuery = s, "key" },
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			queuetest.RunSignal(t, func(t *testing.T) queuetest.Measured {
				var n atomic.Int64
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if way.sent(r) != secret {
						w.WriteHeader(http.StatusUnauthorized)
						fmt.Fprintf(w, "no: %s %v", r.URL, r.Header) // as careless services do
						return
					}
					fmt.Fprintf(w, `{"jobs": {"waiting": %d}}`, n.Load())
				}))
				t.Cleanup(server.Close)
				gate := queuetest.NewGate(t, server.Listener.Addr().String())
				return queuetest.Measured{
					Gate: gate, Secret: secret, Set: n.Store,
					Open: func(t *testing.T, credential func(context.Context) (string, error)) fleet.Signal {
						c := Config{URL: "http://" + gate.Address + "/stats?of=all", Backlog: "jobs.waiting"}
						way.with(&c, credential)
						s, err := New(t.Context(), c)
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
				}
			})
		})
	}
}

func read(t *testing.T, c Config) (fleet.SignalStats, error) {
	t.Helper()
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Stats(t.Context())
}

func TestAllFigures(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || string(b) != `{"q":1}` || r.Header.Get("X-Scope-OrgID") != "agents" || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, `{"queues":[{"name":"b","n":9},{"name":"a","n":"5","busy":2.0,"later":1,"bad":3,"total":4000000000,"age":90,"since":"2026-03-02T10:00:00Z"}]}`)
	}))
	defer server.Close()
	c := Config{
		URL: server.URL, Method: "POST", Body: `{"q":1}`, Headers: map[string]string{"X-Scope-OrgID": "agents"},
		Backlog: `queues.#(name=="a").n`, InFlight: "queues.1.busy", Delayed: "queues.1.later", Dead: "queues.1.bad", Arrived: "queues.1.total", Oldest: "queues.1.age",
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := (fleet.SignalTraits{Oldest: true, Arrived: true, InFlight: true, Delayed: true, Dead: true}); s.Traits() != want {
		t.Errorf("traits %+v", s.Traits())
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Backlog != 5 || st.InFlight != 2 || st.Delayed != 1 || st.Dead != 3 || st.Arrived != 4_000_000_000 || st.AsOf.Sub(st.Oldest) != 90*time.Second {
		t.Errorf("read %+v, %v", st, err)
	}
	c.Oldest, c.OldestAt = "", "queues.1.since"
	if st, err = read(t, c); err != nil || !st.Oldest.Equal(time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("oldest at %s, %v", st.Oldest, err)
	}
}

// TestNeverZero: whatever is wrong with an answer is an error.
func TestNeverZero(t *testing.T) {
	var status int
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	for _, tt := range []struct {
		status int
		body   string
		kind   error
		want   string
	}{
		{200, ``, fleet.ErrUnavailable, "no JSON"},
		{200, `<html>`, fleet.ErrUnavailable, "no JSON"},
		{200, `{"n": 1`, fleet.ErrUnavailable, "no JSON"},
		{200, `{}`, fleet.ErrUnavailable, "backlog (n): is not in the answer"},
		{200, `{"n":null}`, fleet.ErrUnavailable, "is null"},
		{200, `{"n":true}`, fleet.ErrUnavailable, "is no number"},
		{200, `{"n":[1]}`, fleet.ErrUnavailable, "is no number"},
		{200, `{"n":""}`, fleet.ErrUnavailable, "no finite number"},
		{200, `{"n":"NaN"}`, fleet.ErrUnavailable, "no finite number"},
		{200, `{"n":-1}`, fleet.ErrUnavailable, "is negative"},
		{200, `{"n":1}`, fleet.ErrUnavailable, "oldest (age): is not in the answer"},
		{200, `{"n":"` + strings.Repeat("x", 1<<20) + `"}`, fleet.ErrUnavailable, "larger than"},
		{201, `{"n":1,"age":1}`, nil, ""},
		{200, `{"n":0}`, nil, ""},
		{200, `{"n":0,"age":null}`, nil, ""},
		{301, ``, fleet.ErrUnavailable, ""},
		{401, ``, fleet.ErrDenied, "HTTP 401"},
		{403, ``, fleet.ErrDenied, "HTTP 403"},
		{404, `{"n":1}`, fleet.ErrNotFound, "HTTP 404"},
		{500, `{"n":1}`, fleet.ErrUnavailable, "HTTP 500"},
		{429, `{"n":1}`, fleet.ErrUnavailable, "HTTP 429"},
	} {
		status, body = tt.status, tt.body
		_, err := read(t, Config{URL: server.URL, Backlog: "n", Oldest: "age"})
		if !errors.Is(err, tt.kind) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d %.40s: %v, want %v %q", tt.status, tt.body, err, tt.kind, tt.want)
		}
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `4`) }))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{URL: server.URL, Backlog: "@this"}
	if _, err := read(t, c); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("an authority that is not known: %v", err)
	}
	c.TLS = connect.TLS{Enabled: true, CAFile: ca}
	if st, err := read(t, c); err != nil || st.Backlog != 4 {
		t.Errorf("read %+v, %v", st, err)
	}
	c.TLS.ServerName = "other.internal"
	if _, err := read(t, c); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("another name: %v", err)
	}
	c.TLS = connect.TLS{Enabled: true, CAFile: ca + ".none"}
	if _, err := read(t, c); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), ca) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestConfig(t *testing.T) {
	none := connect.Fixed("x")
	for want, c := range map[string]Config{
		"url":          {Backlog: "n"},
		"url: has":     {URL: "http://u:hunter2@h", Backlog: "n"},
		"url: is":      {URL: "ftp://hunter2", Backlog: "n"},
		"tls":          {URL: "http://h", Backlog: "n", TLS: connect.TLS{Enabled: true}},
		"backlog":      {URL: "http://h"},
		"oldestAt":     {URL: "http://h", Backlog: "n", Oldest: "a", OldestAt: "b"},
		"method":       {URL: "http://h", Backlog: "n", Method: "PUT"},
		"body":         {URL: "http://h", Backlog: "n", Body: "{}"},
		"timeout":      {URL: "http://h", Backlog: "n", Timeout: time.Minute},
		"headers":      {URL: "http://h", Backlog: "n", Headers: map[string]string{"a b": ""}},
		"token":        {URL: "http://h", Backlog: "n", Token: none, APIKey: none},
		"username":     {URL: "http://h", Backlog: "n", Password: none},
		"apiKeyQuery":  {URL: "http://h", Backlog: "n", APIKey: none, APIKeyHeader: "a", APIKeyQuery: "b"},
		"apiKeyHeader": {URL: "http://h", Backlog: "n", APIKey: none, APIKeyHeader: "a b"},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzFigures(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"2",null]},"age":1}`), "a.b.0", "age")
	f.Add([]byte(`[[[{"a":1e999}]]]`), "#(a==1)#.b|@reverse", "@this")
	f.Fuzz(func(t *testing.T, body []byte, path, age string) {
		now := time.Unix(1_800_000_000, 0)
		st, err := figures(Config{Backlog: path, Oldest: age}, body, now)
		if err == nil && (st.Backlog < 0 || st.Oldest.After(now)) {
			t.Errorf("%+v", st)
		}
		if st, err = figures(Config{Backlog: path, OldestAt: age}, body, now); err == nil && st.Oldest.After(now) {
			t.Errorf("%+v", st)
		}
	})
}
