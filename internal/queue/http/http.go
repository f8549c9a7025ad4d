package http

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidwall/gjson"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Signal implements fleet.Signal.
type Signal struct {
	conf   Config
	client *connect.HTTPClient
}

// New checks the configuration and returns a Signal. It does not connect.
func New(_ context.Context, c Config) (*Signal, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Method == "" {
		c.Method = "GET"
	}
	if c.APIKeyHeader == "" {
		c.APIKeyHeader = "X-API-Key"
	}
	return &Signal{conf: c, client: connect.NewHTTP(connect.HTTP{
		TLS: c.TLS, Headers: c.Headers, User: c.Username, Password: c.Password, Bearer: c.Token,
		Key: c.APIKey, KeyHeader: c.APIKeyHeader, KeyQuery: c.APIKeyQuery, Timeout: c.Timeout,
	})}, nil
}

// Traits implements fleet.Signal.
func (s *Signal) Traits() fleet.SignalTraits {
	c := s.conf
	return fleet.SignalTraits{
		Oldest: c.Oldest != "" || c.OldestAt != "", Arrived: c.Arrived != "", InFlight: c.InFlight != "", Delayed: c.Delayed != "", Dead: c.Dead != "",
	}
}

// Wake implements fleet.Signal: an address tells nothing by itself.
func (s *Signal) Wake() <-chan struct{} { return nil }

// Close implements fleet.Signal.
func (s *Signal) Close() error {
	s.client.Close()
	return nil
}

// Stats implements fleet.Signal.
func (s *Signal) Stats(ctx context.Context) (fleet.SignalStats, error) {
	st, err := s.read(ctx)
	if err != nil {
		return fleet.SignalStats{}, fmt.Errorf("http: %w", err)
	}
	return st, nil
}

func (s *Signal) read(ctx context.Context) (fleet.SignalStats, error) {
	asked := time.Now()
	headers := map[string]string{"Accept": "application/json"}
	if s.conf.Body != "" {
		headers["Content-Type"] = "application/json"
	}
	a, err := s.client.Do(ctx, s.conf.Method, s.conf.URL, s.conf.Body, headers)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	if err := a.Err(); err != nil {
		return fleet.SignalStats{}, err
	}
	st, err := figures(s.conf, a.Body, asked)
	if err != nil {
		// It may quote the answer, and an answer may quote the request.
		return fleet.SignalStats{}, fmt.Errorf("%s: %w", s.client.Redact(err.Error()), fleet.ErrUnavailable)
	}
	return st, nil
}

// figures takes the reading out of a document.
func figures(c Config, body []byte, asked time.Time) (fleet.SignalStats, error) {
	st := fleet.SignalStats{AsOf: asked}
	if !gjson.ValidBytes(body) {
		return st, fmt.Errorf("the answer is no JSON: %.60q", body)
	}
	for _, f := range []struct {
		name, path string
		to         *int64
	}{
		{"backlog", c.Backlog, &st.Backlog},
		{"inFlight", c.InFlight, &st.InFlight},
		{"delayed", c.Delayed, &st.Delayed},
		{"dead", c.Dead, &st.Dead},
		{"arrived", c.Arrived, &st.Arrived},
	} {
		if f.path == "" {
			continue
		}
		text, err := scalar(body, f.path)
		if err == nil {
			*f.to, err = connect.Count(text)
		}
		if err != nil {
			return st, fmt.Errorf("%s (%s): %w", f.name, f.path, err)
		}
	}
	if st.Backlog == 0 {
		return st, nil // nothing waits, so nothing waits longest
	}
	var err error
	st.Oldest, err = oldest(c, body, asked)
	return st, err
}

func oldest(c Config, body []byte, asked time.Time) (time.Time, error) {
	var at time.Time
	switch {
	case c.Oldest != "":
		text, err := scalar(body, c.Oldest)
		var age time.Duration
		if err == nil {
			age, err = connect.Age(text)
		}
		if err != nil {
			return at, fmt.Errorf("oldest (%s): %w", c.Oldest, err)
		}
		at = asked.Add(-age)
	case c.OldestAt != "":
		text, err := scalar(body, c.OldestAt)
		if err == nil {
			at, err = connect.Time(text)
		}
		if err != nil {
			return at, fmt.Errorf("oldestAt (%s): %w", c.OldestAt, err)
		}
		if at.After(asked) { // their clock is ahead of ours
			at = asked
		}
	}
	return at, nil
}

// scalar is the number or text at a path.
func scalar(body []byte, path string) (string, error) {
	r := gjson.GetBytes(body, path)
	switch r.Type {
	case gjson.Number:
		return r.Raw, nil
	case gjson.String:
		return r.Str, nil
	case gjson.Null:
		if r.Exists() {
			return "", errors.New("is null")
		}
		return "", errors.New("is not in the answer")
	case gjson.True, gjson.False, gjson.JSON:
	}
	return "", fmt.Errorf("%.40q is no number", r.Raw)
}
