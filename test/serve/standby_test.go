package serve

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

const localFleet = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: standby}
spec:
  templates: [{name: default, runtime: runc, resources: {cpus: 500m, memory: 256Mi, disk: 64Mi}}]
  capacity: {sandboxes: {min: 1, max: 4}}
`

// TestStandby: of two control planes on one PostgreSQL one leads; the other
// answers 503 and takes over when the first is killed, with what it had accepted.
func TestStandby(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("real sandboxes with limits need root; run as root to include this test")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed; `make test` installs it")
	}
	db := servers.StartPostgres(t, servers.PostgresSetup{})
	bin := t.TempDir()
	muster := build(t, bin, "muster", "muster")
	build(t, bin, "muster-runner", "muster-runner")
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(localFleet), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--fleet", file, "--on-stop", "cancel", "--store", db.URL()}
	a := run(t, muster, args...)
	a.eventually("the first one leads and has a warm sandbox", 60*time.Second, func() bool {
		code, body := a.call("GET", "/v1/fleet", nil)
		return code == 200 && strings.Contains(string(body), `"ready":1`)
	})
	// What it had is of its own data directory: the second one cannot remove it.
	t.Cleanup(func() {
		if out, err := exec.Command(muster, "down", "--data", a.dir).CombinedOutput(); err != nil {
			t.Errorf("muster down: %v\n%s", err, out)
		}
	})
	b := run(t, muster, args...)
	time.Sleep(2 * time.Second)
	if code, body := b.call("GET", "/v1/fleet", nil); code != 503 || !strings.Contains(string(body), "stands by") {
		t.Fatalf("the second one: %d %s", code, body)
	}
	if code, _ := b.call("GET", "/readyz", nil); code != 200 {
		t.Errorf("standing by is not ready: %d", code)
	}
	for _, id := range a.submit("/v1/tasks", 2) {
		a.finished("/v1/tasks/" + id)
	}
	late := a.submit("/fleets/local/standby/v1/tasks", 1)
	start := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("the second one leads", 2*time.Minute, func() bool {
		code, _ := b.call("GET", "/v1/fleet", nil)
		return code == 200
	})
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the hand-over took %s", took)
	} else {
		t.Logf("the hand-over took %s", took.Round(10*time.Millisecond))
	}
	for _, id := range late {
		b.finished("/v1/tasks/" + id)
	}
}
