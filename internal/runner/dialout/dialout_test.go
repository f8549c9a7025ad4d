//go:build linux

package dialout

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
	"muster.dev/muster/internal/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering is a gateway that says the same to everybody, over TLS.
func answering(t *testing.T, answer string) *Dialer {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, answer)
		_ = c.Close()
	}))
	t.Cleanup(s.Close)
	d, err := New(Options{Gateway: s.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), Bearer: "b"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: muster-runner/1\r\nMuster-Pod: u1\r\nMuster-Session: s1\r\n\r\n"

func TestWhatComesWithTheHeadIsKept(t *testing.T) {
	d := answering(t, switching+"early bytes")
	c, err := d.Link(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "early bytes" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if d.Session() != "s1" || d.bearer != "" {
		t.Errorf("session %q, bearer %q", d.Session(), d.bearer)
	}
	if q, err := d.authorization(t.Context(), pathEgress); q.auth != "Muster u1 s1" || q.first || err != nil {
		t.Errorf("%+v %v", q, err)
	}
}

func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", maxHead)
	for _, c := range []struct {
		answer string
		is     error // nil: any other
		says   string
	}{
		{"HTTP/1.1 401 Unauthorized\r\n\r\nnot valid\n", runner.ErrRefused, "answered 401: not valid"},
		{"HTTP/1.1 404 Not Found\r\n\r\n", protocol.ErrProtocol, "404"},
		{"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\nlater\x1b[31m", nil, "answered 503: later [31m"},
		{"HTTP/1.1 500 Internal Server Error\r\n\r\n", nil, "500"},
		{"HTTP/1.1 200 OK\r\n\r\n", nil, "200"},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", protocol.ErrProtocol, "websocket"},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: muster-runner/1\r\n\r\n", protocol.ErrProtocol, "no session"},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: muster-runner/1\r\nMuster-Pod: u\r\nMuster-Session: a b\r\n\r\n", protocol.ErrProtocol, "no session"},
		{"SSH-2.0-x\r\n\r\n", protocol.ErrProtocol, "no answer of a gateway"},
		{"HTTP/1.1 101 " + long + "\r\n\r\n", protocol.ErrProtocol, "more than"},
		{"HTTP/1.1 101 x\r\nnocolon\r\n\r\n", protocol.ErrProtocol, "header"},
		{"HTTP/1.1 1", io.ErrUnexpectedEOF, ""},
		{"", io.ErrUnexpectedEOF, ""},
	} {
		got, err := answering(t, c.answer).Link(bounded(t))
		if err == nil || got != nil {
			t.Errorf("%.40q was taken", c.answer)
			continue
		}
		for _, kind := range []error{runner.ErrRefused, protocol.ErrProtocol, io.ErrUnexpectedEOF} {
			if is := errors.Is(err, kind); is != (c.is == kind) { //nolint:errorlint // of the list above
				t.Errorf("%.40q: %v; is %v: %v", c.answer, err, kind, is)
			}
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v", c.answer, err)
		}
	}
}

// TestRetryAfter: the next connection waits as long as asked, within a bound.
func TestRetryAfter(t *testing.T) {
	for said, want := range map[string]time.Duration{"": 0, "x": 0, "-3": 0, "2": 2 * time.Second, "86400": longestWait} {
		synctest.Test(t, func(t *testing.T) {
			d := &Dialer{bearer: "b"}
			if err := d.refused(head{status: 503, retryAfter: said}, request{}, ""); err == nil {
				t.Error("no error")
			}
			begin := time.Now()
			if _, err := d.authorization(t.Context(), pathLink); err != nil || time.Since(begin) != want {
				t.Errorf("%q: waited %s, want %s; %v", said, time.Since(begin), want, err)
			}
		})
	}
	d := &Dialer{bearer: "b", notYet: time.Now().Add(time.Hour)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.authorization(ctx, pathLink); !errors.Is(err, context.Canceled) {
		t.Errorf("a runner that ends: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for field, o := range map[string]Options{
		"MUSTER_GATEWAY":  {Gateway: "http://x", CA: ca, Bearer: "b"},
		"MUSTER_CA":       {Gateway: "https://x", CA: []byte("x"), Bearer: "b"},
		"MUSTER_IDENTITY": {Gateway: "https://x", CA: ca, Bearer: "a\r\nHost: b"},
	} {
		_, err := New(o)
		var fe *fleet.FieldError
		if !errors.As(err, &fe) || fe.Field != field || fe.Right == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, bad := range []string{"", "https://", "https://u:p@x", "https://x/path", "https://x?q", ":"} {
		if _, err := New(Options{Gateway: bad, CA: ca, Bearer: "b"}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if d, err := New(Options{Gateway: "https://x", CA: ca, Bearer: "b"}); err != nil || d.host != "x:443" {
		t.Errorf("%v", err)
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte(switching + "rest"))
	f.Add([]byte("HTTP/1.1 503 x\r\nretry-after: 1\n\nlater"))
	f.Add([]byte("HTTP/1.1 101\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		br := bufio.NewReaderSize(bytes.NewReader(b), 512)
		h, err := readHead(br)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(br)
		used := len(b) - len(rest)
		if h.status < 100 || h.status > 599 || used > maxHead {
			t.Errorf("%+v of %d bytes", h, used)
		}
		if !bytes.HasSuffix(b[:used], []byte("\n")) {
			t.Errorf("the head ends with %q", fmt.Sprintf("%.20s", b[:used]))
		}
	})
}
