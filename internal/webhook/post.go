package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// errRedirect and errForbidden are of no use to try again.
var (
	errRedirect  = errors.New("it redirects to another host, which is not followed; give the final address")
	errForbidden = errors.New("its address is link-local or of a cloud's metadata service, which webhooks may not reach")
)

// newTransport refuses the addresses where a cloud hands out credentials:
// whoever may submit a task may name a webhook. Private addresses stay
// reachable, as that is where CI servers are.
func newTransport() *http.Transport {
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || metadata(ap.Addr()) {
			return errForbidden
		}
		return nil
	}}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext, MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns: 16, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
}

func metadata(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	switch a.String() {
	case "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192":
		return true
	}
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
}

func sameHost(r *http.Request, via []*http.Request) error {
	if len(via) >= 3 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
		return errRedirect
	}
	return nil
}

// failed sorts an error of the client.
func failed(err error) (time.Duration, error) {
	if errors.Is(err, errRedirect) || errors.Is(err, errForbidden) {
		return -1, withoutURL(err)
	}
	return 0, withoutURL(err)
}

// withoutURL takes the address out of an error: its query is often a
// credential, and the error goes to log and store.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// post tries once. A negative wait says that another attempt is useless.
func (s *Service) post(ctx context.Context, address string, body []byte) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return -1, fmt.Errorf("webhook address: %w", withoutURL(err))
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("User-Agent", s.o.UserAgent)
	if s.o.Key != nil {
		key, err := s.o.Key(ctx)
		if err == nil && len(key) == 0 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return 0, fmt.Errorf("the key that signs webhooks: %w", err)
		}
		req.Header.Set("Muster-Signature", Sign(key, s.o.Clock(), body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	switch {
	case resp.StatusCode < 300:
		return 0, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		return retryAfter(resp.Header.Get("Retry-After"), s.o.Clock()), fmt.Errorf("answered %s", resp.Status)
	}
	return -1, fmt.Errorf("answered %s", resp.Status)
}

// retryAfter reads seconds or a date, at most 15 minutes.
func retryAfter(h string, now time.Time) time.Duration {
	const most = 15 * time.Minute
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
		return min(time.Duration(min(n, 3600))*time.Second, most)
	}
	if at, err := http.ParseTime(h); err == nil {
		return min(max(0, at.Sub(now)), most)
	}
	return 0
}
