package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// maxRecord bounds the data of one log event, so that clients can bound what
// they read.
const maxRecord = 64 << 10

func (s *Server) streamRoutes(api huma.API) {
	log := operation(http.MethodGet, v1alpha1.RouteTaskLog, "taskLog", "A task's log, as server-sent events or (Accept: text/plain) as text", http.StatusNotFound)
	log.Description = "Events: log (LogEvent; its id is ATTEMPT-OFFSET, the offset behind it) and end (LogEnd). With follow the stream goes on over further attempts until the task is final."
	answerAs(&log, "text/event-stream", "text/plain")
	handle(s, api, log, s.log)
	describeEvent[v1alpha1.LogEvent](api)
	describeEvent[v1alpha1.LogEnd](api)
	exec := operation(http.MethodGet, v1alpha1.RouteTaskExec, "taskExec", "Run a command beside a running task, over a WebSocket", http.StatusNotFound, http.StatusConflict, http.StatusUpgradeRequired)
	exec.Description = "Subprotocol " + v1alpha1.ExecProtocol + ": text messages are ExecMessage, binary messages begin with the number of their stream (0 stdin, 1 stdout, 2 stderr)."
	exec.Responses = map[string]*huma.Response{"101": {Description: "switched to the WebSocket protocol"}}
	handle(s, api, exec, s.exec)
	describeEvent[v1alpha1.ExecMessage](api)
}

type logInput struct {
	TaskPath
	Follow  bool   `query:"follow" doc:"Go on until the task is final"`
	Offset  int64  `query:"offset" minimum:"0" doc:"Begin at this byte, counted over all streams"`
	Attempt int    `query:"attempt" minimum:"0" doc:"Of this attempt; 0 is the newest"`
	Last    string `header:"Last-Event-ID" doc:"Go on behind this event"`
	Accept  string `header:"Accept" hidden:"true"`
}

// cursor is a place in a task's log.
type cursor struct {
	attempt int // 0: not chosen yet
	offset  int64
}

// start is where the client wants to begin.
func (in *logInput) start() (cursor, error) {
	c := cursor{in.Attempt, in.Offset}
	if in.Last == "" {
		return c, nil
	}
	a, o, ok := strings.Cut(in.Last, "-")
	attempt, err1 := strconv.Atoi(a)
	offset, err2 := strconv.ParseInt(o, 10, 64)
	if !ok || err1 != nil || err2 != nil || attempt < 1 || offset < 0 {
		return c, &fleet.FieldError{Field: "header.Last-Event-ID", Wrong: fmt.Sprintf("%q is not the id of a log event", shorten(in.Last)), Right: "the id of the last event received, such as 1-4096"}
	}
	return cursor{attempt, offset}, nil
}

// sink is how a log is shown.
type sink interface {
	record(attempt int, r fleet.LogRecord) error
	end(t fleet.Task, bytes int64) error
	beat() error
	flush() error
}

func (s *Server) log(ctx context.Context, in *logInput) (*huma.StreamResponse, error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	at, err := in.start()
	if err != nil {
		return nil, err
	}
	ctx, done, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer done()
		_, w := humago.Unwrap(hc)
		kind := "text/event-stream"
		if wantsText(in.Accept) {
			kind = "text/plain; charset=utf-8"
		}
		stream, end := newStream(ctx, w, kind)
		defer end()
		var out sink = eventSink{stream}
		if wantsText(in.Accept) {
			out = textSink{stream}
		}
		if err := s.copyLog(ctx, t, at, in.Follow, out); err != nil {
			s.Logger.Debug("log stream ended", "task", t.ID, "error", err)
			if wantsText(in.Accept) {
				panic(http.ErrAbortHandler) // half a log must not look whole
			}
		}
	}}, nil
}

func wantsText(accept string) bool {
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "text/event-stream")
}

// copyLog writes a log from at on; with follow until the task is final and
// its log was read to the end. The error of an ended stream is ctx's.
func (s *Server) copyLog(ctx context.Context, t fleet.Task, at cursor, follow bool, out sink) error {
	if at.attempt == 0 {
		at.attempt = s.newest(t, follow)
	}
	if err := out.flush(); err != nil { // the headers, at once
		return err
	}
	changed, release := s.hub.watch(t.ID)
	defer release()
	for {
		now, err := s.copyAttempt(ctx, t.ID, &at, follow, out, changed)
		if err != nil {
			return err
		}
		if follow && now.Attempt > at.attempt {
			at = cursor{attempt: at.attempt + 1}
			continue
		}
		size, err := s.Archive.LogSize(t.ID, at.attempt)
		if err != nil && !errors.Is(err, fleet.ErrNotFound) {
			return err
		}
		if err := out.end(now, size); err != nil {
			return err
		}
		return out.flush()
	}
}

// newest is the attempt to show: the present one of a task that runs, else
// the last that wrote anything.
func (s *Server) newest(t fleet.Task, follow bool) int {
	last := max(1, t.Attempt)
	if follow && !t.State.Final() {
		return last
	}
	for a := last; a > 0 && a > last-20; a-- {
		if n, err := s.Archive.LogSize(t.ID, a); err == nil && n > 0 {
			return a
		}
	}
	return last
}

// copyAttempt writes the log of one attempt; with follow until nothing will
// be added to it. It returns the task as it was before the last reading.
func (s *Server) copyAttempt(ctx context.Context, id fleet.TaskID, at *cursor, follow bool, out sink, changed <-chan struct{}) (fleet.Task, error) {
	appended, release := s.Archive.WatchLog(id, at.attempt)
	defer release()
	beat, tick := time.NewTicker(s.beat), time.NewTicker(time.Second)
	defer beat.Stop()
	defer tick.Stop()
	for {
		t, err := s.Store.Task(ctx, id) // before the log: what ended has all its log
		if err != nil {
			return t, err
		}
		if err := s.copyRecords(ctx, id, at, out); err != nil {
			return t, err
		}
		if !follow || t.State.Final() || t.Attempt > at.attempt {
			return t, nil
		}
		select {
		case <-appended:
		case <-changed:
		case <-tick.C:
		case <-beat.C:
			if err := out.beat(); err != nil {
				return t, err
			}
		case <-ctx.Done():
			return t, ctx.Err()
		}
	}
}

// copyRecords writes what there is, one record in memory at a time.
func (s *Server) copyRecords(ctx context.Context, id fleet.TaskID, at *cursor, out sink) error {
	wrote := false
	err := s.Archive.ReadLog(id, at.attempt, at.offset, func(r fleet.LogRecord) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if seen := at.offset - r.Offset; seen > 0 { // the record began before
			if seen >= int64(len(r.Data)) {
				return nil
			}
			r.Data, r.Offset = r.Data[seen:], at.offset
		}
		for len(r.Data) > 0 {
			piece := r
			piece.Data = r.Data[:min(maxRecord, len(r.Data))]
			if err := out.record(at.attempt, piece); err != nil {
				return err
			}
			wrote = true
			r.Data, r.Offset = r.Data[len(piece.Data):], r.Offset+int64(len(piece.Data))
			at.offset = r.Offset
		}
		return nil
	})
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return err
	}
	if wrote {
		return out.flush()
	}
	return nil
}

// eventSink shows a log as server-sent events.
type eventSink struct{ *streamWriter }

func (e eventSink) record(attempt int, r fleet.LogRecord) error {
	id := strconv.Itoa(attempt) + "-" + strconv.FormatInt(r.Offset+int64(len(r.Data)), 10)
	return e.event(v1alpha1.LogEventRecord, id, v1alpha1.LogEvent{
		Offset: r.Offset, At: r.At, Stream: v1alpha1.StreamName(r.Stream), Data: r.Data, Attempt: attempt,
	})
}

func (e eventSink) end(t fleet.Task, bytes int64) error {
	return e.event(v1alpha1.LogEventEnd, "", v1alpha1.LogEnd{
		State: t.State, Reason: t.Result.Reason, Message: t.Result.Message, Bytes: bytes, Dropped: t.Result.LogDropped,
	})
}

// textSink shows a log as the bytes it is made of.
type textSink struct{ *streamWriter }

func (x textSink) record(_ int, r fleet.LogRecord) error {
	_, err := x.Write(r.Data)
	return err
}

func (x textSink) end(fleet.Task, int64) error { return nil }

// beat writes nothing: text has no place for it.
func (x textSink) beat() error { return nil }
