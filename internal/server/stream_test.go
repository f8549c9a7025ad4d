package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// follow opens a stream; it ends with the test.
func (r *rig) follow(path, last string) func() (sseEvent, error) {
	r.t.Helper()
	req := r.request("GET", path, nil)
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp := r.do(req)
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
		b, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("%s: %s %s %s", path, resp.Status, ct, b)
	}
	return events(r.t, resp.Body)
}

func logOf(t *testing.T, e sseEvent) v1alpha1.LogEvent {
	t.Helper()
	var l v1alpha1.LogEvent
	if err := json.Unmarshal([]byte(e.data), &l); err != nil || e.kind != v1alpha1.LogEventRecord {
		t.Fatalf("%+v: %v", e, err)
	}
	return l
}

func TestLogFollowsToTheEnd(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	next := r.follow("/v1/tasks/"+string(id)+"/log?follow=true", "")
	d := r.start()
	for i, text := range []string{"one\n", "two\n", "three"} {
		r.log(d, text)
		e, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if l := logOf(t, e); string(l.Data) != text || l.Stream != "stdout" || l.Attempt != 1 || l.At.IsZero() {
			t.Errorf("%d: %+v", i, l)
		}
	}
	r.settle(d, fleet.Settlement{State: fleet.TaskFailed, Result: fleet.Result{Reason: fleet.ReasonOOM, Message: "out of memory", LogDropped: 7}})
	e, err := next()
	if err != nil {
		t.Fatal(err)
	}
	var end v1alpha1.LogEnd
	if err := json.Unmarshal([]byte(e.data), &end); err != nil || e.kind != v1alpha1.LogEventEnd ||
		end != (v1alpha1.LogEnd{State: fleet.TaskFailed, Reason: fleet.ReasonOOM, Message: "out of memory", Bytes: 13, Dropped: 7}) {
		t.Errorf("%+v %v", e, err)
	}
	if _, err := next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestLogResumes(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	r.log(d, "0123456789")
	r.log(d, "abcdefghij")
	path := "/v1/tasks/" + string(id) + "/log"
	first := r.follow(path, "")
	e, err := first()
	if err != nil || e.id != "1-10" {
		t.Fatalf("%+v %v", e, err)
	}
	e, err = r.follow(path+"?follow=true", e.id)()
	if l := logOf(t, e); err != nil || l.Offset != 10 || string(l.Data) != "abcdefghij" {
		t.Errorf("behind the first: %+v %v", l, err)
	}
	e, err = r.follow(path+"?offset=14", "")()
	if l := logOf(t, e); err != nil || l.Offset != 14 || string(l.Data) != "efghij" || e.id != "1-20" {
		t.Errorf("from the middle of a record: %+v %v", l, err)
	}
	if e, err := r.follow(path+"?offset=99", "")(); err != nil || e.kind != v1alpha1.LogEventEnd {
		t.Errorf("behind the end: %+v %v", e, err)
	}
	for _, bad := range []string{"x", "1", "0-1", "1--1", "-1-1"} {
		req := r.request("GET", path, nil)
		req.Header.Set("Last-Event-ID", bad)
		r.problem(req, 422)
	}
}

func TestLogOverAttempts(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	r.log(d, "first try\n")
	path := "/v1/tasks/" + string(id) + "/log"
	next := r.follow(path+"?follow=true", "")
	if e, err := next(); err != nil || logOf(t, e).Attempt != 1 {
		t.Fatal(err)
	}
	if _, err := r.store.Retry(context.Background(), id, d.Lease.Fence, time.Now(), "sandbox lost"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.AppendEvents(context.Background(), []fleet.Event{{Kind: "task_retried", Task: id, At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	d = r.start()
	r.log(d, "second try\n")
	e, err := next()
	if l := logOf(t, e); err != nil || l.Attempt != 2 || l.Offset != 0 || string(l.Data) != "second try\n" {
		t.Errorf("%+v %v", l, err)
	}
	r.settle(d, fleet.Settlement{State: fleet.TaskSucceeded})
	if e, err := next(); err != nil || e.kind != v1alpha1.LogEventEnd {
		t.Errorf("%+v %v", e, err)
	}
	if e, err := r.follow(path, "")(); err != nil || logOf(t, e).Attempt != 2 {
		t.Errorf("the newest: %+v %v", e, err)
	}
	if e, err := r.follow(path+"?attempt=1", "")(); err != nil || logOf(t, e).Attempt != 1 {
		t.Errorf("the first: %+v %v", e, err)
	}
}

func TestLogAsText(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	r.log(d, "a\x00b\xff\n")
	req := r.request("GET", "/v1/tasks/"+string(id)+"/log?follow=true", nil)
	req.Header.Set("Accept", "text/plain")
	resp := r.do(req)
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "a\x00b\xff\n" {
		t.Fatalf("%q %v", first, err)
	}
	r.log(d, "more")
	r.settle(d, fleet.Settlement{State: fleet.TaskSucceeded})
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "more" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%q %v %v", rest, err, resp.Header)
	}
}

// TestLargeLog streams 100 MB to a client that checks every byte; the server
// may not hold it.
func TestLargeLog(t *testing.T) {
	const size, piece = 100 << 20, 64 << 10
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	data := make([]byte, piece)
	for off := int64(0); off < size; off += piece {
		copy(data, strconv.FormatInt(off, 10))
		if err := r.archive.AppendLog(id, 1, fleet.LogRecord{Offset: off, At: time.Now(), Stream: fleet.StreamStdout, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	r.settle(d, fleet.Settlement{State: fleet.TaskSucceeded})
	path := "/v1/tasks/" + string(id) + "/log"
	for _, accept := range []string{"text/plain", "text/event-stream"} {
		var before, now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		req := r.request("GET", path, nil)
		req.Header.Set("Accept", accept)
		start := time.Now()
		resp := r.do(req)
		var got, most int64
		if accept == "text/plain" {
			buf := make([]byte, piece)
			for ; ; got += piece {
				if _, err := io.ReadFull(resp.Body, buf); err != nil {
					break
				}
				if got%(8<<20) == 0 {
					if !bytes.HasPrefix(buf, []byte(strconv.FormatInt(got, 10))) {
						t.Fatalf("wrong bytes at %d", got)
					}
					runtime.ReadMemStats(&now)
					most = max(most, int64(now.HeapAlloc)-int64(before.HeapAlloc))
				}
			}
		} else {
			for next := events(t, resp.Body); ; {
				e, err := next()
				if err != nil || e.kind != v1alpha1.LogEventRecord {
					break
				}
				if got += piece; got%(8<<20) == 0 {
					if e.id != "1-"+strconv.FormatInt(got, 10) {
						t.Fatalf("event %s at %d", e.id, got)
					}
					runtime.ReadMemStats(&now)
					most = max(most, int64(now.HeapAlloc)-int64(before.HeapAlloc))
				}
			}
		}
		if got != size {
			t.Errorf("%s: %d bytes of %d", accept, got, size)
		}
		t.Logf("%s: 100 MiB in %v, heap grew by %d KiB at most", accept, time.Since(start).Round(time.Millisecond), most>>10)
		if most > 32<<20 {
			t.Errorf("%s: the heap grew by %d MiB", accept, most>>20)
		}
	}
}

// TestSlowReader: one client that takes nothing holds up neither the log nor
// others, and the server can still stop.
func TestSlowReader(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	path := "/v1/tasks/" + string(id) + "/log?follow=true"
	for range 20 {
		resp := r.do(r.request("GET", path, nil)) // its body is never read
		_ = resp
	}
	for range 200 {
		r.log(d, strings.Repeat("x", 64<<10))
	}
	next := r.follow(path, "")
	for n := 0; n < 200*64<<10; {
		e, err := next()
		if err != nil {
			t.Fatal(err)
		}
		n += len(logOf(t, e).Data)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil { // those that wait for their client are cut off
		t.Errorf("stopping took %v: %v", time.Since(start), err)
	}
}

func TestEventsFollow(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	add := func(kind string, n int) (last int64) {
		t.Helper()
		for range n {
			ev, err := r.store.AppendEvents(ctx, []fleet.Event{{Kind: kind, Layer: "sandboxes", At: time.Now(), Reason: "r"}})
			if err != nil {
				t.Fatal(err)
			}
			last = ev[0].Seq
		}
		return last
	}
	add("scale_out", 150)
	if l := call[v1alpha1.EventList](r, "GET", "/v1/events?limit=3", nil, 200); len(l.Events) != 3 || l.Events[2].Seq != 150 || l.Events[0].Seq != 148 {
		t.Errorf("the newest: %+v", l)
	}
	if l := call[v1alpha1.EventList](r, "GET", "/v1/events?after=10&limit=2", nil, 200); len(l.Events) != 2 || l.Events[0].Seq != 11 {
		t.Errorf("after 10: %+v", l)
	}
	add("scale_in", 1)
	next := r.follow("/v1/events?follow=true&limit=2&kind=scale_in,breaker_open", "")
	want := func(next func() (sseEvent, error), id int64, kind string) {
		t.Helper()
		e, err := next()
		var ev fleet.Event
		if err != nil || json.Unmarshal([]byte(e.data), &ev) != nil || e.kind != v1alpha1.EventRecord || e.id != strconv.FormatInt(id, 10) || ev.Kind != kind {
			t.Fatalf("got %+v %v, want %d %s", e, err, id, kind)
		}
	}
	want(next, 151, "scale_in")
	add("scale_out", 3)
	add("breaker_open", 1)
	want(next, 155, "breaker_open")
	// More than a page behind, and none missed or repeated.
	add("scale_out", 2500)
	again := r.follow("/v1/events?follow=true", "155")
	for i := range 2500 {
		want(again, int64(156+i), "scale_out")
	}
	add("scale_in", 1)
	want(again, 2656, "scale_in")
	want(next, 2656, "scale_in")
}

// TestShutdownEndsStreams: streams end at once, without saying that the task
// did.
func TestShutdownEndsStreams(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	log := r.follow("/v1/tasks/"+string(id)+"/log?follow=true", "")
	evs := r.follow("/v1/events?follow=true", "")
	waited := make(chan v1alpha1.TaskView, 1)
	go func() {
		resp, err := r.client.Do(r.request("GET", "/v1/tasks/"+string(id)+"/wait?timeout=1m", nil))
		var v v1alpha1.TaskView
		if err == nil {
			_ = json.NewDecoder(resp.Body).Decode(&v)
			_ = resp.Body.Close()
		}
		waited <- v
	}()
	for len(r.server.slots) < 3 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	start := time.Now()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if e, err := log(); err == nil {
		t.Errorf("the log goes on with %+v", e)
	}
	if e, err := evs(); err == nil {
		t.Errorf("events go on with %+v", e)
	}
	if v := <-waited; v.ID != id || v.State != fleet.TaskQueued {
		t.Errorf("waited for %+v", v)
	}
}

// TestWaitIsPrompt: many waiters learn of an end from its event, not from a
// poll.
func TestWaitIsPrompt(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	d := r.start()
	const waiters = 50
	ended := make(chan time.Time, waiters)
	for range waiters {
		go func() {
			resp, err := r.client.Do(r.request("GET", "/v1/tasks/"+string(id)+"/wait?timeout=1m", nil))
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			ended <- time.Now()
		}()
	}
	for len(r.server.slots) < waiters {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	r.settle(d, fleet.Settlement{State: fleet.TaskSucceeded})
	var last time.Duration
	for range waiters {
		last = max(last, (<-ended).Sub(start))
	}
	t.Logf("%d waiters knew after %v", waiters, last)
	if last > 800*time.Millisecond { // the fallback is a second
		t.Errorf("the last of %d waiters knew after %v", waiters, last)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	r := newRig(t)
	id := r.submit(echo())[0].ID
	for range maxStreams {
		r.server.slots <- struct{}{}
	}
	r.problem(r.request("GET", "/v1/tasks/"+string(id)+"/log?follow=true", nil), http.StatusServiceUnavailable)
	r.problem(r.request("GET", "/v1/events?follow=true", nil), http.StatusServiceUnavailable)
	r.problem(r.request("GET", "/v1/tasks/"+string(id)+"/wait", nil), http.StatusServiceUnavailable)
	call[v1alpha1.TaskView](r, "GET", "/v1/tasks/"+string(id), nil, 200) // what is no stream goes on
	for range maxStreams {
		<-r.server.slots
	}
}

// TestHeartbeats: a quiet stream shows that it lives.
func TestHeartbeats(t *testing.T) {
	r := newRig(t)
	r.server.beat = 5 * time.Millisecond
	id := r.submit(echo())[0].ID
	for _, path := range []string{"/v1/tasks/" + string(id) + "/log?follow=true", "/v1/events?follow=true"} {
		next := r.follow(path, "")
		for range 3 {
			if e, err := next(); err != nil || e != (sseEvent{}) {
				t.Errorf("%s: %+v %v", path, e, err)
			}
		}
	}
}
