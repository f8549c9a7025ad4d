//go:build linux

package dialout

import (
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"muster.dev/muster/internal/protocol"
	"muster.dev/muster/internal/runner"
)

// site is processes that answer runners, by a name of the test's own.
type site struct {
	t       *testing.T
	mu      sync.Mutex
	servers map[string]*httptest.Server
	says    map[string]string // their answers; "→x": go to x
	asked   []string
	shown   []string // what was shown to whom
}

func newSite(t *testing.T, names ...string) *site {
	s := &site{t: t, servers: map[string]*httptest.Server{}, says: map[string]string{}}
	for i, name := range names {
		l, err := net.Listen("tcp", "127.0.0."+string(rune('1'+i))+":0")
		if err != nil {
			t.Fatal(err)
		}
		h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(name, w, r) }))
		_ = h.Listener.Close()
		h.Listener = l
		h.StartTLS()
		t.Cleanup(h.Close)
		s.servers[name] = h
	}
	return s
}

func (s *site) answer(name string, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, name)
	s.shown = append(s.shown, r.Header.Get("Authorization")+" "+r.Header.Get("Muster-Name"))
	text := s.says[name]
	s.mu.Unlock()
	if to, ok := strings.CutPrefix(text, "→"); ok {
		text = "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://" + s.address(to) + r.URL.Path + "\r\n\r\n"
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Error(err)
		return
	}
	_, _ = io.WriteString(c, text)
	_ = c.Close()
}

func (s *site) address(name string) string { return s.servers[name].Listener.Addr().String() }

func (s *site) say(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says[name] = text
}

// took returns who was asked since the last call, in order.
func (s *site) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.asked, " ")
	s.asked = nil
	return all
}

func (s *site) dialer(first string) *Dialer {
	s.t.Helper()
	d, err := New(Options{
		Gateway: "https://" + s.address(first), Bearer: "b",
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.servers[first].Certificate().Raw}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// link connects and hangs up; says is what an error must say, empty: none.
func (s *site) link(d *Dialer, says string) error {
	s.t.Helper()
	c, err := d.Link(bounded(s.t))
	switch {
	case err == nil && says == "":
		_ = c.Close()
	case err == nil:
		_ = c.Close()
		s.t.Errorf("connected, want an error that says %q", says)
	case says == "" || !strings.Contains(err.Error(), says):
		s.t.Errorf("%v, want %q", err, says)
	}
	return err
}

const (
	named = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: muster-runner/1\r\nMuster-Pod: u1\r\nMuster-Session: s1\r\nMuster-Name: pod1\r\n\r\n"
	later = "HTTP/1.1 503 Service Unavailable\r\n\r\nlater\n"
)

// TestTheOwnerIsRememberedUntilItFails also shows that the certificate is that of
// the first name: those of this test are for 127.0.0.1 alone.
func TestTheOwnerIsRememberedUntilItFails(t *testing.T) {
	s := newSite(t, "door", "one", "two")
	d := s.dialer("door")
	step := func(what, asked, says string) {
		t.Helper()
		_ = s.link(d, says)
		if got := s.took(); got != asked {
			t.Errorf("%s: asked %q, want %q", what, got, asked)
		}
	}
	s.say("door", "→one")
	s.say("one", named)
	step("the first time", "door one", "")
	step("remembered", "one", "")
	s.say("one", "→two")
	s.say("two", named)
	step("the owner has changed", "one two", "")
	step("remembered again", "two", "")
	s.say("two", later)
	step("the owner does not know it", "two", "503")
	s.say("door", named)
	step("back to the beginning", "door", "")
	step("which is the owner", "door", "")
	s.say("door", "→one")
	s.say("one", named)
	step("sent on again", "door one", "")
	s.servers["one"].Close()
	s.say("door", named)
	step("the owner is gone: at once back to the beginning", "door", "")
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, b, c := s.shown[0], s.shown[1], s.shown[2]; a != "Bearer b " || b != a || c != "Muster u1 s1 pod1" {
		t.Errorf("shown %q, %q, then %q", a, b, c)
	}
}

func TestNoAnswerIsFallenBackFrom(t *testing.T) {
	s := newSite(t, "door", "one")
	d := s.dialer("door")
	s.say("door", "→one")
	s.say("one", named)
	_ = s.link(d, "")
	s.say("one", "") // hangs up
	s.say("door", named)
	_ = s.link(d, "")
	if got := s.took(); got != "door one one door" {
		t.Errorf("asked %q", got)
	}
}

func TestLoopsAreBounded(t *testing.T) {
	s := newSite(t, "door", "one")
	d := s.dialer("door")
	s.say("door", "→one")
	s.say("one", "→door")
	err := s.link(d, "sent this sandbox on 4 times")
	if errors.Is(err, runner.ErrRefused) || errors.Is(err, protocol.ErrProtocol) {
		t.Errorf("%v: it passes when the owner is settled", err)
	}
	if got := s.took(); got != "door one door one" {
		t.Errorf("asked %q", got)
	}
	if d.via != "" || d.Session() != "" {
		t.Errorf("remembered %q", d.via)
	}
}

// TestOnlyTheGatewaysAuthorityIsFollowed: another's certificate gets neither the
// identity nor the runner.
func TestOnlyTheGatewaysAuthorityIsFollowed(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked without TLS") }))
	defer plain.Close()
	s := newSite(t, "door")
	d := s.dialer("door")
	s.say("door", "HTTP/1.1 307 x\r\nLocation: https://"+plain.Listener.Addr().String()+pathLink+"\r\n\r\n")
	_ = s.link(d, "connect to the control plane")
	if d.via != "" {
		t.Errorf("remembered %q", d.via)
	}
}

func TestHostileLocations(t *testing.T) {
	for _, bad := range []string{
		"", "/runner/v1/link", "//h:1/runner/v1/link", "http://h:1/runner/v1/link", "HTTPS://h:1/runner/v1/link", "file:///runner/v1/link",
		"https://h/runner/v1/link", "https://:1/runner/v1/link", "https://h:/runner/v1/link", "https://h:0/runner/v1/link",
		"https://h:65536/runner/v1/link", "https://h:+1/runner/v1/link", "https://u@h:1/runner/v1/link", "https://u:p@h:1/runner/v1/link",
		"https://h:1/runner/v1/egress", "https://h:1/x/../runner/v1/link", "https://h:1//runner/v1/link", "https://h:1/runner/v1/link/",
		"https://h:1/runner/v1/link?x", "https://h:1/runner/v1/link#x", "https://h:1/runner/v1/%6cink", "https://h:1\\@x:1/runner/v1/link",
		"https://h:1?/runner/v1/link", "https://h:1#/runner/v1/link", "https://h%00:1/runner/v1/link", "https://[fe80::1%25eth0]:1/runner/v1/link",
		"https://h h:1/runner/v1/link", "https://h\x1b:1/runner/v1/link", "https://é:1/runner/v1/link", "https://fd00::1:1/runner/v1/link",
	} {
		if at, err := target(bad, pathLink); at != "" || !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%q: %q, %v", bad, at, err)
		}
	}
	for _, good := range []string{"10.1.2.3:7443", "[fd00::1]:7443", "a-b.c.svc:1", "h:65535"} {
		for _, path := range []string{pathLink, pathEgress} {
			if at, err := target("https://"+good+path, path); at != good || err != nil {
				t.Errorf("%q: %q, %v", good, at, err)
			}
		}
	}
	s := newSite(t, "door")
	d := s.dialer("door")
	s.say("door", "HTTP/1.1 307 x\r\nLocation: https://127.0.0.1:1/elsewhere\r\n\r\n")
	if err := s.link(d, "elsewhere"); !errors.Is(err, protocol.ErrProtocol) {
		t.Errorf("%v", err)
	}
}
