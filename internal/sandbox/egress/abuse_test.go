package egress

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// raw sends bytes to the proxy and returns all that it answers.
func raw(t *testing.T, proxy, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(proxy, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestTLSThroughTunnel(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret hello") }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	// httptest's certificate is for example.com.
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"example.com:" + port}}, Options{Resolve: local("example.com")})
	target := "https://example.com:" + port + "/"
	for name, args := range map[string][]string{
		"curl":    {"curl", "-sS", "--cacert", ca, target},
		"python3": {"python3", "-c", "import urllib.request,ssl,sys;print(urllib.request.urlopen(sys.argv[1],context=ssl.create_default_context(cafile=sys.argv[2])).read().decode(),end='')", target, ca},
		"node":    {"node", "-e", nodeTunnel, target, ca, proxy},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%s is not installed", args[0])
			}
			if out, err := run(t, proxy, args...); err != nil || out != "secret hello" {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
}

// nodeTunnel does by hand what agents' HTTP libraries do below NODE_USE_ENV_PROXY
// (Node 24) or undici's EnvHttpProxyAgent: CONNECT, then TLS.
const nodeTunnel = `
const [target, ca, proxy] = process.argv.slice(1).map(String);
const u = new URL(target), p = new URL(proxy), http = require('http'), https = require('https'), fs = require('fs');
http.request({host: p.hostname, port: p.port, method: 'CONNECT', path: u.host}).on('connect', (res, socket) => {
  if (res.statusCode !== 200) { console.error(res.statusCode); process.exit(1); }
  https.get({host: u.hostname, path: '/', ca: fs.readFileSync(ca),
    createConnection: o => require('tls').connect({...o, socket, servername: u.hostname})}, r => r.pipe(process.stdout));
}).on('error', e => { console.error(e); process.exit(1); }).end();`

func TestRequestsAreRewritten(t *testing.T) {
	var got *http.Request
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"ok.test:" + port}}, Options{Resolve: local("ok.test")})
	answer := raw(t, proxy, "GET http://ok.test:"+port+"/p HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic eA==\r\n"+
		"Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: gzip\r\nX-Stays: 1\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200") || got == nil {
		t.Fatalf("answer %q", answer)
	}
	// The Host header must not name another virtual host than was checked.
	if got.Host != "ok.test:"+port || got.URL.Path != "/p" {
		t.Errorf("upstream was asked for %s %s", got.Host, got.URL)
	}
	for _, h := range []string{"Proxy-Authorization", "X-Hop", "Te", "X-Forwarded-For", "Proxy-Connection"} {
		if v := got.Header.Get(h); v != "" {
			t.Errorf("header %s: %q went on", h, v)
		}
	}
	if got.Header.Get("X-Stays") != "1" {
		t.Error("a header of the request's own was lost")
	}
}

func TestMalformedRequestsEndHere(t *testing.T) {
	asked := false
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer up.Close()
	addr := up.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_, proxy := start(t, fleet.Network{Allow: []string{"evil.test:" + port}, AllowPrivate: []string{"ok.test:" + port}}, Options{Resolve: local("evil.test")})
	host := "ok.test:" + port
	for name, r := range map[string]string{
		"origin form":           "GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"https in the clear":    "GET https://" + host + "/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"file":                  "GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"two lengths":           "POST http://" + host + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"bad chunking":          "POST http://" + host + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"header with newline":   "GET http://" + host + "/ HTTP/1.1\r\nHost: x\r\n Folded: 1\r\n\r\n",
		"connect without port":  "CONNECT ok.test HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n",
		"connect to port 0":     "CONNECT ok.test:0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"connect to loopback":   "CONNECT " + addr + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"connect to v6 mapped":  "CONNECT [::ffff:127.0.0.1]:" + port + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"connect, decimal":      "CONNECT 2130706433:" + port + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"connect, user":         "CONNECT " + host + "@evil.test:" + port + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"user before the host":  "GET http://" + host + "@127.0.0.1:" + port + "/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"name at loopback":      "CONNECT evil.test:" + port + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"header beyond 64 KiB":  "GET http://" + host + "/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
		"metadata":              "GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"trailing dot and case": "CONNECT EVIL.test.:" + port + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer := raw(t, proxy, r)
			if !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 501") {
				t.Errorf("answer %.200q, want a refusal", answer)
			}
		})
	}
	if asked {
		t.Error("one of them reached the server")
	}
}

func TestDenialsAreToldOnceAndCounted(t *testing.T) {
	var mu sync.Mutex
	var told []string
	p, proxy := start(t, fleet.Network{Allow: []string{"ok.test"}}, Options{OnDeny: func(name, why string) {
		mu.Lock()
		told = append(told, name+" "+why)
		mu.Unlock()
	}})
	for range 5 {
		raw(t, proxy, "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}
	for i := range 150 {
		raw(t, proxy, fmt.Sprintf("CONNECT n%d.example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", i))
	}
	mu.Lock()
	defer mu.Unlock()
	if p.Denied() != 155 || len(told) != denyNames {
		t.Errorf("%d denied, %d told; want 155 and %d", p.Denied(), len(told), denyNames)
	}
	if want := "example.com:443 is not on the allow list (spec.templates[].network.allow)"; told[0] != want {
		t.Errorf("told %q, want %q", told[0], want)
	}
}

// echo serves what it reads until the client closes.
func echo(t testing.TB) (port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func tunnel(t testing.TB, proxy, target string) (net.Conn, *bufio.Reader) {
	t.Helper()
	network, addr := "tcp", strings.TrimPrefix(proxy, "http://")
	if strings.HasPrefix(proxy, "/") {
		network, addr = "unix", proxy
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT: %v %v", resp, err)
	}
	return c, br
}

func TestTunnelHalfCloseAndIdle(t *testing.T) {
	port := echo(t)
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test"), Idle: 300 * time.Millisecond})
	c, br := tunnel(t, proxy, "e.test:"+port)
	_, _ = io.WriteString(c, "ping")
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != "ping" {
		t.Errorf("after half-close: %q %v", b, err)
	}
	_, br = tunnel(t, proxy, "e.test:"+port)
	begin := time.Now()
	if _, err := io.ReadAll(br); time.Since(begin) < 100*time.Millisecond {
		t.Errorf("silent tunnel ended after %s: %v", time.Since(begin), err)
	}
}

// A client that never reads must not hold a tunnel for ever.
func TestTunnelToOneThatNeverReads(t *testing.T) {
	port := echo(t)
	p, sock := onSocket(t, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test"), Idle: 200 * time.Millisecond})
	c, _ := tunnel(t, sock, "e.test:"+port)
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<20)
	var err error
	for err == nil {
		_, err = c.Write(buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the tunnel was still held after 10 s")
	}
	if s, _ := p.Counters(); s == 0 {
		t.Error("nothing counted")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	port := echo(t)
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test"), MaxConns: 2})
	first, _ := tunnel(t, proxy, "e.test:"+port)
	tunnel(t, proxy, "e.test:"+port)
	third, err := net.Dial("tcp", strings.TrimPrefix(proxy, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	_, _ = io.WriteString(third, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_ = third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the third was served beside two: %d %v", n, err)
	}
	_ = first.Close()
	_ = third.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err != nil {
		t.Errorf("the third was not served once there was room: %v", err)
	}
}

func TestCloseEndsTunnelsAndUpgrades(t *testing.T) {
	port := echo(t)
	// Answers 101 and then says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	p, proxy := start(t, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test")})
	c, br := tunnel(t, proxy, "e.test:"+port)
	up, err := net.Dial("tcp", strings.TrimPrefix(proxy, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	_, upPort, _ := net.SplitHostPort(l.Addr().String())
	_, _ = fmt.Fprintf(up, "GET http://e.test:%s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", upPort)
	ub := bufio.NewReader(up)
	if line, err := ub.ReadString('\n'); err != nil || !strings.Contains(line, "101") {
		t.Fatalf("upgrade: %q %v", line, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*bufio.Reader{br, ub} {
		if _, err := io.Copy(io.Discard, r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after Close: %v", err)
		}
	}
	_ = c.Close()
}

func TestDeadAddressCostsNoTimeout(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	p, err := Serve(closedListener(t), fleet.Network{AllowPrivate: []string{"two.test"}}, Options{
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			// Nothing listens on 127.0.0.2; the second one answers.
			return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	n, _ := parsePort(port)
	c, err := p.dialChecked(t.Context(), "two.test", n)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func closedListener(t *testing.T) net.Listener {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func parsePort(s string) (uint16, error) {
	_, p, err := splitHostPort("x:"+s, 0)
	return p, err
}

func TestPrivateNamesBypassTheUpstream(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "inside") }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	dead, _ := url.Parse("http://127.0.0.1:1")
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"in.test"}}, Options{Resolve: local("in.test"), Upstream: dead})
	for _, mode := range []string{"-sS", "-sSp"} {
		if out, err := run(t, proxy, "curl", mode, "http://in.test:"+port+"/"); err != nil || out != "inside" {
			t.Errorf("curl %s: %v %q", mode, err, out)
		}
	}
	bad, _ := url.Parse("socks5://127.0.0.1:1")
	l := closedListener(t)
	defer l.Close()
	if _, err := Serve(l, fleet.Network{}, Options{Upstream: bad}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("socks upstream: %v, want invalid", err)
	}
}

// FuzzMatch compares the matcher with what it promises, said another way.
func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "a.example.com", uint16(443))
	f.Add("example.com:8080", "EXAMPLE.com.", uint16(8080))
	f.Add("*.com", "com", uint16(80))
	f.Fuzz(func(t *testing.T, entry, host string, port uint16) {
		p, err := ParsePolicy(fleet.Network{Allow: []string{entry}})
		if err != nil || !p.Allows(host, port) {
			return
		}
		r := p.allow[0]
		h := strings.TrimSuffix(strings.ToLower(host), ".")
		a, isAddr := netip.ParseAddr(h)
		ok := r.name != "" && !r.suffix && h == r.name ||
			r.suffix && len(h) > len(r.name)+1 && h[len(h)-len(r.name)-1:] == "."+r.name ||
			isAddr == nil && r.prefix.IsValid() && r.prefix.Contains(a.Unmap())
		if !ok || r.port != 0 && r.port != port || r.port == 0 && port != 80 && port != 443 {
			t.Errorf("allow %q lets %q:%d through", entry, host, port)
		}
	})
}
