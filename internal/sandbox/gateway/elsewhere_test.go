package gateway_test

import (
	"context"
	"crypto/tls"
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

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner/dialout"
	"muster.dev/muster/internal/sandbox/gateway"
)

// owners is who drives the one sandbox of these tests, as the store has it.
type owners struct {
	sandbox fleet.SandboxID
	mu      sync.Mutex
	address string
}

func (o *owners) set(address string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.address = address
}

// consumer is one process: a gateway on an address of its own.
type consumer struct {
	*control
	asked atomic.Int64 // requests
}

// consumer starts a process at host. The certificate is for 127.0.0.1 alone,
// the name that runners know.
func (o *owners) consumer(t *testing.T, host string) *consumer {
	t.Helper()
	c := &consumer{control: &control{t: t}}
	cert, ca := certificate(t)
	c.ca = ca
	c.gateway = gateway.New(gateway.Options{
		Key: key,
		Verify: func(_ context.Context, given string) (gateway.Identity, error) {
			c.verified.Add(1)
			if given != bearer {
				return gateway.Identity{}, fleet.ErrDenied
			}
			return gateway.Identity{Namespace: "agents", Pod: string(o.sandbox), UID: podUID}, nil
		},
		Peers: func(_ context.Context, id gateway.Identity) (gateway.Peer, error) {
			c.asked.Add(1)
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.peer == nil {
				return nil, fleet.ErrUnavailable
			}
			return c.peer, nil
		},
		Elsewhere: func(_ context.Context, id fleet.SandboxID) (string, bool) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.address, id == o.sandbox && o.address != c.addr
		},
	})
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	c.server = c.gateway.Server(&tls.Config{Certificates: []tls.Certificate{cert}})
	c.served = make(chan error, 1)
	go func() { c.served <- c.server.ServeTLS(l, "", "") }()
	t.Cleanup(c.stop)
	return c
}

func newOwners() *owners { return &owners{sandbox: fleet.NewSandboxID(time.Now())} }

// TestRunnerIsSentToTheOwner: link and egress reach the owner by way of another
// process, and the next connections without it.
func TestRunnerIsSentToTheOwner(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	o := newOwners()
	door, owner := o.consumer(t, "127.0.0.1"), o.consumer(t, "127.0.0.2")
	o.set(owner.addr)
	s := owner.sandbox(&fleet.Network{AllowPrivate: []string{host}})
	defer s.close()
	d, err := dialout.New(dialout.Options{Gateway: "https://" + door.addr, CA: door.ca, Bearer: bearer})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		c, err := d.Link(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n == 0 { // the runner speaks first: its identity is used now
			if _, err := c.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
		}
		page(t, d, host)
	}
	if n := door.asked.Load(); n != 1 {
		t.Errorf("%d requests to a process that does not drive the sandbox, want the first alone", n)
	}
	if a, b := door.verified.Load(), owner.verified.Load(); a != 1 || b != 1 {
		t.Errorf("the identity was verified %d and %d times, want once by each", a, b)
	}
}

// page asks for a page by way of the proxy.
func page(t *testing.T, d *dialout.Dialer, host string) {
	t.Helper()
	out, err := d.Egress(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	_ = out.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(out, "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(out); err != nil || !strings.Contains(string(got), "page") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestEgressIsSentToTheOwner: the first thing that fails over may be a connection
// of the agent's, at a process that never saw the runner.
func TestEgressIsSentToTheOwner(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	o := newOwners()
	door, owner := o.consumer(t, "127.0.0.1"), o.consumer(t, "127.0.0.2")
	o.set(door.addr)
	network := &fleet.Network{AllowPrivate: []string{host}}
	first := door.sandbox(network)
	d, err := dialout.New(dialout.Options{Gateway: "https://" + door.addr, CA: door.ca, Bearer: bearer})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Link(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first.close()
	door.set(nil, nil)
	second := owner.sandbox(network)
	defer second.close()
	o.set(owner.addr)
	page(t, d, host)
	page(t, d, host)
	if n := owner.verified.Load(); n != 0 {
		t.Errorf("%d verifications; a session is enough for every process", n)
	}
}

// TestTheOwnerChanges: a task goes on through owners that let it go, and that
// die.
func TestTheOwnerChanges(t *testing.T) {
	o := newOwners()
	door := o.consumer(t, "127.0.0.1")
	one, two, three := o.consumer(t, "127.0.0.2"), o.consumer(t, "127.0.0.3"), o.consumer(t, "127.0.0.4")
	o.set(one.addr)
	s := one.sandbox(nil)
	door.run(nil)
	if err := s.s.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	a, out := assign("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.1; done"), newSink()
	if err := s.s.Claim(bounded(t), a, out); err != nil {
		t.Fatal(err)
	}
	<-out.lines
	owner := one
	for _, next := range []*consumer{two, three, door} { // the last is the runner's first address
		o.set(next.addr)
		owner.set(nil, nil)
		if owner == two { // dies, instead of sending the runner on
			owner.stop()
		}
		s.close()
		s = next.sandbox(nil)
		if task, fence, alive := s.s.Held(bounded(t)); task != a.Task || fence != a.Fence || !alive {
			t.Fatalf("held %q/%d, alive %v", task, fence, alive)
		}
		if err := s.s.Claim(bounded(t), a, out); err != nil {
			t.Fatal(err)
		}
		owner = next
	}
	defer s.close()
	var want strings.Builder
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if r, log := out.finish(t); r.Reason != fleet.ReasonNone || log != want.String() {
		t.Errorf("%+v, %q", r, log)
	}
}

// TestOnlyWhoIsKnownIsSentOn: nobody learns an address without an identity or a
// session, and what is no address is nobody's.
func TestOnlyWhoIsKnownIsSentOn(t *testing.T) {
	o := newOwners()
	door := o.consumer(t, "127.0.0.1")
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, //nolint:gosec // what the gateway says is tested here
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	session := "Muster " + podUID + " " + door.gateway.Session(podUID)
	own := string(o.sandbox)
	for _, c := range []struct {
		what, path, auth, name, owner string
		status                        int
	}{
		{"the identity", gateway.PathLink, "Bearer " + bearer, "", "10.1.2.3:7443", 307},
		{"the identity again", gateway.PathLink, "Bearer " + bearer, "", "10.1.2.3:7443", 307},
		{"the session", gateway.PathLink, session, own, "10.1.2.3:7443", 307},
		{"the session, egress", gateway.PathEgress, session, own, "[fd00::1]:7443", 307},
		{"the identity after the session", gateway.PathLink, "Bearer " + bearer, "", "10.1.2.3:7443", 401},
		{"another identity", gateway.PathLink, "Bearer x", own, "10.1.2.3:7443", 401},
		{"another session", gateway.PathLink, session + "x", own, "10.1.2.3:7443", 401},
		{"no name", gateway.PathLink, session, "", "10.1.2.3:7443", 503},
		{"a name that is none", gateway.PathLink, session, own + "/../x", "10.1.2.3:7443", 503},
		{"no owner", gateway.PathLink, session, own, door.addr, 503},
		{"no address", gateway.PathLink, session, own, "10.1.2.3", 503},
		{"an address with more", gateway.PathLink, session, own, "u@10.1.2.3:7443", 503},
		{"a line too many", gateway.PathLink, session, own, "10.1.2.3:7443\r\nX: y", 503},
	} {
		o.set(c.owner)
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+door.addr+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {gateway.Protocol}, "Authorization": {c.auth}}
		if c.name != "" {
			q.Header.Set("Muster-Name", c.name)
		}
		r, err := client.Do(q)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		_ = r.Body.Close()
		want := ""
		if c.status == http.StatusTemporaryRedirect {
			want = "https://" + c.owner + c.path
		}
		if r.StatusCode != c.status || r.Header.Get("Location") != want {
			t.Errorf("%s: %d to %q, want %d to %q", c.what, r.StatusCode, r.Header.Get("Location"), c.status, want)
		}
	}
}
