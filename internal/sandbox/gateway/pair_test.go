package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/runner/dialout"
	"muster.dev/muster/internal/sandbox/egress"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = []byte("0123456789abcdef0123456789abcdef")

// control is a control plane: a gateway on a port, and one sandbox.
type control struct {
	t        testing.TB
	addr     string
	ca       []byte
	server   *http.Server
	gateway  *gateway.Gateway
	served   chan error
	verified atomic.Int64

	mu   sync.Mutex
	peer gateway.Peer
	fail error // of Peers
}

// certificate lends httptest's own, which is for 127.0.0.1.
func certificate(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.StartTLS()
	defer s.Close()
	return s.TLS.Certificates[0], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

const (
	podUID = "0d1ce0de-0000-4000-8000-000000000001"
	bearer = "header.claims.signature"
)

func newControl(t testing.TB) *control {
	c := &control{t: t, addr: "127.0.0.1:0"}
	t.Cleanup(c.stop)
	return c
}

// start begins, or begins again as a fresh process would.
func (c *control) start() *control {
	c.t.Helper()
	cert, ca := certificate(c.t)
	c.ca = ca
	c.gateway = gateway.New(gateway.Options{
		Key: key,
		Verify: func(_ context.Context, given string) (gateway.Identity, error) {
			c.verified.Add(1)
			if given != bearer {
				return gateway.Identity{}, fmt.Errorf("%w: unknown", fleet.ErrDenied)
			}
			return gateway.Identity{Namespace: "agents", Pod: "s1", UID: podUID}, nil
		},
		Peers: func(_ context.Context, id gateway.Identity) (gateway.Peer, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case c.fail != nil:
				return nil, c.fail
			case id.UID != podUID || c.peer == nil:
				return nil, fleet.ErrNotFound
			}
			return c.peer, nil
		},
	})
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = l.Addr().String()
	c.server = c.gateway.Server(&tls.Config{Certificates: []tls.Certificate{cert}})
	c.served = make(chan error, 1)
	go func() { c.served <- c.server.ServeTLS(l, "", "") }()
	return c
}

func (c *control) stop() {
	if c.server != nil {
		_ = c.server.Close()
		<-c.served
		c.server = nil
	}
}

func (c *control) set(p gateway.Peer, fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.fail = p, fail
}

// sandbox is the control plane's end of one: what sandbox/kube has for each.
type sandbox struct {
	links, egresses *gateway.Listener // egresses is nil where nothing is allowed
	s               *link.Session
	proxy           *egress.Proxy
}

func (s *sandbox) Link(c net.Conn) error { return s.links.Deliver(c) }
func (s *sandbox) Egress(c net.Conn) error {
	if s.egresses == nil {
		return fleet.ErrDenied
	}
	return s.egresses.Deliver(c)
}

func (c *control) sandbox(n *fleet.Network) *sandbox {
	c.t.Helper()
	s := &sandbox{links: gateway.NewListener()}
	s.s = link.Serve(s.links, link.Options{Token: c.gateway.Session(podUID), Startup: time.Minute})
	if n != nil {
		s.egresses = gateway.NewListener()
		p, err := egress.Serve(s.egresses, *n, egress.Options{})
		if err != nil {
			c.t.Fatal(err)
		}
		s.proxy = p
	}
	c.set(s, nil)
	return s
}

func (s *sandbox) close() {
	_ = s.s.Close()
	if s.proxy != nil {
		_ = s.proxy.Close()
	}
}

// run starts a runner in this process; it ends with the test.
func (c *control) run(change func(*runner.Config, *dialout.Dialer)) {
	c.t.Helper()
	d, err := dialout.New(dialout.Options{Gateway: "https://" + c.addr, CA: c.ca, Bearer: bearer})
	if err != nil {
		c.t.Fatal(err)
	}
	dir := c.t.TempDir()
	conf := runner.Config{
		Token: d.Session, UID: -1, GID: -1, Workspace: dir, Home: dir, Temp: dir,
		Dial:         func(ctx context.Context) (io.ReadWriteCloser, error) { return d.Link(ctx) },
		LongestPause: 200 * time.Millisecond,
	}
	if change != nil {
		change(&conf, d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx, conf) }()
	c.t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			c.t.Error("the runner does not end")
		}
	})
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// sink keeps the log.
type sink struct {
	mu    sync.Mutex
	log   bytes.Buffer
	lines chan struct{} // closed at the first byte of the agent
	once  sync.Once
	ended chan struct{}
	rep   fleet.RunReport
	lost  error
}

func newSink() *sink { return &sink{lines: make(chan struct{}), ended: make(chan struct{})} }

func (s *sink) LogOffset() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.log.Len())
}

func (s *sink) Log(offset int64, _ time.Time, _ fleet.Stream, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := int64(s.log.Len())
	if offset > have {
		return fmt.Errorf("gap: log at %d, have %d", offset, have)
	}
	s.log.Write(data[min(have-offset, int64(len(data))):])
	s.once.Do(func() { close(s.lines) })
	return nil
}
func (s *sink) Phase(fleet.TaskState, time.Time) error { return nil }
func (s *sink) Patch(_ int64, r io.Reader) error       { _, err := io.Copy(io.Discard, r); return err }
func (s *sink) Artifact(_ fleet.Artifact, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
func (s *sink) Done(r fleet.RunReport) error { s.rep = r; close(s.ended); return nil }
func (s *sink) Lost(err error)               { s.lost = err; close(s.ended) }

func (s *sink) finish(t testing.TB) (fleet.RunReport, string) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(60 * time.Second):
		t.Fatal("the task did not end")
	}
	if s.lost != nil {
		t.Fatalf("lost: %v", s.lost)
	}
	return s.rep, s.log.String()
}

func assign(command ...string) fleet.Assignment {
	return fleet.Assignment{Task: "t1", Fence: 7, Command: command, LogBytes: 1 << 30}
}

func TestTaskOverTheGateway(t *testing.T) {
	c := newControl(t).start()
	s := c.sandbox(nil)
	defer s.close()
	c.run(nil)
	if err := s.s.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	out := newSink()
	if err := s.s.Claim(bounded(t), assign("sh", "-c", "echo hello; head -c 1000000 /dev/zero | tr '\\0' x"), out); err != nil {
		t.Fatal(err)
	}
	if r, log := out.finish(t); r.Reason != fleet.ReasonNone || len(log) != 1000006 || !strings.HasPrefix(log, "hello\n") {
		t.Errorf("%+v, %d bytes", r, len(log))
	}
	if n := c.verified.Load(); n != 1 {
		t.Errorf("%d verifications, want 1", n)
	}
}

// TestControlPlaneIsReplaced: the process goes, with all it knew of who had
// connected, and another one with the same key takes the sandbox over.
func TestControlPlaneIsReplaced(t *testing.T) {
	c := newControl(t).start()
	s := c.sandbox(nil)
	said := make(chan string, 100)
	c.run(func(r *runner.Config, _ *dialout.Dialer) { r.Disconnected = func(err error) { said <- err.Error() } })
	if err := s.s.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	a, out := assign("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.1; done"), newSink()
	if err := s.s.Claim(bounded(t), a, out); err != nil {
		t.Fatal(err)
	}
	<-out.lines
	for range 2 {
		c.stop()
		s.close()
		<-said
		c.set(nil, fleet.ErrUnavailable) // it does not know its sandboxes yet
		c.start()
		for text := range said {
			if strings.Contains(text, "answered 503") {
				break
			}
		}
		s = c.sandbox(nil)
		task, fence, alive := s.s.Held(bounded(t))
		if task != a.Task || fence != a.Fence || !alive {
			t.Fatalf("held %q/%d, alive %v", task, fence, alive)
		}
		if err := s.s.Claim(bounded(t), a, out); err != nil {
			t.Fatal(err)
		}
	}
	defer s.close()
	var want strings.Builder
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if r, log := out.finish(t); r.Reason != fleet.ReasonNone || log != want.String() {
		t.Errorf("%+v, %q", r, log)
	}
	if n := c.verified.Load(); n != 1 {
		t.Errorf("%d verifications, want 1: a session is enough for the next process", n)
	}
}

// TestEgress leads a connection of the sandbox to the allow-list proxy.
func TestEgress(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	c := newControl(t).start()
	s := c.sandbox(&fleet.Network{AllowPrivate: []string{host}})
	defer s.close()
	c.run(func(r *runner.Config, d *dialout.Dialer) { r.Proxy = d.Egress })
	if err := s.s.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	out := newSink()
	if err := s.s.Claim(bounded(t), assign("sh", "-c", "echo $HTTP_PROXY; sleep 60"), out); err != nil {
		t.Fatal(err)
	}
	<-out.lines
	out.mu.Lock()
	proxy := strings.TrimPrefix(strings.TrimSpace(out.log.String()), "http://")
	out.mu.Unlock()
	for _, ask := range []struct{ line, want string }{
		{"GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "page"},
		{"CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "page"},
		{"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nConnection: close\r\n\r\n", "403 Forbidden"},
	} {
		nc, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(nc, ask.line)
		got, err := io.ReadAll(nc)
		if err != nil || !strings.Contains(string(got), ask.want) {
			t.Errorf("%q: %q %v", ask.line, got, err)
		}
		_ = nc.Close()
	}
	if err := s.s.Stop(bounded(t), fleet.ReasonCancelled, time.Second); err != nil {
		t.Fatal(err)
	}
	out.finish(t)
}

// TestRunnerIsToldNo: what ends a runner and what does not.
func TestRunnerIsToldNo(t *testing.T) {
	c := newControl(t).start()
	d, err := dialout.New(dialout.Options{Gateway: "https://" + c.addr, CA: c.ca, Bearer: "somebody.elses.token"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = runner.Run(bounded(t), runner.Config{
		Token: d.Session, UID: -1, GID: -1, Workspace: dir, Home: dir,
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) { return d.Link(ctx) },
	})
	if !errors.Is(err, runner.ErrRefused) || !strings.Contains(err.Error(), "identity of this sandbox is not valid") {
		t.Errorf("wrong identity: %v", err)
	}

	d, _ = dialout.New(dialout.Options{Gateway: "https://" + c.addr, CA: c.ca, Bearer: bearer})
	if _, err := d.Link(bounded(t)); err == nil || errors.Is(err, runner.ErrRefused) || !strings.Contains(err.Error(), "404") {
		t.Errorf("a pod not known yet: %v", err)
	}
	if _, err := d.Egress(bounded(t)); err == nil {
		t.Error("egress before there is a session")
	}

	d, _ = dialout.New(dialout.Options{Gateway: "https://localhost:" + strings.Split(c.addr, ":")[1], CA: c.ca, Bearer: bearer})
	if _, err := d.Link(bounded(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a gateway with another name: %v", err)
	}
}
