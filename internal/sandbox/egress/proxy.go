package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Options adjust a Proxy; the zero value is ready to use.
type Options struct {
	// OnDeny is told of every refused request; may be nil. Called from many
	// goroutines.
	OnDeny func(hostPort, why string)
	// Resolve looks a name up; default the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Upstream is a proxy (http://[user:password@]host:port) all allowed
	// requests go through; nil: direct. The upstream itself may be private; the
	// names it resolves are its own responsibility.
	Upstream *url.URL
	// MaxConns bounds simultaneous client connections; default 256.
	MaxConns int
	// Idle ends a tunnel with no byte in either direction; default 10 min.
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
	tunnels   map[net.Conn]struct{}
	wg        sync.WaitGroup
}

// errDenied is a refusal by policy; its text is what the client reads.
type errDenied struct{ text string }

func (e *errDenied) Error() string { return e.text }

// Serve starts a proxy on l, which it owns, and returns at once. n.Mode is not
// looked at. An allow-list that cannot be parsed is an error.
func Serve(l net.Listener, n fleet.Network, o Options) (*Proxy, error) {
	policy, err := ParsePolicy(n)
	if err != nil {
		return nil, err
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
	p := &Proxy{policy: policy, opts: o, slots: make(chan struct{}, o.MaxConns), done: make(chan struct{}), tunnels: map[net.Conn]struct{}{}}
	p.transport = &http.Transport{
		DialContext:           p.dialHTTP,
		DisableCompression:    true, // bytes pass as they are
		MaxIdleConns:          16,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
		Proxy:                 nil,
	}
	if o.Upstream != nil {
		p.transport.Proxy = http.ProxyURL(o.Upstream)
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
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		if err := p.server.Serve(&limited{Listener: l, p: p}); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			o.Logger.Warn("egress proxy ended", "error", err)
		}
	}()
	return p, nil
}

// Counters returns the bytes sent to and received from outside so far.
func (p *Proxy) Counters() (sent, received int64) { return p.sent.Load(), p.received.Load() }

// Close ends every connection and waits for them.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	for c := range p.tunnels {
		_ = c.Close() // ends its copier
	}
	p.mu.Unlock()
	err := p.server.Close()
	p.transport.CloseIdleConnections()
	p.wg.Wait()
	return err
}

// ServeHTTP answers one request of the sandbox.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
		p.fail(w, p.notListed(host, port))
		return
	}
	p.forward.ServeHTTP(w, r)
}

func (p *Proxy) notListed(host string, port uint16) error {
	hp := net.JoinHostPort(host, strconv.Itoa(int(port)))
	return &errDenied{fmt.Sprintf("%s is not on the allow list (network.allow of the task or spec.templates[].network.allow of the fleet)", hp)}
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := splitHostPort(r.Host, 0)
	if err != nil {
		http.Error(w, "muster: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !p.policy.Allows(host, port) {
		p.fail(w, p.notListed(host, port))
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
	if !p.track(in, out) {
		return
	}
	defer p.untrack(in, out)
	_ = in.SetDeadline(time.Time{})
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	p.splice(in, buf.Reader, out)
}

// splice copies both ways until both are done, half-closing as each ends.
func (p *Proxy) splice(in net.Conn, early *bufio.Reader, out net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		p.pump(out, early, in, out)
		closeWrite(out)
	})
	p.pump(in, out, in, out)
	closeWrite(in)
	wg.Wait()
}

func (p *Proxy) pump(dst io.Writer, src io.Reader, a, b net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		deadline := time.Now().Add(p.opts.Idle)
		_ = a.SetReadDeadline(deadline)
		_ = b.SetReadDeadline(deadline)
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func closeWrite(c net.Conn) {
	if m, ok := c.(*metered); ok {
		c = m.Conn
	}
	if hc, ok := c.(interface{ CloseWrite() error }); ok {
		_ = hc.CloseWrite()
		return
	}
	_ = c.Close()
}

func (p *Proxy) fail(w http.ResponseWriter, err error) {
	var denied *errDenied
	if errors.As(err, &denied) {
		if p.opts.OnDeny != nil {
			p.opts.OnDeny(denied.text, "denied")
		}
		http.Error(w, "muster: "+denied.text, http.StatusForbidden)
		return
	}
	http.Error(w, "muster: "+err.Error(), http.StatusBadGateway)
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
