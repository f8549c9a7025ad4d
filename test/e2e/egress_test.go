package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// outside is a second loopback address: not this machine by the usual
// NO_PROXY, so that tools take the proxy without being told to.
const outside = "127.0.0.2"

// serveTLS serves h on the outside address and returns its port and the PEM
// of the certificate to trust.
func serveTLS(t *testing.T, h http.Handler) (port, pemText string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outside"}, IPAddresses: []net.IP{net.ParseIP(outside)},
		DNSNames:  []string{"localhost"}, // npm compares with this when the host is an address
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", outside+":0")
	if err != nil {
		t.Skipf("cannot listen on %s: %v", outside, err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// npmPackage is a package as `npm pack` makes it.
func npmPackage(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && mkdir package && printf '{"name":"greet","version":"1.0.0"}' > package/package.json && echo 'module.exports="from-npm"' > package/index.js && tar czf - package`, "sh", t.TempDir()).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestToolsThroughTLS: git, curl, python, node and npm work over https through
// the proxy with nothing but the usual variables, and what is refused stands in
// the task's log by name.
func TestToolsThroughTLS(t *testing.T) {
	needSandboxes(t)
	root := t.TempDir()
	if out, err := exec.Command("sh", "-c", `cd "$1" && git init -q -b main w && cd w && echo from-git > f && git add f && git -c user.name=t -c user.email=t@x commit -q -m m && git clone -q --bare . ../r.git`, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("fixture: %v %s", err, out)
	}
	pkg := npmPackage(t)
	mux := http.NewServeMux()
	mux.Handle("/r.git/", &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}})
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "from-server") })
	mux.HandleFunc("/greet.tgz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(pkg) })
	port, ca := serveTLS(t, mux)
	url := "https://" + outside + ":" + port
	m := newMachine(t, strings.Replace(smallFleet, "network: {mode: none}", fmt.Sprintf(`network: {mode: proxy, allowPrivate: ["%s:%s"]}`, outside, port), 1))
	m.start()
	task := fmt.Sprintf(`
apiVersion: muster.dev/v1alpha1
kind: Task
metadata: {name: tools}
spec:
  setup: ["printf %%s \"$CA\" > /tmp/ca.pem"]
  env:
    CURL_CA_BUNDLE: /tmp/ca.pem
    GIT_SSL_CAINFO: /tmp/ca.pem
    SSL_CERT_FILE: /tmp/ca.pem
    NODE_EXTRA_CA_CERTS: /tmp/ca.pem
    NPM_CONFIG_CAFILE: /tmp/ca.pem
    NPM_CONFIG_FETCH_RETRIES: "0"
    CA: %q
  command:
    - /bin/sh
    - -c
    - |
      curl -sS --fail %[2]s/hello && echo " curl"
      git clone -q %[2]s/r.git r && cat r/f
      if python3 -c 'import ssl' 2>/dev/null; then python3 -c 'import urllib.request as u; print(u.urlopen("%[2]s/hello").read().decode(), "python")'; fi
      if node -e 'const [a,b]=process.versions.node.split(".").map(Number); process.exit(a>24||a==24&&b>=5||a==22&&b>=21?0:1)' 2>/dev/null; then
        node -e 'fetch("%[2]s/hello").then(r=>r.text()).then(t=>console.log(t,"node"))'
      fi
      if npm --version >/dev/null 2>&1; then
        mkdir n && cd n && npm install --no-audit --no-fund --loglevel=error %[2]s/greet.tgz && node -e 'console.log(require("greet"))' && echo npm-done
      fi
      curl -sS -m 5 https://example.com/ || true
      git ls-remote -q https://example.org/x.git || true
`, ca, url)
	out, errOut, code := m.muster(task, "submit", "--wait", "--follow", "-f", "-")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errOut)
	}
	all := out + errOut
	want := []string{"from-server curl", "from-git",
		"proxy: example.com:443 is not on the allow list", "proxy: example.org:443 is not on the allow list"}
	if exec.Command("/usr/bin/python3", "-c", "import ssl").Run() == nil {
		want = append(want, "from-server python")
	}
	if exec.Command("/usr/bin/npm", "--version").Run() == nil {
		want = append(want, "from-npm", "npm-done")
	}
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("lacks %q:\n%s\n%s", w, out, errOut)
		}
	}
}

// TestImageTarball: a task names a docker-save tarball of an image that has
// nothing but one program and runs it; a tarball that is none says so.
func TestImageTarball(t *testing.T) {
	needSandboxes(t)
	program, err := os.ReadFile(filepath.Join(binDir, "muster"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "usr/bin/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "usr/bin/muster", Mode: 0o755, Size: int64(len(program))},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(program); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.Config(img, v1.Config{Env: []string{"FROM_IMAGE=yes"}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("test/image:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, smallFleet)
	m.start()
	out, errOut, code := m.muster("", "submit", "--wait", "--follow", "--image", file, "--", "/usr/bin/muster", "version")
	if code != 0 || !strings.Contains(out, "API muster.dev/") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	bad := filepath.Join(t.TempDir(), "bad.tar")
	if err := os.WriteFile(bad, []byte("not a tarball"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errOut, code = m.muster("", "submit", "--wait", "--image", bad, "--", "/bin/true")
	if code == 0 || !strings.Contains(errOut, "bad.tar") || !strings.Contains(errOut, "docker save") {
		t.Errorf("a broken image: exit %d, %s", code, errOut)
	}
}
