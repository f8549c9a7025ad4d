package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Options adjust a Proxy; the zero value is ready to use.
type Options struct {
	// OnDeny is told of refused names: "example.com:443", "is not on the allow
	// list (…)". The same name is told of once a minute. May be nil; called
	// from many goroutines, and must not block.
	OnDeny func(hostPort, why string)
	// Resolve looks a name up; default the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Upstream is a proxy (http://[user:password@]host:port) that allowed
	// requests go through; nil: direct. It may itself be private, and it
	// resolves the names. What AllowPrivate names is reached without it.
	Upstream *url.URL
	// MaxConns bounds simultaneous client connections; default 256.
	MaxConns int
	// Idle ends a connection with no byte in either direction; default 10 min.
	Idle   time.Duration
	Logger *slog.Logger
}

// Proxy serves one sandbox.
type Proxy struct {
	policy    Policy
	opts      Options
	server    *http.Server
	transport *http.Transport
	forward   *httputil.ReverseProxy
	sent      atomic.Int64
	received  atomic.Int64
	slots     chan struct{}
	done      chan struct{}
	mu        sync.Mutex
	closed    bool
	conns     map[net.Conn]struct{} // both sides of everything
	told      denials
	denied    atomic.Int64
	wg        sync.WaitGroup
}

// Serve starts a proxy on l, which it owns, and returns at once. n.Mode is not
// looked at. An allow-list that cannot be parsed is an error.
func Serve(l net.Listener, n fleet.Network, o Options) (*Proxy, error) {
	policy, err := ParsePolicy(n)
	if err != nil {
		return nil, err
	}
	if u := o.Upstream; u != nil && (u.Scheme != "http" || u.Port() == "") {
		return nil, &fleet.FieldError{Field: "upstream proxy", Wrong: fmt.Sprintf("%q has no http:// or no port", u.Redacted()), Right: "http://[user:password@]host:port"}
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 256
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	p := &Proxy{policy: policy, opts: o, slots: make(chan struct{}, o.MaxConns), done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.transport = &http.Transport{
		DialContext:        p.dialHTTP,
		DisableCompression: true, // bytes pass as they are
		MaxIdleConns:       16,
		IdleConnTimeout:    30 * time.Second,
		// A slow answer ends with o.Idle; the environment's proxy is never used.
		MaxResponseHeaderBytes: 1 << 20,
		Proxy:                  p.upstreamFor,
	}
	p.forward = &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport:    p.transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { p.fail(w, err) },
		ErrorLog:     slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	p.wg.Go(func() {
		if err := p.server.Serve(&limited{Listener: l, p: p}); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			o.Logger.Warn("egress proxy ended", "error", err)
		}
	})
	return p, nil
}

// Counters returns the bytes sent to and received from outside so far.
func (p *Proxy) Counters() (sent, received int64) { return p.sent.Load(), p.received.Load() }

// Denied returns how many requests were refused so far.
func (p *Proxy) Denied() int64 { return p.denied.Load() }

// Close ends every connection and waits for them. The listener is closed too.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	close(p.done)
	open := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	err := p.server.Close()
	for _, c := range open { // tunnels too, which the server knows nothing of
		_ = c.Close()
	}
	p.transport.CloseIdleConnections()
	p.wg.Wait()
	return err
}

// ServeHTTP answers one request of the sandbox.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.wg.Add(1)
	p.mu.Unlock()
	defer p.wg.Done()
	if r.Method == http.MethodConnect {
		p.connect(w, r)
		return
	}
	if !r.URL.IsAbs() || r.URL.Scheme != "http" || r.URL.Host == "" {
		http.Error(w, "muster: this is a forward proxy: want CONNECT host:port or an absolute http:// address", http.StatusBadRequest)
		return
	}
	host, port, err := splitHostPort(r.URL.Host, 80)
	if err != nil {
		http.Error(w, "muster: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !p.policy.Allows(host, port) {
		p.fail(w, notListed(host, port))
		return
	}
	p.forward.ServeHTTP(w, r)
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := splitHostPort(r.Host, 0)
	if err != nil {
		http.Error(w, "muster: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !p.policy.Allows(host, port) {
		p.fail(w, notListed(host, port))
		return
	}
	out, err := p.dialTunnel(r.Context(), host, port)
	if err != nil {
		p.fail(w, err)
		return
	}
	defer out.Close()
	in, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.fail(w, err)
		return
	}
	defer in.Close()
	_ = in.SetDeadline(time.Time{})
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	p.splice(in, buf.Reader, out)
}

// splice copies both ways until both are done, half-closing as each ends. A
// broken direction ends the other.
func (p *Proxy) splice(in net.Conn, early *bufio.Reader, out net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(out, early, in, out) })
	p.pump(in, out, in, out)
	wg.Wait()
}

func (p *Proxy) pump(dst net.Conn, src io.Reader, a, b net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		// A byte in one direction keeps the other, silent one alive.
		deadline := time.Now().Add(p.opts.Idle)
		_ = a.SetDeadline(deadline)
		_ = b.SetDeadline(deadline)
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = closeWrite(dst)
			return
		default:
			_ = a.Close()
			_ = b.Close()
			return
		}
	}
}

func splitHostPort(s string, fallback uint16) (string, uint16, error) {
	host, ps, err := net.SplitHostPort(s)
	if err != nil {
		if fallback == 0 {
			return "", 0, fmt.Errorf("%q has no port: want host:port", s)
		}
		host = s
		if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
		return normalName(host), fallback, nil
	}
	port, err := strconv.ParseUint(ps, 10, 16)
	if err != nil || port == 0 || host == "" {
		return "", 0, fmt.Errorf("%q is not host:port", s)
	}
	return normalName(host), uint16(port), nil
}
