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
	"strconv"
	"sync"
	"time"
)

const dialTimeout = 20 * time.Second

// dialHTTP is the transport's dialer: the address it is given is the target
// or, with an upstream, the upstream.
func (p *Proxy) dialHTTP(ctx context.Context, _, addr string) (net.Conn, error) {
	if u := p.opts.Upstream; u != nil {
		return p.dialPlain(ctx, addr)
	}
	host, port, err := splitHostPort(addr, 80)
	if err != nil {
		return nil, err
	}
	return p.dialChecked(ctx, host, port)
}

func (p *Proxy) dialTunnel(ctx context.Context, host string, port uint16) (net.Conn, error) {
	if p.opts.Upstream == nil {
		return p.dialChecked(ctx, host, port)
	}
	return p.dialThroughUpstream(ctx, net.JoinHostPort(host, strconv.Itoa(int(port))))
}

// dialChecked resolves host, drops the addresses that may not be reached, and
// dials the others in order.
func (p *Proxy) dialChecked(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := p.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	var dialErr error
	refused := 0
	for _, a := range addrs {
		if !p.policy.AllowsAddr(host, a, port) {
			refused++
			continue
		}
		c, err := p.dialPlain(ctx, net.JoinHostPort(a.Unmap().String(), strconv.Itoa(int(port))))
		if err == nil {
			return c, nil
		}
		dialErr = err
	}
	if dialErr == nil && refused > 0 {
		return nil, &errDenied{fmt.Sprintf("%s resolves to a private, local or metadata address, which is refused (network.allowPrivate would except it)", host)}
	}
	if dialErr == nil {
		dialErr = errors.New("the name has no address")
	}
	return nil, fmt.Errorf("connect to %s: %w", host, dialErr)
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
	return &metered{Conn: c, p: p}, nil
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

// metered counts what passes to and from outside.
type metered struct {
	net.Conn
	p *Proxy
}

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.p.received.Add(int64(n))
	return n, err
}

func (m *metered) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.p.sent.Add(int64(n))
	return n, err
}

// track registers a tunnel; false once the proxy is closed.
func (p *Proxy) track(cs ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	for _, c := range cs {
		p.tunnels[c] = struct{}{}
	}
	p.wg.Add(1)
	return true
}

func (p *Proxy) untrack(cs ...net.Conn) {
	p.mu.Lock()
	for _, c := range cs {
		delete(p.tunnels, c)
	}
	p.mu.Unlock()
	p.wg.Done()
}

// limited bounds the connections a sandbox may hold: beyond the bound it
// waits in the listen queue.
type limited struct {
	net.Listener
	p *Proxy
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.p.slots <- struct{}{}:
	case <-l.p.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.p.slots
		return nil, err
	}
	return &slotted{Conn: c, free: sync.OnceFunc(func() { <-l.p.slots })}, nil
}

type slotted struct {
	net.Conn
	free func()
}

func (s *slotted) Close() error {
	err := s.Conn.Close()
	s.free()
	return err
}

// CloseWrite half-closes where the connection can.
func (s *slotted) CloseWrite() error {
	if hc, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return s.Conn.Close()
}
