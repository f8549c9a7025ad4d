package egress

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const dialTimeout = 20 * time.Second

// direct tells whether host is reached without the upstream: there is none,
// or the host is excepted as private and so no business of the upstream's.
func (p *Proxy) direct(host string, port uint16) bool {
	return p.opts.Upstream == nil || p.policy.privateByName(normalName(host), port)
}

// upstreamFor is the transport's choice of a proxy.
func (p *Proxy) upstreamFor(r *http.Request) (*url.URL, error) {
	host, port, err := splitHostPort(r.URL.Host, 80)
	if err != nil || p.direct(host, port) {
		return nil, err
	}
	return p.opts.Upstream, nil
}

// dialHTTP is the transport's dialer: the address it is given is the target
// or, with an upstream, the upstream.
func (p *Proxy) dialHTTP(ctx context.Context, _, addr string) (net.Conn, error) {
	if u := p.opts.Upstream; u != nil && addr == u.Host {
		return p.dialPlain(ctx, addr)
	}
	host, port, err := splitHostPort(addr, 80)
	if err != nil {
		return nil, err
	}
	return p.dialChecked(ctx, host, port)
}

func (p *Proxy) dialTunnel(ctx context.Context, host string, port uint16) (net.Conn, error) {
	if p.direct(host, port) {
		return p.dialChecked(ctx, host, port)
	}
	return p.dialThroughUpstream(ctx, hostPort(host, port))
}

// dialChecked resolves host, drops the addresses that may not be reached, and
// dials the others in order.
func (p *Proxy) dialChecked(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := p.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, plainDNS(err))
	}
	var allowed []string
	for _, a := range addrs {
		if p.policy.AllowsAddr(host, a, port) {
			allowed = append(allowed, hostPort(a.Unmap().String(), port))
		}
	}
	switch {
	case len(addrs) == 0:
		return nil, fmt.Errorf("resolve %s: the name has no address", host)
	case len(allowed) == 0:
		return nil, &deniedError{hostPort(host, port), "is at a private, local or metadata address (spec.templates[].network.allowPrivate would except it)"}
	}
	c, err := p.race(ctx, allowed)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", host, err)
	}
	return c, nil
}

// race dials the addresses in order, the next one as soon as the one before
// has failed or kept us waiting (RFC 8305 suggests 250 ms), and returns the
// first connection: an address family without a route must cost no time-out.
func (p *Proxy) race(ctx context.Context, addrs []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		c   net.Conn
		err error
	}
	ended := make(chan outcome, len(addrs))
	var failed error
	for next, running := 0, 0; ; {
		if next < len(addrs) {
			addr := addrs[next]
			next, running = next+1, running+1
			p.wg.Go(func() {
				c, err := p.dialPlain(ctx, addr)
				ended <- outcome{c, err}
			})
		}
		var patience <-chan time.Time
		if next < len(addrs) {
			patience = time.After(250 * time.Millisecond)
		}
		select {
		case <-patience:
		case o := <-ended:
			if running--; o.err == nil {
				cancel()
				for range running { // the others lost, or are ended by cancel
					if late := <-ended; late.c != nil {
						_ = late.c.Close()
					}
				}
				return o.c, nil
			}
			failed = errors.Join(failed, o.err)
			if running == 0 && next == len(addrs) {
				return nil, failed
			}
		}
	}
}

func (p *Proxy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return p.opts.Resolve(ctx, host)
}

func (p *Proxy) dialPlain(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &metered{Conn: c, p: p}
	if !p.track(m) {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return m, nil
}

// plainDNS leaves out which resolver was asked: that is no business of a
// sandbox.
func plainDNS(err error) error {
	var de *net.DNSError
	if errors.As(err, &de) {
		return errors.New(de.Err)
	}
	return err
}

// dialThroughUpstream asks the configured upstream proxy for a tunnel.
func (p *Proxy) dialThroughUpstream(ctx context.Context, target string) (net.Conn, error) {
	u := p.opts.Upstream
	c, err := p.dialPlain(ctx, u.Host)
	if err != nil {
		return nil, fmt.Errorf("connect to the upstream proxy: %w", err)
	}
	auth := ""
	if u.User != nil {
		pw, _ := u.User.Password()
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+pw)) + "\r\n"
	}
	_ = c.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, target, auth); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask the upstream proxy: %w", err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask the upstream proxy: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || br.Buffered() > 0 {
		_ = c.Close()
		return nil, fmt.Errorf("the upstream proxy refused %s: %s", target, resp.Status)
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}
