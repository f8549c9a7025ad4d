package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
)

// taker is a Peer that hands connections to the test.
type taker struct{ links, egresses *Listener }

func (p taker) Link(c net.Conn) error { return p.links.Deliver(c) }
func (p taker) Egress(c net.Conn) error {
	if p.egresses == nil {
		return fleet.ErrDenied
	}
	return p.egresses.Deliver(c)
}

func testGateway(peer Peer) *Gateway {
	return New(Options{
		Key: make([]byte, keyBytes),
		Verify: func(_ context.Context, bearer string) (Identity, error) {
			switch uid, ok := strings.CutPrefix(bearer, "token-of-"); {
			case ok:
				return Identity{Namespace: "n", Pod: "p", UID: uid}, nil
			case bearer == "outage":
				return Identity{}, fleet.ErrUnavailable
			}
			return Identity{}, fleet.ErrDenied
		},
		Peers: func(_ context.Context, id Identity) (Peer, error) {
			if !strings.HasPrefix(id.UID, "ours") {
				return nil, fleet.ErrNotFound
			}
			return peer, nil
		},
	})
}

// ask sends a request by hand and returns the connection behind the answer.
func ask(t *testing.T, s *httptest.Server, path, auth string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	return askRaw(t, s, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: "+Protocol+"\r\nAuthorization: "+auth+"\r\n\r\n")
}

func askRaw(t *testing.T, s *httptest.Server, head string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, c, br
}

func TestRefusals(t *testing.T) {
	g := testGateway(taker{links: NewListener()})
	s := httptest.NewServer(g)
	defer s.Close()
	good := "Muster ours " + g.Session("ours")
	for _, c := range []struct {
		name, head string
		status     int
	}{
		{"another path", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 404},
		{"another method", "POST " + PathLink + " HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		{"no upgrade", "GET " + PathLink + " HTTP/1.1\r\nHost: x\r\nAuthorization: " + good + "\r\n\r\n", 426},
		{"another protocol", "GET " + PathLink + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 426},
		{"a body", "GET " + PathLink + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + Protocol + "\r\nContent-Length: 1\r\n\r\nx", 426},
		{"HTTP/1.0", "GET " + PathLink + " HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n", 426},
		{"nobody", "GET " + PathLink + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n", 401},
		{"two", "GET " + PathLink + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + Protocol + "\r\nAuthorization: " + good + "\r\nAuthorization: " + good + "\r\n\r\n", 401},
	} {
		if r, _, _ := askRaw(t, s, c.head); r.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, r.StatusCode, c.status)
		}
	}
	for _, c := range []struct {
		name, path, auth string
		status           int
	}{
		{"unknown scheme", PathLink, "Basic eDp5", 401},
		{"unknown bearer", PathLink, "Bearer x", 401},
		{"empty bearer", PathLink, "Bearer ", 401},
		{"huge bearer", PathLink, "Bearer " + strings.Repeat("x", maxBearer+1), 401},
		{"bearer for egress", PathEgress, "Bearer token-of-ours", 401},
		{"wrong session", PathLink, "Muster ours " + g.Session("other"), 401},
		{"session cut", PathLink, strings.TrimSuffix(good, good[len(good)-1:]), 401},
		{"no session", PathLink, "Muster ours", 401},
		{"a huge uid", PathLink, "Muster " + strings.Repeat("u", maxUID+1) + " x", 401},
		{"no sandbox", PathLink, "Bearer token-of-stranger", 404},
		{"no sandbox any more", PathLink, "Muster gone " + g.Session("gone"), 404},
		{"no network", PathEgress, good, 403},
		{"outage", PathLink, "Bearer outage", 503},
	} {
		r, _, br := ask(t, s, c.path, c.auth)
		if r.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, r.StatusCode, c.status)
		}
		if (r.Header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s: Retry-After %q", c.name, r.Header.Get("Retry-After"))
		}
		body, _ := io.ReadAll(r.Body)
		if rest, err := io.ReadAll(br); len(body) == 0 || len(rest) > 0 || err != nil {
			t.Errorf("%s: %q, then %q %v", c.name, body, rest, err)
		}
	}
}

// TestBearerIsGoodOnce: again only while its runner never got the session.
func TestBearerIsGoodOnce(t *testing.T) {
	l := NewListener()
	defer l.Close()
	g := testGateway(taker{links: l})
	s := httptest.NewServer(g)
	defer s.Close()
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for i := range 2 { // the answer to the first is lost
		r, c, _ := ask(t, s, PathLink, "Bearer token-of-ours")
		if r.StatusCode != 101 || r.Header.Get("Muster-Session") != g.Session("ours") || r.Header.Get("Muster-Pod") != "ours" {
			t.Fatalf("time %d: %d %v", i, r.StatusCode, r.Header)
		}
		in := accept()
		if i == 0 {
			_ = c.Close()
			_ = in.Close()
			continue
		}
		go func() { _, _ = c.Write([]byte("hello")) }()
		if _, err := in.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
	}
	if r, _, _ := ask(t, s, PathLink, "Bearer token-of-ours"); r.StatusCode != 401 {
		t.Errorf("after the runner spoke: %d", r.StatusCode)
	}
	r, _, _ := ask(t, s, PathLink, "Muster ours "+g.Session("ours"))
	if r.StatusCode != 101 || r.Header.Get("Muster-Session") != "" {
		t.Errorf("with the session: %d %v", r.StatusCode, r.Header)
	}
	_ = accept().Close()

	r, _, _ = ask(t, s, PathLink, "Muster ours2 "+g.Session("ours2"))
	if r.StatusCode != 101 {
		t.Errorf("a session of a process before: %d", r.StatusCode)
	}
	_ = accept().Close()
	if r, _, _ := ask(t, s, PathLink, "Bearer token-of-ours2"); r.StatusCode != 401 {
		t.Errorf("a bearer whose session was shown: %d", r.StatusCode)
	}
	g.Forget("ours2")
	if g.used.has("ours2") {
		t.Error("not forgotten")
	}
}

func TestUsedIsRememberedForADay(t *testing.T) {
	now := time.Unix(0, 0)
	u := newUsage(func() time.Time { return now })
	u.mark("a")
	for _, c := range []struct {
		at   time.Duration
		want bool
	}{{0, true}, {usageKept, true}, {usageKept + time.Hour, true}, {2 * usageKept, false}} {
		if now = time.Unix(0, 0).Add(c.at); u.has("a") != c.want {
			t.Errorf("after %s: %v", c.at, !c.want)
		}
	}
}

// TestVerificationIsBounded: no more at once than the bound, and who waits too
// long or in too long a line comes again.
func TestVerificationIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGateway(taker{links: NewListener()})
		var mu sync.Mutex
		now, most := 0, 0
		g.o.Verify = func(ctx context.Context, _ string) (Identity, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			now--
			mu.Unlock()
			return Identity{}, ctx.Err()
		}
		kinds := map[string]int{}
		var wg sync.WaitGroup
		for range waiting + 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
				defer cancel()
				_, err := g.verify(ctx, "x")
				mu.Lock()
				defer mu.Unlock()
				if asAnswer(err) != later {
					t.Errorf("%v", err)
				}
				switch {
				case errors.Is(err, fleet.ErrFull):
					kinds["line"]++
				case errors.Is(err, fleet.ErrUnavailable):
					kinds["waited"]++
				default:
					kinds["asked"]++
				}
			})
		}
		wg.Wait()
		if most != verifying || kinds["line"] != 100 || kinds["asked"]+kinds["waited"] != waiting {
			t.Errorf("%d at once, %v", most, kinds)
		}
	})
}

func TestCrowd(t *testing.T) {
	c := &crowd{all: 5, each: 2, of: map[string]int{}, known: map[net.Conn]string{}}
	from := func(host string) net.Conn { return &addressed{host: host} }
	a, b := from("10.0.0.1"), from("10.0.0.1")
	c.state(a, http.StateNew)
	c.state(b, http.StateNew)
	third := from("10.0.0.1").(*addressed)
	if c.state(third, http.StateNew); !third.closed {
		t.Error("a third connection of one address")
	}
	c.state(third, http.StateClosed)
	c.state(a, http.StateHijacked)
	if d := from("10.0.0.1"); true {
		if c.state(d, http.StateNew); d.(*addressed).closed {
			t.Error("a stream counts still")
		}
	}
	for i := range 10 {
		c.state(from(fmt.Sprint("10.0.1.", i)), http.StateNew)
	}
	if len(c.known) != 5 {
		t.Errorf("%d connections, want 5", len(c.known))
	}
}

type addressed struct {
	net.Conn
	host   string
	closed bool
}

func (a *addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.host), Port: 1} }
func (a *addressed) Close() error         { a.closed = true; return nil }

func TestListener(t *testing.T) {
	l := NewListener()
	var far []net.Conn
	for i := range backlog + 1 {
		a, b := net.Pipe()
		far = append(far, b)
		err := l.Deliver(a)
		if (i < backlog) != (err == nil) || err != nil && !errors.Is(err, fleet.ErrFull) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if c, err := l.Accept(); err != nil || c == nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := far[1].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection nobody accepted is open: %v", err)
	}
	if err := l.Deliver(far[0]); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestTokenReviews(t *testing.T) {
	pod := map[string]authv1.ExtraValue{extraPod: {"s1"}, extraUID: {"u1"}}
	ok := authv1.TokenReviewStatus{Authenticated: true, Audiences: []string{Audience}, User: authv1.UserInfo{Username: "system:serviceaccount:agents:sandbox", Extra: pod}}
	with := func(f func(*authv1.TokenReviewStatus)) authv1.TokenReviewStatus { s := ok; f(&s); return s }
	for _, c := range []struct {
		name   string
		status authv1.TokenReviewStatus
		err    error
		want   error
	}{
		{"good", ok, nil, nil},
		{"unknown", authv1.TokenReviewStatus{Error: "expired"}, nil, fleet.ErrDenied},
		{"another audience", with(func(s *authv1.TokenReviewStatus) { s.Audiences = []string{"api"} }), nil, fleet.ErrDenied},
		{"no audience", with(func(s *authv1.TokenReviewStatus) { s.Audiences = nil }), nil, fleet.ErrDenied},
		{"a person", with(func(s *authv1.TokenReviewStatus) { s.User.Username = "root" }), nil, fleet.ErrDenied},
		{"half a name", with(func(s *authv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:agents" }), nil, fleet.ErrDenied},
		{"no pod", with(func(s *authv1.TokenReviewStatus) { s.User.Extra = nil }), nil, fleet.ErrDenied},
		{"two pods", with(func(s *authv1.TokenReviewStatus) {
			s.User.Extra = map[string]authv1.ExtraValue{extraPod: {"a", "b"}, extraUID: {"u"}}
		}), nil, fleet.ErrDenied},
		{"no right", ok, apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", errors.New("rbac")), fleet.ErrUnavailable},
		{"outage", ok, errors.New("connection refused"), fleet.ErrUnavailable},
	} {
		cs := fake.NewClientset()
		cs.PrependReactor("create", "tokenreviews", func(a k8stesting.Action) (bool, runtime.Object, error) {
			r := a.(k8stesting.CreateAction).GetObject().(*authv1.TokenReview)
			if len(r.Spec.Audiences) != 1 || r.Spec.Audiences[0] != Audience || r.Spec.Token != "tok" {
				t.Errorf("%s: asked for %+v", c.name, r.Spec)
			}
			return true, &authv1.TokenReview{Status: c.status}, c.err
		})
		id, err := TokenReviews(cs)(t.Context(), "tok")
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && id != (Identity{Namespace: "agents", Pod: "s1", UID: "u1"}) {
			t.Errorf("%s: %+v", c.name, id)
		}
	}
}
