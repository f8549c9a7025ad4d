//go:build linux

package dialout

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
	"muster.dev/muster/internal/runner"
)

const (
	upgradeProtocol = "muster-runner/1"
	pathLink        = "/runner/v1/link"
	pathEgress      = "/runner/v1/egress"

	// dialTimeout bounds connecting, TLS and the answer together.
	dialTimeout = 15 * time.Second
	// longestWait bounds what Retry-After can ask for.
	longestWait = 5 * time.Second
	// deadAfter is how long sent bytes may stay unacknowledged, and how soon a
	// silent peer that is gone is noticed: a node that died sends no reset.
	deadAfter = 30 * time.Second
)

// Options of a Dialer.
type Options struct {
	Gateway string // https://host:port
	CA      []byte // PEM; the only roots trusted
	Bearer  string // the one-time identity
}

// Dialer connects to one gateway, or to where that sends it. It is safe for concurrent use.
type Dialer struct {
	host string // with port
	tls  *tls.Config

	mu      sync.Mutex
	bearer  string // empty once there is a session
	uid     string
	session string
	name    string    // of the pod, to be shown with the session; empty: not told
	via     string    // host:port it was sent to, and which took it; empty: host
	notYet  time.Time // Retry-After
}

// New checks the options.
func New(o Options) (*Dialer, error) {
	u, err := url.Parse(o.Gateway)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, &fleet.FieldError{Field: "MUSTER_GATEWAY", Wrong: fmt.Sprintf("%.200q is no address of a gateway", o.Gateway), Right: "https://host:port"}
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(o.CA) {
		return nil, &fleet.FieldError{Field: "MUSTER_CA", Wrong: "holds no certificate", Right: "the PEM of the gateway's certificate authority"}
	}
	if !token(o.Bearer) {
		return nil, &fleet.FieldError{Field: "MUSTER_IDENTITY", Wrong: "holds no token", Right: "a file with the token of this pod"}
	}
	return &Dialer{
		host: net.JoinHostPort(u.Hostname(), port), bearer: o.Bearer,
		tls: &tls.Config{
			ServerName: u.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(1), // what the agent does opens connections by the dozen
		},
	}, nil
}

// Session is the token of hello: empty before the first connection.
func (d *Dialer) Session() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

// Link connects to the control plane. The error wraps runner.ErrRefused where trying
// again is useless, protocol.ErrProtocol where it is hardly of use.
func (d *Dialer) Link(ctx context.Context) (net.Conn, error) {
	return d.dial(ctx, pathLink)
}

// Egress opens one connection to the allow-list proxy; not before there is a
// session.
func (d *Dialer) Egress(ctx context.Context) (net.Conn, error) {
	return d.dial(ctx, pathEgress)
}

// userTimeout makes the kernel give a connection up whose bytes nobody
// acknowledges.
func userTimeout(_, _ string, rc syscall.RawConn) error {
	var err error
	if e := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// authorization waits as long as the gateway asked to, and says what to show.
func (d *Dialer) authorization(ctx context.Context, path string) (request, error) {
	d.mu.Lock()
	wait := time.Until(d.notYet)
	d.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return request{}, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != "" {
		return request{path: path, auth: "Muster " + d.uid + " " + d.session, name: d.name}, nil
	}
	if path != pathLink {
		return request{}, errors.New("the sandbox is not connected to its control plane")
	}
	return request{path: path, auth: "Bearer " + d.bearer, first: true}, nil
}

type request struct {
	path, auth string
	name       string // of the pod; may be empty
	first      bool   // with the bearer
}

// upgrade asks and reads the answer; at is where, to where it is sent instead.
func (d *Dialer) upgrade(c *tls.Conn, at string, q request) (got net.Conn, to string, err error) {
	head := "GET " + q.path + " HTTP/1.1\r\nHost: " + at + "\r\nConnection: Upgrade\r\nUpgrade: " + upgradeProtocol +
		"\r\nAuthorization: " + q.auth + "\r\n"
	if q.name != "" {
		head += "Muster-Name: " + q.name + "\r\n"
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return nil, "", &unreached{fmt.Errorf("ask the control plane for a stream: %w", err)}
	}
	br := bufio.NewReaderSize(c, 512)
	a, err := readHead(br)
	if err != nil {
		return nil, "", &unreached{fmt.Errorf("answer of the control plane: %w", err)}
	}
	if a.status == 307 {
		to, err = target(a.location, q.path)
		return nil, to, err
	}
	if a.status != 101 {
		text := readText(br)
		return nil, "", d.refused(a, q, text)
	}
	if !strings.EqualFold(a.upgrade, upgradeProtocol) {
		return nil, "", protocol.Violation("the control plane speaks %.100q, not %s", a.upgrade, upgradeProtocol)
	}
	if q.first {
		if !token(a.session) || !token(a.pod) || len(a.session) > maxToken || len(a.pod) > maxToken {
			return nil, "", protocol.Violation("the control plane gave no session")
		}
		d.mu.Lock()
		d.uid, d.session, d.bearer = a.pod, a.session, ""
		if token(a.name) && len(a.name) <= maxToken {
			d.name = a.name
		}
		d.mu.Unlock()
	}
	if br.Buffered() == 0 {
		return c, "", nil
	}
	early, _ := br.Peek(br.Buffered())
	return &stream{Conn: c, early: early}, "", nil
}

// refused turns an answer other than 101 into an error and remembers when to
// come again.
func (d *Dialer) refused(a head, q request, text string) error {
	err := fmt.Errorf("the control plane answered %d: %s", a.status, text)
	switch {
	case a.status == 401 && q.first:
		return fmt.Errorf("%w: %w", runner.ErrRefused, err)
	case a.status >= 400 && a.status < 500:
		return fmt.Errorf("%w: %w", protocol.ErrProtocol, err)
	}
	if s, e := strconv.Atoi(a.retryAfter); e == nil && s > 0 {
		d.mu.Lock()
		d.notYet = time.Now().Add(min(time.Duration(min(s, 3600))*time.Second, longestWait))
		d.mu.Unlock()
	}
	return err
}

// stream is a connection whose first bytes came with the answer's head.
type stream struct {
	*tls.Conn
	early []byte
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.Conn.Read(p)
}
