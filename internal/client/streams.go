package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// errDone ends a stream from within its handler.
var errDone = errors.New("done")

// stream follows server-sent events over lost connections. query is asked
// anew for every connection; handle returns errDone at the end.
func (c *Client) stream(ctx context.Context, path string, query func() (url.Values, string), handle func(serverEvent) error) error {
	err := c.again(ctx, func(alive func()) error {
		q, last := query()
		req, err := c.request(ctx, http.MethodGet, path, q, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := c.open(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			return c.strangerError("no event stream")
		}
		alive()
		events := newEventReader(resp.Body)
		for {
			e, err := events.next()
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return c.connectError(err)
			}
			if err := handle(e); err != nil {
				return err
			}
		}
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// LogQuery says what of a log to read.
type LogQuery struct {
	Follow  bool
	Attempt int // 0: the newest, and with Follow those that come after it
	Offset  int64
}

// Log calls each for every record of the task's log, in order, each byte once,
// and returns how the task ended (or, without Follow, stands).
func (c *Client) Log(ctx context.Context, id fleet.TaskID, q LogQuery, each func(v1alpha1.LogEvent) error) (v1alpha1.LogEnd, error) {
	var end v1alpha1.LogEnd
	attempt, next := q.Attempt, q.Offset
	query := func() (url.Values, string) {
		v := url.Values{"follow": {strconv.FormatBool(q.Follow)}}
		if next > 0 {
			v.Set("offset", strconv.FormatInt(next, 10))
		}
		if attempt > 0 {
			v.Set("attempt", strconv.Itoa(attempt))
		}
		return v, ""
	}
	err := c.stream(ctx, path(v1alpha1.RouteTaskLog, string(id)), query, func(e serverEvent) error {
		switch e.Kind {
		case v1alpha1.LogEventEnd:
			if err := json.Unmarshal([]byte(e.Data), &end); err != nil {
				return fmt.Errorf("read the end of the log: %w", err)
			}
			return errDone
		case v1alpha1.LogEventRecord:
			var r v1alpha1.LogEvent
			if err := json.Unmarshal([]byte(e.Data), &r); err != nil {
				return fmt.Errorf("read a log record: %w", err)
			}
			if r.Attempt > attempt {
				if attempt > 0 {
					next = 0 // a new attempt has a log of its own
				}
				attempt = r.Attempt
			}
			r, ok := unseen(r, next)
			if !ok {
				return nil
			}
			next = r.Offset + int64(len(r.Data))
			return each(r)
		}
		return nil
	})
	return end, err
}

// unseen cuts off what of a record was delivered before.
func unseen(r v1alpha1.LogEvent, next int64) (v1alpha1.LogEvent, bool) {
	if r.Offset >= next {
		return r, len(r.Data) > 0
	}
	seen := next - r.Offset
	if seen >= int64(len(r.Data)) {
		return r, false
	}
	r.Data, r.Offset = r.Data[seen:], next
	return r, true
}

// EventQuery selects events; zero fields select all.
type EventQuery struct {
	After int64
	Since time.Time
	Kinds []string
	Task  fleet.TaskID
	Limit int
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	if q.After > 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	for _, k := range q.Kinds {
		v.Add("kind", k)
	}
	if q.Task != "" {
		v.Set("task", string(q.Task))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Events lists events, oldest first.
func (c *Client) Events(ctx context.Context, q EventQuery) (v1alpha1.EventList, error) {
	out := v1alpha1.EventList{Events: []fleet.Event{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteEvents, q.values(), nil, &out)
	return out, err
}

// FollowEvents calls each for every event after q.After as it happens, until
// ctx ends or each fails.
func (c *Client) FollowEvents(ctx context.Context, q EventQuery, each func(fleet.Event) error) error {
	last := q.After
	query := func() (url.Values, string) {
		q.After = last
		v := q.values()
		v.Set("follow", "true")
		if last == 0 {
			return v, ""
		}
		return v, strconv.FormatInt(last, 10)
	}
	return c.stream(ctx, v1alpha1.RouteEvents, query, func(e serverEvent) error {
		if e.Kind != v1alpha1.EventRecord {
			return nil
		}
		var ev fleet.Event
		if err := json.Unmarshal([]byte(e.Data), &ev); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if ev.Seq <= last {
			return nil
		}
		last = ev.Seq
		return each(ev)
	})
}
