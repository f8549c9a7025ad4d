package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onSocket serves a proxy on a unix socket.
func onSocket(t testing.TB, n fleet.Network, o Options) (p *Proxy, sock string) {
	t.Helper()
	sock = filepath.Join(t.TempDir(), "p.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	p, err = Serve(l, n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p, sock
}

// start also bridges the socket to a loopback port, as the runner does inside
// a sandbox; it returns the proxy's URL.
func start(t *testing.T, n fleet.Network, o Options) (*Proxy, string) {
	t.Helper()
	p, sock := onSocket(t, n, o)
	tl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := tl.Accept()
			if err != nil {
				return
			}
			u, err := net.Dial("unix", sock)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(u, c); _ = u.(*net.UnixConn).CloseWrite() }()
			go func() { _, _ = io.Copy(c, u); _ = c.Close(); _ = u.Close() }()
		}
	}()
	t.Cleanup(func() { _ = tl.Close() })
	return p, "http://" + tl.Addr().String()
}

func local(name string) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == name {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
}

func run(t *testing.T, proxy string, args ...string) (string, error) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "HTTP_PROXY="+proxy, "http_proxy="+proxy, "https_proxy="+proxy,
		"NO_PROXY=", "no_proxy=", "GIT_TERMINAL_PROMPT=0", "HOME="+t.TempDir())
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestCurl(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.Host) }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	var denied []string
	p, proxy := start(t, fleet.Network{Allow: []string{"ok.test:" + port, "private.test:" + port}, AllowPrivate: []string{"ok.test"}},
		Options{Resolve: func(ctx context.Context, h string) ([]netip.Addr, error) {
			if h == "ok.test" || h == "private.test" {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			return nil, errors.New("unexpected lookup of " + h)
		}, OnDeny: func(hp, _ string) { denied = append(denied, hp) }})
	out, err := run(t, proxy, "curl", "-sS", "--fail-with-body", "http://ok.test:"+port+"/")
	if err != nil || out != "hello ok.test:"+port {
		t.Errorf("allowed name: %v %q", err, out)
	}
	// The same through a tunnel.
	out, err = run(t, proxy, "curl", "-sS", "-p", "http://ok.test:"+port+"/")
	if err != nil || out != "hello ok.test:"+port {
		t.Errorf("tunnel: %v %q", err, out)
	}
	out, err = run(t, proxy, "curl", "-sS", "--fail-with-body", "http://evil.test:"+port+"/")
	if err == nil || !strings.Contains(out, "evil.test:"+port+" is not on the allow list") {
		t.Errorf("name not listed: %v %q", err, out)
	}
	// Listed, but it resolves to loopback without an exception.
	out, err = run(t, proxy, "curl", "-sS", "--fail-with-body", "http://private.test:"+port+"/")
	if err == nil || !strings.Contains(out, "is at a private, local or metadata address") {
		t.Errorf("rebinding to loopback: %v %q", err, out)
	}
	if len(denied) != 2 {
		t.Errorf("denials reported: %q, want 2", denied)
	}
	if s, r := p.Counters(); s == 0 || r == 0 {
		t.Errorf("counters %d %d, want both above 0", s, r)
	}
}

func TestGitClone(t *testing.T) {
	backend := "/usr/lib/git-core/git-http-backend"
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git-http-backend is not installed (Debian: package git)")
	}
	root := t.TempDir()
	if out, err := exec.Command("sh", "-c", `cd "$1" && git init -q -b main w && cd w && echo hi > f && git add f && git -c user.name=t -c user.email=t@x commit -q -m m && git clone -q --bare . ../r.git && touch ../r.git/git-daemon-export-ok`, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("fixture: %v %s", err, out)
	}
	up := httptest.NewServer(&cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}})
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	_, proxy := start(t, fleet.Network{AllowPrivate: []string{"git.test:" + port}}, Options{Resolve: local("git.test")})
	dst := filepath.Join(t.TempDir(), "c")
	if out, err := run(t, proxy, "git", "clone", "-q", "http://git.test:"+port+"/r.git", dst); err != nil {
		t.Fatalf("git clone through the proxy: %v %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dst, "f")); err != nil || string(b) != "hi\n" {
		t.Errorf("cloned file: %v %q", err, b)
	}
}

func TestUpstream(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through two") }))
	defer up.Close()
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	second, secondURL := start(t, fleet.Network{AllowPrivate: []string{"far.test"}}, Options{Resolve: local("far.test")})
	u, _ := url.Parse(secondURL)
	_, proxy := start(t, fleet.Network{Allow: []string{"far.test:" + port}}, Options{Upstream: u})
	for _, tunnel := range []string{"-s", "-sp"} {
		out, err := run(t, proxy, "curl", tunnel, "http://far.test:"+port+"/")
		if err != nil || out != "through two" {
			t.Errorf("curl %s: %v %q", tunnel, err, out)
		}
	}
	if s, _ := second.Counters(); s == 0 {
		t.Error("the upstream saw nothing")
	}
}

func TestPolicy(t *testing.T) {
	p, err := ParsePolicy(fleet.Network{
		Allow:        []string{"api.example.com", "*.Example.org", "db.example.com:5432", "8.8.8.8"},
		AllowPrivate: []string{"10.1.0.0/16", "127.0.0.1:9000", "intern.test:8080"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		port uint16
		want bool
	}{
		{"api.example.com", 443, true}, {"API.example.com.", 80, true}, {"api.example.com", 22, false},
		{"xapi.example.com", 443, false}, {"a.example.org", 443, true}, {"example.org", 443, false},
		{"evilexample.org", 443, false}, {"db.example.com", 5432, true}, {"db.example.com", 443, false},
		{"8.8.8.8", 443, true}, {"8.8.4.4", 443, false}, {"10.1.2.3", 22, true}, {"10.2.0.1", 443, false},
		{"127.0.0.1", 9000, true}, {"127.0.0.1", 80, false}, {"intern.test", 8080, true}, {"intern.test", 443, false},
	} {
		if got := p.Allows(c.host, c.port); got != c.want {
			t.Errorf("Allows(%s, %d) = %v", c.host, c.port, got)
		}
	}
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.100.100.200",
		"168.63.129.16", "::1", "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::a00:1", "0.0.0.0", "224.0.0.1", "2002:7f00:1::", "::127.0.0.1"} {
		if p.AllowsAddr("api.example.com", netip.MustParseAddr(a), 443) {
			t.Errorf("api.example.com at %s would be dialled", a)
		}
	}
	if !p.AllowsAddr("api.example.com", netip.MustParseAddr("93.184.216.34"), 443) || !p.AllowsAddr("x.test", netip.MustParseAddr("10.1.9.9"), 22) {
		t.Error("a public address or an excepted range is refused")
	}
	for _, bad := range []string{"", "http://x", "a b", "x:0", "x:99999", "*", "*.*.com"} {
		if _, err := ParsePolicy(fleet.Network{Allow: []string{bad}}); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("allow %q: %v, want an invalid field", bad, err)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"api.example.com", "*.a.b:443", "[::1]:80", "10.0.0.0/8", "a..b"} {
		f.Add(s, "10.0.0.1", uint16(443))
	}
	f.Fuzz(func(t *testing.T, entry, host string, port uint16) {
		p, err := ParsePolicy(fleet.Network{Allow: []string{entry}})
		if err != nil {
			return
		}
		_ = p.Allows(host, port)
		if p.AllowsAddr(host, netip.MustParseAddr("169.254.169.254"), port) {
			t.Errorf("allow %q reaches the metadata address as %q:%d", entry, host, port)
		}
	})
}
