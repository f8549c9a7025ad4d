package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
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

// sse writes one event.
func sse(w io.Writer, kind, id string, v any) {
	b, _ := json.Marshal(v)
	_, _ = fmt.Fprintf(w, "event: %s\nid: %s\ndata: %s\n\n", kind, id, b)
}

// TestLogSurvivesLostConnections cuts the stream at every record, repeats what
// was seen, answers 503 in between, and loses or repeats no byte.
func TestLogSurvivesLostConnections(t *testing.T) {
	text := []byte("one\ntwo\nthree\nfour\n")
	var asked []string
	var mu sync.Mutex
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Query().Get("offset"))
		n := len(asked)
		mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Error("no token")
		}
		if n%3 == 0 {
			problem(w, v1alpha1.Problem{Title: "Service Unavailable", Status: 503})
			return
		}
		var from int
		_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &from)
		start := max(0, from-2) // repeats two bytes
		end := min(len(text), start+7)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": hello\n\n")
		sse(w, v1alpha1.LogEventRecord, "1", v1alpha1.LogEvent{Offset: int64(start), Stream: "stdout", Data: text[start:end], Attempt: 1})
		if end == len(text) {
			sse(w, v1alpha1.LogEventEnd, "2", v1alpha1.LogEnd{State: fleet.TaskSucceeded, Bytes: int64(len(text))})
			return
		}
		_, _ = io.WriteString(w, "event: log\ndata: {\"cut") // never delivered
		cut(w)
	})
	var notices []string
	c.o.Notice = func(s string) { notices = append(notices, s) }
	var got bytes.Buffer
	end, err := c.Log(context.Background(), taskID, LogQuery{Follow: true}, func(r v1alpha1.LogEvent) error {
		if r.Offset != int64(got.Len()) {
			t.Errorf("record at %d, want %d", r.Offset, got.Len())
		}
		got.Write(r.Data)
		return nil
	})
	if err != nil || got.String() != string(text) || end.State != fleet.TaskSucceeded {
		t.Fatalf("%q %+v %v", got.String(), end, err)
	}
	if len(notices) == 0 || !strings.Contains(notices[0], "waiting for it") || notices[len(notices)-1] != "muster is back" {
		t.Errorf("notices: %q", notices)
	}
}

func TestLogGoesOnWithTheNextAttempt(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		sse(w, v1alpha1.LogEventRecord, "1", v1alpha1.LogEvent{Data: []byte("first try"), Attempt: 1})
		sse(w, v1alpha1.LogEventRecord, "1", v1alpha1.LogEvent{Data: []byte("second"), Attempt: 2})
		sse(w, v1alpha1.LogEventEnd, "2", v1alpha1.LogEnd{})
	})
	var got []string
	if _, err := c.Log(context.Background(), taskID, LogQuery{Follow: true}, func(r v1alpha1.LogEvent) error {
		got = append(got, string(r.Data))
		return nil
	}); err != nil || strings.Join(got, "|") != "first try|second" {
		t.Errorf("%q %v", got, err)
	}
}

// TestWaitOutlastsARestart stops the server and starts another at the same
// address.
func TestWaitOutlastsARestart(t *testing.T) {
	running := v1alpha1.TaskView{ID: taskID, State: fleet.TaskRunning}
	polled := make(chan struct{}, 16)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case polled <- struct{}{}:
			reply(w, running)
		default:
			cut(w)
		}
	}))
	address := first.Listener.Addr().String()
	c, err := New(Options{Server: address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		v, err := c.Wait(context.Background(), taskID)
		if err == nil && v.State != fleet.TaskSucceeded {
			err = fmt.Errorf("state %s", v.State)
		}
		done <- err
	}()
	<-polled
	first.CloseClientConnections()
	first.Close()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	second := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, v1alpha1.TaskView{ID: taskID, State: fleet.TaskSucceeded})
	})}
	go func() { _ = second.Serve(l) }()
	defer func() { _ = second.Close() }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestWaitFollowsTheServerToAnotherPort: a server restarted on a free port.
func TestWaitFollowsTheServerToAnotherPort(t *testing.T) {
	final := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, v1alpha1.TaskView{ID: taskID, State: fleet.TaskSucceeded})
	}))
	t.Cleanup(final.Close)
	polls := 0
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if polls++; polls == 1 {
			reply(w, v1alpha1.TaskView{ID: taskID, State: fleet.TaskRunning})
			return
		}
		cut(w)
	})
	c.o.Relocate = func() string { return final.URL }
	if v, err := c.Wait(context.Background(), taskID); err != nil || v.State != fleet.TaskSucceeded || c.Server() != final.URL {
		t.Errorf("%+v %v at %s", v, err, c.Server())
	}
}

func TestWaitGivesUp(t *testing.T) {
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 1 {
			reply(w, v1alpha1.TaskView{State: fleet.TaskRunning})
			return
		}
		cut(w)
	})
	c.o.Patience = 10 * time.Millisecond
	if _, err := c.Wait(context.Background(), taskID); err == nil || !strings.Contains(err.Error(), "did not come back within 10ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Wait(ctx, taskID); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSubmitTwiceOnlyWithKeys: without an idempotency key a lost answer is an
// error; with one the submission is repeated.
func TestSubmitTwiceOnlyWithKeys(t *testing.T) {
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n%2 == 1 {
			cut(w)
			return
		}
		reply(w, v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{{ID: taskID}}})
	})
	spec := v1alpha1.TaskSpec{Command: []string{"true"}}
	if _, err := c.Submit(context.Background(), []v1alpha1.TaskSpec{spec}); !errors.Is(err, ErrLost) || n != 1 {
		t.Errorf("without a key: %v after %d", err, n)
	}
	n, spec.IdempotencyKey = 0, "k"
	got, err := c.Submit(context.Background(), []v1alpha1.TaskSpec{spec})
	if err != nil || n != 2 || len(got) != 1 {
		t.Errorf("with a key: %v %v after %d", got, err, n)
	}
}

func TestFollowEventsResumes(t *testing.T) {
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Content-Type", "text/event-stream")
		if n == 2 && (r.Header.Get("Last-Event-ID") != "2" || r.URL.Query().Get("after") != "2") {
			t.Errorf("resumed at %q %q", r.Header.Get("Last-Event-ID"), r.URL.RawQuery)
		}
		for seq := int64(n); seq < int64(n)+2; seq++ {
			sse(w, v1alpha1.EventRecord, fmt.Sprint(seq), fleet.Event{Seq: seq})
		}
	})
	var got []int64
	stop := errors.New("enough")
	err := c.FollowEvents(context.Background(), EventQuery{}, func(e fleet.Event) error {
		if got = append(got, e.Seq); e.Seq == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("%v %v", got, err)
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

// execServer plays the server's part of exec: it echoes standard input in
// capitals and reports what it was asked.
func execServer(t *testing.T, end v1alpha1.ExecMessage) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{v1alpha1.ExecProtocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = ws.CloseNow() }()
		ctx := r.Context()
		if ws.Subprotocol() != v1alpha1.ExecProtocol {
			t.Errorf("subprotocol %q", ws.Subprotocol())
		}
		_, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStderr}, b...))
		for {
			kind, b, err := ws.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageText {
				var m v1alpha1.ExecMessage
				_ = json.Unmarshal(b, &m)
				if m.Type == v1alpha1.ExecTypeStdinClose {
					break
				}
				_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStderr}, b...))
				continue
			}
			_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStdout}, bytes.ToUpper(b[1:])...))
		}
		if end.Type == "" {
			return // the connection just breaks
		}
		_ = writeJSON(ctx, ws, end)
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

func TestExec(t *testing.T) {
	code := 9
	c, _ := serve(t, execServer(t, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeExit, Code: &code}))
	input := strings.Repeat("abc", 50_000) // more than one message
	var out, errs bytes.Buffer
	got, err := c.Exec(context.Background(), taskID, fleet.ExecRequest{
		Command: []string{"cat"}, Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs,
	})
	if err != nil || got != 9 || out.String() != strings.ToUpper(input) {
		t.Errorf("exit %d, %v, %d bytes", got, err, out.Len())
	}
	if want := `{"type":"start","command":["cat"],"stdin":true}`; errs.String() != want {
		t.Errorf("asked %s, want %s", errs.String(), want)
	}
}

func TestExecErrors(t *testing.T) {
	in := func() io.Reader { return strings.NewReader("") }
	c, _ := serve(t, execServer(t, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeError, Message: "no such command", Hint: "try sh"}))
	_, err := c.Exec(context.Background(), taskID, fleet.ExecRequest{Stdin: in(), Stdout: io.Discard, Stderr: io.Discard})
	var e *Error
	if !errors.As(err, &e) || e.Text != "no such command" || e.Hint != "try sh" {
		t.Errorf("got %v", err)
	}
	c, _ = serve(t, execServer(t, v1alpha1.ExecMessage{}))
	if _, err = c.Exec(context.Background(), taskID, fleet.ExecRequest{Stdin: in(), Stdout: io.Discard, Stderr: io.Discard}); !errors.Is(err, ErrLost) {
		t.Errorf("a broken connection: %v", err)
	}
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		problem(w, v1alpha1.Problem{Title: "Conflict", Status: 409, Detail: "the task is not running"})
	})
	if _, err = c.Exec(context.Background(), taskID, fleet.ExecRequest{}); err == nil || err.Error() != "the task is not running" {
		t.Errorf("refused: %v", err)
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

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("event: log\nid: 7\ndata: {}\n\n: c\n\ndata:a\ndata: b\r\n\r\n"))
	f.Add([]byte("data"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newEventReader(bytes.NewReader(in))
		for {
			e, err := r.next()
			if err != nil {
				return
			}
			if len(e.Data) > maxEvent || strings.ContainsRune(e.ID, 0) {
				t.Fatalf("%d bytes, id %q", len(e.Data), e.ID)
			}
		}
	})
}

func TestEventReader(t *testing.T) {
	r := newEventReader(strings.NewReader("event: a\nid: 7\ndata: x\ndata: y\n\n:c\n\nevent: nodata\n\ndata:z\r\n\r\ndata: cut off"))
	first, err := r.next()
	if err != nil || first != (serverEvent{ID: "7", Kind: "a", Data: "x\ny"}) {
		t.Errorf("%+v %v", first, err)
	}
	second, err := r.next()
	if err != nil || second != (serverEvent{ID: "7", Data: "z"}) {
		t.Errorf("%+v %v", second, err)
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	r = newEventReader(strings.NewReader("data: " + strings.Repeat("x", maxEvent) + "\n\n"))
	if _, err := r.next(); !errors.Is(err, errEventTooLarge) {
		t.Errorf("too large: %v", err)
	}
}
