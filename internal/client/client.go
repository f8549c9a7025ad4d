package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	// defaultPatience is how long streams and waits go on trying to reach a
	// server that was there before: a restart takes seconds, an upgrade of
	// the machine some minutes.
	defaultPatience = 5 * time.Minute
	// maxAnswer bounds a JSON answer; 10,000 tasks of the largest usual size.
	maxAnswer = 256 << 20
	// callTimeout bounds a call that is neither a stream nor a wait.
	callTimeout = 60 * time.Second
)

// Options configure a Client.
type Options struct {
	Server string // base URL, http://127.0.0.1:7433
	Token  string
	// TokenFrom says where the token was found, for the error when it is
	// refused; may be empty.
	TokenFrom string
	UserAgent string
	// Trace is the trace that requests belong to; the zero one: none.
	Trace fleet.Trace
	// Patience bounds how long a stream or a wait tries to reach a server
	// that was lost on the way; 0 is 5 minutes, negative not at all.
	Patience time.Duration
	// Notice is told, in words, when the server was lost and when it is back.
	Notice func(string)
	// Relocate, when set, is asked for the server's address while it is away:
	// a restarted one may have another port.
	Relocate func() string
	// Transport is for tests; nil is a transport of the client's own.
	Transport http.RoundTripper
}

// Client calls one server. It is safe for concurrent use.
type Client struct {
	o    Options
	at   atomic.Pointer[url.URL]
	http *http.Client
	met  atomic.Bool // the server has answered at least once
}

// New checks the address and returns a client; it does not connect.
func New(o Options) (*Client, error) {
	base, err := parseServer(o.Server)
	if err != nil {
		return nil, err
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = 90 * time.Second // a long poll answers within 60
		o.Transport = t
	}
	c := &Client{o: o, http: &http.Client{
		Transport: o.Transport,
		// A redirect would send the token elsewhere; muster never redirects.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.at.Store(base)
	return c, nil
}

func (c *Client) base() *url.URL { return c.at.Load() }

// relocate follows a server that came back elsewhere.
func (c *Client) relocate() {
	if c.o.Relocate == nil {
		return
	}
	if u, err := parseServer(c.o.Relocate()); err == nil {
		c.at.Store(u)
	}
}

// Server is the address in use.
func (c *Client) Server() string { return c.base().String() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// parseServer accepts a URL, or host:port for plain HTTP.
func parseServer(s string) (*url.URL, error) {
	full := s
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, &Error{
			Text: fmt.Sprintf("%q is not the address of a server", s),
			Hint: "write it as http://127.0.0.1:7433 or host:port",
			Kind: ErrUsage,
		}
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

// path fills the {parameters} of a route in order. A last parameter named
// path keeps its slashes.
func path(route string, parameters ...string) string {
	for _, p := range parameters {
		open, end := strings.IndexByte(route, '{'), strings.IndexByte(route, '}')
		escaped := url.PathEscape(p)
		if strings.HasPrefix(route[open:end], "{path") {
			escaped = strings.ReplaceAll(escaped, "%2F", "/")
		}
		route = route[:open] + escaped + route[end+1:]
	}
	return route
}

// request makes an authorized request.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	address := c.base().String() + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, r)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.authorize(req.Header)
	return req, nil
}

func (c *Client) authorize(h http.Header) {
	if c.o.Token != "" {
		h.Set("Authorization", "Bearer "+c.o.Token)
	}
	if c.o.Trace.Parent != "" {
		h.Set("Traceparent", c.o.Trace.Parent)
		if c.o.Trace.State != "" {
			h.Set("Tracestate", c.o.Trace.State)
		}
	}
	if c.o.UserAgent != "" {
		h.Set("User-Agent", c.o.UserAgent)
	}
}

// open sends a request and returns a successful answer, whose body the caller
// closes; anything else becomes an *Error.
func (c *Client) open(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.connectError(err)
	}
	c.met.Store(true)
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, c.answerError(resp)
}

// call does one exchange of JSON. out may be nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := c.request(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	return c.exchange(req, out)
}

func (c *Client) exchange(req *http.Request, out any) error {
	resp, err := c.open(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.connectError(err)
	}
	if len(b) > maxAnswer {
		return &Error{Text: "the answer is larger than 256 MiB", Hint: "ask for less, with --limit"}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return c.strangerError(fmt.Sprintf("%d with an answer that is not muster's", resp.StatusCode))
	}
	return nil
}

// steady is how long a connection must have held for the next pause to be
// short again; a server that drops every stream at once is not hammered.
const steady = 5 * time.Second

// again calls try until it succeeds, fails for good, or the server has been
// away for longer than the client's patience. A server that was never met and
// refuses connections is not waited for. try calls alive once it is connected.
func (c *Client) again(ctx context.Context, try func(alive func()) error) error {
	var away, failed time.Time
	pause := firstPause
	alive := func() {
		if !away.IsZero() {
			c.o.Notice("muster is back")
		}
		away = time.Time{}
	}
	for {
		err := try(alive)
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrLost) || c.o.Patience < 0 {
			return err
		}
		if !c.met.Load() && unreached(err) {
			return err
		}
		now := time.Now()
		if now.Sub(failed) > steady {
			pause = firstPause
		}
		failed = now
		if away.IsZero() {
			away = now
			c.o.Notice(fmt.Sprintf("lost muster at %s; waiting for it to come back", c.base()))
		}
		if now.Sub(away) > c.o.Patience {
			return &Error{
				Text: fmt.Sprintf("muster at %s did not come back within %s: %v", c.base(), c.o.Patience, err),
				Hint: "what was accepted is kept; start it with `muster up` and ask again",
				Kind: ErrLost,
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.relocate()
		pause = min(2*pause, 2*time.Second)
	}
}

const firstPause = 50 * time.Millisecond
