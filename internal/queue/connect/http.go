package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// HTTP says how a service is asked over HTTP. At most one of User with Password,
// Bearer and Key is used.
type HTTP struct {
	TLS      TLS
	Headers  map[string]string // sent with each request; no credentials
	User     string            // basic authentication
	Password Credential
	Bearer   Credential
	// Key is sent in the header KeyHeader, or as the parameter KeyQuery of the
	// address.
	Key                 Credential
	KeyHeader, KeyQuery string
	// Timeout bounds one request with its answer; 0: 4 s, which leaves the caller
	// time within the 5 s of fleet.Signal.
	Timeout time.Duration
	// Most bounds an answer, in bytes; 0: 1 MiB.
	Most int64
}

// Answer is what a service said.
type Answer struct {
	Status int
	Body   []byte
}

// HTTPClient asks a service as HTTP says. Safe for concurrent use.
type HTTPClient struct {
	conf      HTTP
	transport *http.Transport
	client    http.Client
	secret    Kept

	ctx   context.Context // ends with Close
	end   context.CancelFunc
	mu    sync.Mutex
	calls sync.WaitGroup
	over  bool
}

// NewHTTP returns a client; it connects with the first request.
func NewHTTP(c HTTP) *HTTPClient {
	if c.Timeout <= 0 {
		c.Timeout = 4 * time.Second
	}
	if c.Most <= 0 {
		c.Most = 1 << 20
	}
	h := &HTTPClient{conf: c}
	h.ctx, h.end = context.WithCancel(context.Background())
	h.transport = &http.Transport{
		DialContext:           (&net.Dialer{}).DialContext,
		DialTLSContext:        h.dialTLS,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: c.Timeout,
	}
	h.client = http.Client{Transport: h.transport, CheckRedirect: sameHost}
	h.secret.From = c.secret()
	return h
}

// secret is the one credential that there is, nil for none.
func (c HTTP) secret() Credential {
	for _, s := range []Credential{c.Bearer, c.Key, c.Password} {
		if s != nil {
			return s
		}
	}
	return nil
}

// dialTLS reads certificates at each connection, so that renewed ones are taken
// up.
func (h *HTTPClient) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	conf, err := h.conf.TLS.Config()
	if err != nil {
		return nil, err
	}
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return (&tls.Dialer{Config: conf}).DialContext(ctx, network, address)
}

// errElsewhere: credentials stay with the host that they are for.
var errElsewhere = errors.New("redirects to another host, which is not followed")

func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if r.URL.Scheme != first.Scheme || !strings.EqualFold(r.URL.Host, first.Host) {
		return errElsewhere
	}
	if len(via) > 3 {
		return errors.New("redirects more than three times")
	}
	return nil
}

// Do sends a request with the credential, and reads the whole answer, whatever
// its status is. Errors wrap those of fleet.Signal and show neither the address
// beyond its host nor the credential.
func (h *HTTPClient) Do(ctx context.Context, method, address, body string, headers map[string]string) (Answer, error) {
	if !h.begin() {
		return Answer{}, fmt.Errorf("the connection is closed: %w", fleet.ErrUnavailable)
	}
	defer h.calls.Done()
	within, cancel := context.WithTimeout(ctx, h.conf.Timeout)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	r, err := h.request(within, method, address, body, headers)
	if err != nil {
		return Answer{}, h.said(ctx, "", err)
	}
	resp, err := h.client.Do(r)
	if err != nil {
		return Answer{}, h.said(ctx, r.URL.Host, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, h.conf.Most+1))
	switch {
	case err != nil:
		return Answer{}, h.said(ctx, r.URL.Host, err)
	case int64(len(b)) > h.conf.Most:
		return Answer{}, fmt.Errorf("%s: the answer is larger than %d bytes: %w", r.URL.Host, h.conf.Most, fleet.ErrUnavailable)
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		h.secret.Forget()
	}
	return Answer{Status: resp.StatusCode, Body: b}, nil
}

func (h *HTTPClient) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return false
	}
	h.calls.Add(1)
	return true
}

func (h *HTTPClient) request(ctx context.Context, method, address, body string, headers map[string]string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the address or method cannot be used: %w", fleet.ErrInvalid)
	}
	r.Header.Set("User-Agent", "muster")
	for _, m := range []map[string]string{headers, h.conf.Headers} {
		for k, v := range m {
			if strings.EqualFold(k, "Host") {
				r.Host = v
			}
			r.Header.Set(k, v)
		}
	}
	if h.secret.From == nil && h.conf.User == "" {
		return r, nil
	}
	secret, err := h.secret.Value(ctx)
	if err != nil {
		return nil, err
	}
	c := h.conf
	switch {
	case c.Bearer != nil:
		r.Header.Set("Authorization", "Bearer "+secret)
	case c.Key != nil && c.KeyQuery != "":
		q := r.URL.Query()
		q.Set(c.KeyQuery, secret)
		r.URL.RawQuery = q.Encode()
	case c.Key != nil:
		r.Header.Set(c.KeyHeader, secret)
	default:
		r.SetBasicAuth(c.User, secret)
	}
	for _, v := range r.Header {
		// Said here, since the transport's error would show it.
		if strings.ContainsAny(v[0], "\r\n\x00") {
			return nil, fmt.Errorf("a header or credential has a line break in it: %w", fleet.ErrInvalid)
		}
	}
	return r, nil
}

// said makes an error of a request one of fleet.Signal. What net/http adds, the
// address with its parameters, is taken away.
func (h *HTTPClient) said(ctx context.Context, host string, err error) error {
	var in *url.Error
	if errors.As(err, &in) {
		err = in.Err
	}
	if host != "" {
		host += ": "
	}
	var alert tls.AlertError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s%w", host, ctx.Err())
	case h.ctx.Err() != nil:
		return fmt.Errorf("%sthe connection is closed: %w", host, fleet.ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%sno answer within %s: %w", host, h.conf.Timeout, fleet.ErrUnavailable)
	case errors.As(err, &alert) && refusals[alert]:
		return fmt.Errorf("%sour certificate is refused (%w): %w", host, err, fleet.ErrDenied)
	}
	for _, kind := range []error{fleet.ErrInvalid, fleet.ErrNotFound, fleet.ErrDenied, fleet.ErrUnavailable} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%s%w", host, err)
		}
	}
	return fmt.Errorf("%s%w: %w", host, fleet.ErrUnavailable, err)
}

// refusals are alerts of TLS by which a server refuses a client's certificate:
// bad, unsupported, revoked, expired, unknown certificate, unknown authority,
// access denied, certificate required (RFC 8446, section 6.2).
var refusals = map[tls.AlertError]bool{42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true, 116: true}

// Err says what a status that is no success means; nil for 2xx.
func (a Answer) Err() error {
	kind := fleet.ErrUnavailable
	switch a.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = fleet.ErrDenied
	case http.StatusNotFound, http.StatusGone:
		kind = fleet.ErrNotFound
	}
	if a.Status >= 200 && a.Status < 300 {
		return nil
	}
	return fmt.Errorf("HTTP %d: %w", a.Status, kind)
}

// Redact takes the credential out of text that the service sent, and bounds it.
func (h *HTTPClient) Redact(text string) string { return h.secret.Redact(text) }

// Close ends requests and connections.
func (h *HTTPClient) Close() {
	h.mu.Lock()
	h.over = true
	h.mu.Unlock()
	h.end()
	h.calls.Wait()
	h.transport.CloseIdleConnections()
}
