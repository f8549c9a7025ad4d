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
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

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
