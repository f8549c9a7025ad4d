package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const taskID = "t0123456789abcdefghij"

func serve(t *testing.T, h http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Options{Server: srv.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, srv
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func problem(w http.ResponseWriter, p v1alpha1.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// cut ends a connection in the middle of an answer.
func cut(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, text, hint string
		kind             error
		handle           http.HandlerFunc
	}{
		{"fields", "the task is invalid\n  tasks[0].resources.memory: -1Gi is negative; want a size", "", fleet.ErrInvalid, func(w http.ResponseWriter, _ *http.Request) {
			problem(w, v1alpha1.Problem{Title: "Unprocessable Entity", Status: 422, Detail: "the task is invalid",
				Errors: []v1alpha1.ProblemField{{Location: "tasks[0].resources.memory", Message: "-1Gi is negative; want a size"}}})
		}},
		{"token", "refused the token", "MUSTER_TOKEN", ErrToken, func(w http.ResponseWriter, _ *http.Request) {
			problem(w, v1alpha1.Problem{Title: "Unauthorized", Status: 401})
		}},
		{"full", "the queue is full", "try again in 7 s", fleet.ErrFull, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			problem(w, v1alpha1.Problem{Title: "Too Many Requests", Status: 429, Detail: "the queue is full"})
		}},
		{"missing", "no such task", "", fleet.ErrNotFound, func(w http.ResponseWriter, _ *http.Request) {
			problem(w, v1alpha1.Problem{Title: "Not Found", Status: 404, Detail: "no such task"})
		}},
		{"fault", "boom", "server's fault", nil, func(w http.ResponseWriter, _ *http.Request) {
			problem(w, v1alpha1.Problem{Title: "Internal Server Error", Status: 500, Detail: "boom"})
		}},
		{"stranger", "is not muster: got 404", "another program", fleet.ErrConflict, http.NotFound},
		{"stranger's page", "is not muster: got 200", "another program", fleet.ErrConflict, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>hello")
		}},
		{"lost", "lost the connection", "muster up", ErrLost, func(w http.ResponseWriter, _ *http.Request) { cut(w) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, _ := serve(t, c.handle)
			_, err := cl.Task(context.Background(), taskID)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Text, c.text) || !strings.Contains(e.Hint, c.hint) {
				t.Fatalf("got %#v, want %q, hint %q", err, c.text, c.hint)
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("kind of %v is not %v", err, c.kind)
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	c, err := New(Options{Server: address})
	if err != nil {
		t.Fatal(err)
	}
	// A wait for a server that was never there ends at once.
	start := time.Now()
	_, err = c.Wait(context.Background(), taskID)
	var e *Error
	if !errors.As(err, &e) || e.Text != "no muster at http://"+address || !strings.Contains(e.Hint, "muster up") {
		t.Errorf("got %v", err)
	}
	if time.Since(start) > 2*time.Second {
		t.Errorf("took %s", time.Since(start))
	}
}

func TestNotHTTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9\r\n")
			_, _ = c.Read(make([]byte, 1024))
			_ = c.Close()
		}
	}()
	c, _ := New(Options{Server: l.Addr().String()})
	_, err = c.Version(context.Background())
	if err == nil || !strings.Contains(err.Error(), "is not muster") {
		t.Errorf("got %v", err)
	}
}

func TestServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:7433": "http://127.0.0.1:7433", "http://h:1/": "http://h:1", "https://h/base/?q#f": "https://h/base",
		"": "", "ftp://h": "", "http://": "", "http://u:p@h": "", "http://[::1": "",
	} {
		c, err := New(Options{Server: in})
		if want == "" {
			if !errors.Is(err, ErrUsage) {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if err != nil || c.Server() != want {
			t.Errorf("%q: %v %v", in, c, err)
		}
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"address": "http://127.0.0.1:9\n", "token": "local\n", "other": "fromfile"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		name   string
		search Search
		env    map[string]string
		want   Place
	}{
		{"data directory", Search{DataDir: dir}, nil, Place{"http://127.0.0.1:9", "local", filepath.Join(dir, "token"), dir, true}},
		{"environment", Search{DataDir: dir}, map[string]string{"MUSTER_SERVER": "h:1", "MUSTER_TOKEN": "x"}, Place{"http://h:1", "x", "$MUSTER_TOKEN", dir, false}},
		{"flags win", Search{Server: "f:2", TokenFile: filepath.Join(dir, "other"), DataDir: dir}, map[string]string{"MUSTER_SERVER": "h:1", "MUSTER_TOKEN": "x"},
			Place{"http://f:2", "fromfile", filepath.Join(dir, "other"), dir, false}},
		{"a stranger does not get the local token", Search{Server: "http://example.com", DataDir: dir}, nil, Place{"http://example.com", "", "", dir, false}},
		{"default", Search{}, map[string]string{"MUSTER_HOME": "/nowhere"}, Place{DefaultServer, "", "", "/nowhere", false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.search.Getenv = env(c.env)
			got, err := Locate(c.search)
			if err != nil || got != c.want {
				t.Errorf("got %+v %v, want %+v", got, err, c.want)
			}
		})
	}
	for want, m := range map[string]map[string]string{
		"/s/muster": {"XDG_STATE_HOME": "/s"}, "/h/.local/state/muster": {"HOME": "/h", "XDG_STATE_HOME": "relative"},
	} {
		if got := DataDir(env(m), 1000); got != want {
			t.Errorf("DataDir = %s, want %s", got, want)
		}
	}
	if got := DataDir(env(nil), 0); got != "/var/lib/muster" {
		t.Errorf("DataDir of root = %s", got)
	}
	if _, err := Locate(Search{DataDir: dir, Getenv: env(map[string]string{"MUSTER_TOKEN": "a\nb"})}); !errors.Is(err, ErrUsage) {
		t.Errorf("a token of two lines: %v", err)
	}
}

func TestResolve(t *testing.T) {
	list := v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{
		{ID: "t0000000aaaaaaaaaaax1", Name: "fix"}, {ID: "t0000000bbbbbbbbbbbx2", Name: "dup"}, {ID: "t0000001ccccccccccx2x", Name: "dup"},
	}}
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { reply(w, list) })
	for typed, want := range map[string]string{
		taskID: taskID, "aax1": "t0000000aaaaaaaaaaax1", "t0000001": "t0000001ccccccccccx2x", "fix": "t0000000aaaaaaaaaaax1",
	} {
		if got, err := c.Resolve(context.Background(), typed); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", typed, got, err)
		}
	}
	for typed, want := range map[string]string{"t0000000": "is 2 tasks", "dup": "is 2 tasks", "nope": "there is no task", "x1": "there is no task"} {
		if _, err := c.Resolve(context.Background(), typed); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", typed, err)
		}
	}
}

func TestArtifactPathKeepsSlashes(t *testing.T) {
	var asked string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.EscapedPath()
		_, _ = io.WriteString(w, "content")
	})
	r, err := c.Artifact(context.Background(), taskID, "a dir/b?c#d/e%f")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if want := "/v1/tasks/" + taskID + "/artifacts/a%20dir/b%3Fc%23d/e%25f"; asked != want {
		t.Errorf("asked %s, want %s", asked, want)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/steal", http.StatusFound)
	})
	if _, err := c.Fleet(context.Background()); err == nil || !strings.Contains(err.Error(), "is not muster") {
		t.Errorf("got %v", err)
	}
}
