package rabbitmq

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// statistics are what the management API tells of a queue beside its length.
type statistics struct {
	at      time.Time
	unacked int64 // by any consumer
	arrived int64 // published to the queue since the broker counts
	head    time.Time
}

// stale is how long the last reading stands in for one that failed.
const stale = 30 * time.Second

// management keeps the last reading.
type management struct {
	mu   sync.Mutex
	last statistics
	age  time.Duration // how long a reading is used again
}

// statistics reads the management API, or returns the last reading where that
// is recent, or was not long ago and the API does not answer.
func (s *Source) statistics(ctx context.Context) (statistics, error) {
	s.mgmt.mu.Lock()
	last := s.mgmt.last
	s.mgmt.mu.Unlock()
	if time.Since(last.at) < s.mgmt.age {
		return last, nil
	}
	// Shorter than the call, so that the last reading can still stand in.
	short, cancel := context.WithTimeoutCause(ctx, patience*3/4, errNoAnswer)
	defer cancel()
	got, err := s.askManagement(short)
	if err != nil {
		if ctx.Err() == nil && time.Since(last.at) < stale {
			return last, nil
		}
		if short.Err() != nil {
			err = context.Cause(short)
		}
		return statistics{}, fmt.Errorf("management API: %w", classify(err))
	}
	s.mgmt.mu.Lock()
	defer s.mgmt.mu.Unlock()
	s.mgmt.last = got
	return got, nil
}

func (s *Source) askManagement(ctx context.Context) (statistics, error) {
	// Names are path segments, a slash in them escaped: %2F is the usual vhost.
	address := s.cfg.Management + "/api/queues/" + url.PathEscape(s.cfg.VHost) + "/" + url.PathEscape(s.cfg.Queue) +
		"?columns=state,messages_unacknowledged,message_stats.publish,head_message_timestamp"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return statistics{}, err
	}
	password, err := s.cfg.Password.Value(ctx)
	if err != nil {
		return statistics{}, fmt.Errorf("password: %w", err)
	}
	r.SetBasicAuth(s.cfg.Username, password)
	resp, err := s.http.Do(r)
	if err != nil {
		return statistics{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return statistics{}, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return parseStatistics(b, time.Now())
	case http.StatusUnauthorized, http.StatusForbidden:
		return statistics{}, fmt.Errorf("HTTP %d, the user needs the tag monitoring: %w", resp.StatusCode, fleet.ErrDenied)
	case http.StatusNotFound:
		// Whether the queue exists is for the broker to say.
		return statistics{}, fmt.Errorf("it knows no such queue yet: %w", fleet.ErrUnavailable)
	}
	return statistics{}, fmt.Errorf("HTTP %d: %w", resp.StatusCode, fleet.ErrUnavailable)
}

// parseStatistics reads the answer. A queue whose numbers were not gathered yet
// is an error: they are not zero.
func parseStatistics(b []byte, now time.Time) (statistics, error) {
	var got struct {
		State   string          `json:"state"`
		Unacked *int64          `json:"messages_unacknowledged"`
		Stats   json.RawMessage `json:"message_stats"` // an empty list where nothing was counted
		Head    json.RawMessage `json:"head_message_timestamp"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		return statistics{}, fmt.Errorf("the answer is not of the management API: %w", fleet.ErrUnavailable)
	}
	switch got.State {
	case "down", "minority", "crashed", "stopped":
		return statistics{}, fmt.Errorf("the queue is %s: %w", got.State, fleet.ErrUnavailable)
	}
	if got.Unacked == nil {
		return statistics{}, fmt.Errorf("no statistics of the queue yet: %w", fleet.ErrUnavailable)
	}
	out := statistics{at: now, unacked: *got.Unacked}
	var stats struct {
		Publish int64 `json:"publish"`
	}
	if json.Unmarshal(got.Stats, &stats) == nil {
		out.arrived = stats.Publish
	}
	var head int64
	if json.Unmarshal(got.Head, &head) == nil && head > 0 && head < 1<<40 {
		out.head = time.Unix(head, 0)
	}
	return out, nil
}
