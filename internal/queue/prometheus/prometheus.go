package prometheus

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Signal implements fleet.Signal.
type Signal struct {
	conf    Config
	address string
	client  *connect.HTTPClient
	figures []figure
}

// figure is one query and where its value belongs.
type figure struct {
	name, query string
	put         func(*fleet.SignalStats, string) error
}

// New checks the configuration and returns a Signal. It does not connect.
func New(_ context.Context, c Config) (*Signal, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.StaleAfter == 0 {
		c.StaleAfter = 2 * time.Minute
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, wrong("url", "an address such as http://prometheus:9090", "is no address")
	}
	s := &Signal{conf: c, address: u.JoinPath("api/v1/query").String(), client: connect.NewHTTP(connect.HTTP{
		TLS: c.TLS, Headers: c.Headers, User: c.Username, Password: c.Password, Bearer: c.Token, Timeout: c.Timeout,
	})}
	count := func(of func(*fleet.SignalStats) *int64) func(*fleet.SignalStats, string) error {
		return func(st *fleet.SignalStats, text string) (err error) {
			*of(st), err = connect.Count(text)
			return err
		}
	}
	for _, f := range []figure{
		{"backlog", c.Backlog, count(func(st *fleet.SignalStats) *int64 { return &st.Backlog })},
		{"inFlight", c.InFlight, count(func(st *fleet.SignalStats) *int64 { return &st.InFlight })},
		{"delayed", c.Delayed, count(func(st *fleet.SignalStats) *int64 { return &st.Delayed })},
		{"dead", c.Dead, count(func(st *fleet.SignalStats) *int64 { return &st.Dead })},
		{"arrived", c.Arrived, count(func(st *fleet.SignalStats) *int64 { return &st.Arrived })},
		{"asOf", c.AsOf, func(st *fleet.SignalStats, text string) (err error) {
			st.AsOf, err = connect.Time(text)
			return err
		}},
		{"oldest", c.Oldest, func(st *fleet.SignalStats, text string) error { // after asOf
			age, err := connect.Age(text)
			st.Oldest = st.AsOf.Add(-age)
			return err
		}},
	} {
		if f.query != "" {
			s.figures = append(s.figures, f)
		}
	}
	return s, nil
}

// Traits implements fleet.Signal.
func (s *Signal) Traits() fleet.SignalTraits {
	c := s.conf
	return fleet.SignalTraits{Oldest: c.Oldest != "", Arrived: c.Arrived != "", InFlight: c.InFlight != "", Delayed: c.Delayed != "", Dead: c.Dead != ""}
}

// Wake implements fleet.Signal: Prometheus is asked, and tells nothing by itself.
func (s *Signal) Wake() <-chan struct{} { return nil }

// Close implements fleet.Signal.
func (s *Signal) Close() error {
	s.client.Close()
	return nil
}

// Stats implements fleet.Signal.
func (s *Signal) Stats(ctx context.Context) (fleet.SignalStats, error) {
	samples, errs := make([]sample, len(s.figures)), make([]error, len(s.figures))
	var wg sync.WaitGroup
	for i, f := range s.figures {
		wg.Go(func() { samples[i], errs[i] = s.ask(ctx, f.query) })
	}
	wg.Wait()
	st, err := s.put(samples, errs, time.Now())
	if err != nil {
		return fleet.SignalStats{}, fmt.Errorf("prometheus: %w", err)
	}
	return st, nil
}

// put makes a reading of the answers.
func (s *Signal) put(samples []sample, errs []error, now time.Time) (fleet.SignalStats, error) {
	var st fleet.SignalStats
	for i, f := range s.figures {
		x, err := samples[i], errs[i]
		switch {
		case err == nil && x.absent:
			switch {
			case f.name == "oldest" && st.Backlog == 0:
				continue // nothing waits, so nothing waits longest
			case f.name == "asOf" || !s.conf.EmptyIsZero:
				err = fmt.Errorf("the query gives no sample, which is not taken for zero: %w", fleet.ErrUnavailable)
			default:
				x.value = "0"
			}
		case err == nil && s.stale(x.at, now):
			err = fmt.Errorf("the answer is of %s, older than %s: %w", x.at.UTC().Format(time.RFC3339), s.conf.StaleAfter, fleet.ErrUnavailable)
		}
		if err == nil {
			if st.AsOf.IsZero() && !x.absent {
				st.AsOf = earlier(x.at, now)
			}
			if err = f.put(&st, x.value); err != nil {
				err = fmt.Errorf("%w: %w", err, fleet.ErrUnavailable)
			}
		}
		if err == nil && f.name == "asOf" && s.stale(st.AsOf, now) {
			err = fmt.Errorf("the samples are of %s, older than %s: %w", st.AsOf.UTC().Format(time.RFC3339), s.conf.StaleAfter, fleet.ErrUnavailable)
		}
		if err != nil {
			return st, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if st.AsOf.IsZero() {
		st.AsOf = now // all were empty, and taken for zero
	}
	st.AsOf = earlier(st.AsOf, now)
	if st.Backlog == 0 {
		st.Oldest = time.Time{}
	}
	return st, nil
}

func (s *Signal) stale(at, now time.Time) bool { return now.Sub(at) > s.conf.StaleAfter }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// longest is how long a query may be that is still sent with GET; servers and
// proxies take lines of 8 KiB at least.
const longest = 4 << 10

func (s *Signal) ask(ctx context.Context, query string) (sample, error) {
	form := url.Values{"query": {query}, "lookback_delta": {strconv.FormatFloat(s.conf.StaleAfter.Seconds(), 'f', -1, 64)}}.Encode()
	method, address, body, headers := http.MethodGet, s.address, "", map[string]string{"Accept": "application/json"}
	if len(form) <= longest {
		sep := "?"
		if strings.Contains(address, "?") {
			sep = "&"
		}
		address += sep + form
	} else {
		method, body = http.MethodPost, form
		headers["Content-Type"] = "application/x-www-form-urlencoded"
	}
	a, err := s.client.Do(ctx, method, address, body, headers)
	if err != nil {
		return sample{}, err
	}
	x, said, err := parse(a.Body)
	status := a.Err()
	switch {
	case status == nil && err == nil:
		return x, nil
	case status == nil:
		return sample{}, fmt.Errorf("%s: %w", s.client.Redact(err.Error()), fleet.ErrUnavailable)
	case said == "":
		return sample{}, status
	case a.Status == http.StatusBadRequest || a.Status == http.StatusUnprocessableEntity:
		return sample{}, fmt.Errorf("HTTP %d: %s: %w", a.Status, s.client.Redact(said), fleet.ErrInvalid)
	}
	return sample{}, fmt.Errorf("%s: %w", s.client.Redact(said), status)
}
