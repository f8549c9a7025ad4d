package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestProxy: in mode proxy git, curl, node and python reach allowed names
// unchanged, and nothing else is reachable.
func TestProxy(t *testing.T) {
	needSandboxes(t)
	root := t.TempDir()
	if out, err := exec.Command("sh", "-c", `cd "$1" && git init -q -b main w && cd w && echo from-git > f && git add f && git -c user.name=t -c user.email=t@x commit -q -m m && git clone -q --bare . ../r.git && touch ../r.git/git-daemon-export-ok`, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("fixture: %v %s", err, out)
	}
	mux := http.NewServeMux()
	mux.Handle("/r.git/", &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}})
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "from-server") })
	allowed := httptest.NewServer(mux)
	defer allowed.Close()
	other := httptest.NewServer(mux)
	defer other.Close()
	_, port, _ := net.SplitHostPort(allowed.Listener.Addr().String())
	fleet := strings.Replace(smallFleet, "network: {mode: none}", fmt.Sprintf(`network: {mode: proxy, allowPrivate: ["localhost:%s", "127.0.0.1:%s"]}`, port, port), 1)
	m := newMachine(t, fleet)
	m.start()
	// NO_PROXY usually names localhost; here the server outside is meant.
	url := "http://localhost:" + port
	script := fmt.Sprintf(`export NO_PROXY= no_proxy=
curl -sS --fail %[1]s/hello; echo
git clone -q %[1]s/r.git /workspace/r && cat /workspace/r/f
if command -v python3 >/dev/null; then python3 -c 'import urllib.request; print("python", urllib.request.urlopen("%[1]s/hello").read().decode())'; fi
if command -v node >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 24 ]; then
	node -e 'fetch("%[1]s/hello").then(r => r.text()).then(t => console.log("node", t))'
else
	echo "node from-server (not tried: Node reads the proxy variables from version 24 on)"
fi
echo "other: $(curl -sS -m 5 %[2]s/hello 2>&1)"
echo "direct: $(curl -sS -m 5 --noproxy '*' %[1]s/hello 2>&1)"
echo "metadata: $(curl -sS -m 5 http://169.254.169.254/latest/meta-data 2>&1)"
`, url, other.URL)
	out, errOut, code := m.muster("", "submit", "--wait", "--follow", "--", "/bin/sh", "-c", script)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errOut)
	}
	for _, want := range []string{"from-server\n", "from-git\n", "node from-server", "other: muster: ", "is not on the allow list", "metadata: muster: "} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s%s", want, out, errOut)
		}
	}
	if _, err := os.Stat("/usr/bin/python3"); err == nil && !strings.Contains(out, "python from-server") {
		t.Errorf("python did not get through:\n%s", out)
	}
	if strings.Contains(out, "direct: from-server") {
		t.Errorf("the server was reached without the proxy:\n%s", out)
	}
	out, _, _ = m.muster("", "submit", "--wait", "--follow", "--network", "none", "--", "/bin/sh", "-c",
		"curl -sS -m 5 "+url+"/hello; cat /proc/net/dev; env | grep -i _proxy; true")
	if strings.Contains(out, "from-server") || strings.Contains(strings.ToLower(out), "_proxy=") {
		t.Errorf("mode none reaches out:\n%s", out)
	}
	for l := range strings.Lines(out) {
		if strings.Contains(l, ":") && !strings.Contains(l, "lo:") && !strings.Contains(l, "|") {
			t.Errorf("mode none has an interface besides loopback: %s", l)
		}
	}
}

// TestSchedule: a schedule is applied, listed and fires.
func TestSchedule(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	doc := `
apiVersion: muster.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  cron: "0 3 * * *"
  timezone: Europe/Warsaw
  task: {command: [/bin/echo, hi]}
`
	if out, errOut, code := m.muster(doc, "schedule", "apply", "-f", "-"); code != 0 {
		t.Fatalf("apply: %s%s", out, errOut)
	}
	if out := m.must("schedule", "list"); !strings.Contains(out, "nightly") || !strings.Contains(out, "Europe/Warsaw") {
		t.Errorf("list: %s", out)
	}
	m.kill()
	m.start()
	if out := m.must("schedule", "list", "-o", "json"); !strings.Contains(out, "nightly") {
		t.Errorf("the schedule did not survive: %s", out)
	}
	_, errOut, code := m.muster(strings.Replace(doc, "0 3 * * *", "0 25 * * *", 1), "schedule", "apply", "-f", "-")
	if code == 0 || !strings.Contains(errOut, "cron") {
		t.Errorf("a wrong cron expression: exit %d, %s", code, errOut)
	}
	m.must("schedule", "delete", "nightly")
}
