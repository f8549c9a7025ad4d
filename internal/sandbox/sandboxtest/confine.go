package sandboxtest

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func testMemory(t *testing.T, m *machine) {
	if m.h.lacks(NoCgroups) {
		m.admits(t, "memory")
		return
	}
	r := m.run(t, `echo begin; tail /dev/zero; echo "survived: $?"; exit 1`, func(s *fleet.SandboxSpec) {
		s.Resources.MemoryBytes = 96 << 20
	})
	if got := r.Reason(t); got != fleet.ReasonOOM {
		t.Errorf("reason %q (%s), log %q", got, r.how(), r.Text())
	}
}

func testPids(t *testing.T, m *machine) {
	if m.h.lacks(NoCgroups) {
		m.admits(t, "processes")
		return
	}
	r := m.run(t, `i=0; while [ $i -lt 400 ]; do sleep 60 & i=$((i+1)); done; echo all; kill $(jobs -p); exit 1`,
		func(s *fleet.SandboxSpec) { s.Resources.Pids = 24 })
	if got := r.Reason(t); got != fleet.ReasonPids {
		t.Errorf("reason %q (%s), log %q", got, r.how(), r.Text())
	}
	if strings.Contains(r.Text(), "all\n") {
		t.Error("400 processes were started within a limit of 24")
	}
}

func testCPU(t *testing.T, m *machine) {
	if m.h.lacks(NoCgroups) {
		m.admits(t, "cpu")
		return
	}
	spec := m.create(t, func(s *fleet.SandboxSpec) { s.Resources.MilliCPU = 250 })
	before, err := m.s.Usage(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r := m.claim(t, spec.ID, assignment(`timeout 1.5 sh -c 'while :; do :; done'; timeout 0 true; sleep 3600`))
	time.Sleep(1500 * time.Millisecond)
	after, err := m.s.Usage(t.Context(), spec.ID)
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	if after.CPUThrottled <= before.CPUThrottled {
		t.Errorf("never throttled: %+v", after)
	}
	if used := after.CPU - before.CPU; used > took*45/100 {
		t.Errorf("%v of cpu in %v with a limit of a quarter", used, took)
	}
	if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonCancelled, 0); err != nil {
		t.Fatal(err)
	}
	r.Wait(t)
}

func testDisk(t *testing.T, m *machine) {
	spec := m.create(t, func(s *fleet.SandboxSpec) { s.Resources.DiskBytes = 16 << 20 })
	r := m.claim(t, spec.ID, assignment(`dd if=/dev/zero of=/workspace/big bs=1M count=64; code=$?; rm -f /nonexistent; exit $code`))
	got := r.Reason(t)
	if m.h.lacks(NoDiskReading) && got == fleet.ReasonExit {
		m.admits(t, "full disk")
	} else if got != fleet.ReasonDisk {
		t.Errorf("reason %q (%s), log %q", got, r.how(), r.Text())
	}
	if !strings.Contains(r.Text(), "No space left") {
		t.Errorf("log %q", r.Text())
	}
}

// admits checks that a protection this machine lacks is named in Lost.
func (m *machine) admits(t *testing.T, word string) {
	t.Helper()
	spec := m.spec()
	iso, err := m.s.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(iso.Lost, func(l string) bool { return strings.Contains(l, word) }) {
		t.Errorf("nothing about %q in %q", word, iso.Lost)
	}
}

// checks are shell commands that succeed where the agent is confined.
var checks = []struct {
	what, script string
	needs        Lack // not checked where this lacks
}{
	{what: "the agent is not root", script: `[ "$(id -u)" != 0 ] && [ "$(id -g)" != 0 ]`, needs: NoUserIDs},
	{what: "it has no capabilities", script: `! grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | grep -qv '0000000000000000$'`, needs: NoUserIDs},
	{what: "it can gain no privileges", script: `grep -q '^NoNewPrivs:.*1$' /proc/self/status`},
	{what: "its system calls are filtered", script: `grep -q '^Seccomp:.*2$' /proc/self/status`},
	{what: "/usr cannot be written", script: `! touch /usr/x`},
	{what: "/etc cannot be written", script: `! touch /etc/x && ! sh -c 'echo x >> /etc/passwd'`},
	{what: "/ cannot be written", script: `! touch /x && ! mkdir /y`},
	{what: "the control socket is out of reach", script: `! [ -r /run/muster/control.sock ] && ! [ -w /run/muster/control.sock ]`, needs: NoUserIDs},
	{what: "/run/muster cannot be written", script: `! touch /run/muster/x && ! rm -f /run/muster/control.sock`},
	{what: "the runner's environment is out of reach", script: `! cat /proc/1/environ`},
	{what: "the runner's memory is out of reach", script: `! cat /proc/1/maps && ! head -c 1 /proc/1/mem`},
	{what: "the runner cannot be killed", script: `kill -9 1; [ -d /proc/1 ]`, needs: NoUserIDs},
	{what: "nothing of /root is seen", script: `! [ -d /root ] || ! ls /root/.ssh /root/.bashrc`},
	{what: "nothing of the host's /home is seen", script: `[ "$(ls /home)" = agent ]`},
	{what: "there is no /var but /var/tmp", script: `! [ -d /var/lib ] && ! [ -d /var/log ]`},
	{what: "/workspace, home and /tmp can be written", script: `touch /workspace/x /home/agent/x /tmp/x /var/tmp/x /dev/shm/x`},
	{what: "the home is the agent's", script: `[ "$HOME" = /home/agent ] && cd && [ "$PWD" = /home/agent ]`},
	{what: "nothing can be mounted", script: `! mount -t tmpfs none /tmp`},
	{what: "no namespace can be made", script: `! unshare -Ur true`, needs: NoUserIDs},
	{what: "no device can be made", script: `! mknod /tmp/null c 1 3`},
	{what: "there are no disks in /dev", script: `! ls /dev | grep -E '^(sd|vd|nvme|loop|dm-|kvm|mem|kmsg)'`},
	{what: "set-user-id does not raise", script: `cp /usr/bin/id /tmp/id && chmod u+s /tmp/id && [ "$(/tmp/id -u)" = "$(id -u)" ]`},
	{what: "/proc/sys cannot be written", script: `! sh -c 'echo x > /proc/sys/kernel/hostname'`},
	{what: "/proc/sysrq-trigger cannot be written", script: `! sh -c 'echo x > /proc/sysrq-trigger'`},
	{what: "the processes of the host are not seen", script: `[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 20 ]`},
	{what: "the hostname is its own", script: `[ "$(cat /proc/sys/kernel/hostname)" != "$HOST_NAME" ]`},
	{what: "no core is dumped", script: `[ "$(ulimit -c)" = 0 ]`},
	{what: "nproc shows the limit", script: `[ "$(nproc)" = 1 ]`},
	{what: "muster's own variables stay with the runner", script: `! env | grep -E '^MUSTER_(TOKEN|SOCKET)='`},
}

func testConfinement(t *testing.T, m *machine) {
	spec := m.create(t)
	host, _ := os.Hostname()
	var script strings.Builder
	for _, c := range checks {
		script.WriteString("if ( " + c.script + " ) >/tmp/out 2>&1; then echo 'pass: " + quoteless(c.what) +
			"'; else echo 'FAIL: " + quoteless(c.what) + "'; sed 's/^/  /' /tmp/out; fi\n")
	}
	a := assignment(script.String())
	a.Env = map[string]string{"HOST_NAME": host}
	r := m.claim(t, spec.ID, a)
	r.Report(t)
	for _, c := range checks {
		if c.needs != "" && m.h.lacks(c.needs) {
			continue
		}
		if !strings.Contains(r.Text(), "pass: "+quoteless(c.what)+"\n") {
			t.Errorf("not so: %s", c.what)
		}
	}
	if t.Failed() {
		t.Logf("log:\n%s", r.Text())
	}
}

func quoteless(s string) string { return strings.ReplaceAll(s, "'", "") }

func testObservedIsolation(t *testing.T, m *machine) {
	iso, err := m.s.Create(t.Context(), m.spec())
	if err != nil {
		t.Fatal(err)
	}
	if !iso.NoNewPrivs || !iso.Seccomp || !iso.ReadOnlyRoot || !iso.UserNamespace || iso.Network != fleet.NetworkNone {
		t.Errorf("isolation %+v", iso)
	}
	if !m.h.lacks(NoUserIDs) && (iso.UID != 1000 || len(iso.Capabilities) > 0 || iso.HostUID == 0) {
		t.Errorf("isolation %+v", iso)
	}
	if m.h.lacks(NoCgroups) != (iso.Cgroups == "none") {
		t.Errorf("cgroups %q", iso.Cgroups)
	}
	t.Logf("%+v", iso)
}

// testNoNetwork listens on the host and looks for it from inside.
func testNoNetwork(t *testing.T, m *machine) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r := m.run(t, `cat /proc/net/dev; if timeout 2 bash -c 'echo > /dev/tcp/127.0.0.1/`+port+`' 2>/dev/null; then echo REACHED; fi`)
	r.Report(t)
	if strings.Contains(r.Text(), "REACHED") {
		t.Error("the host's loopback was reached")
	}
	lines := strings.Split(strings.TrimSpace(r.Text()), "\n")
	n := 0
	for _, line := range lines {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.ContainsAny(name, " |") {
			if n++; name != "lo" {
				t.Errorf("interface %q", name)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d interfaces: %q", n, r.Text())
	}
}

// testUnseen looks for one sandbox from another.
func testUnseen(t *testing.T, m *machine) {
	first := m.create(t)
	a := m.claim(t, first.ID, assignment(`echo secret > /tmp/secret; echo started; exec sleep 3600`))
	a.WaitLog(t, "started")
	r := m.run(t, `ls /tmp/secret /workspace /tmp; cat /proc/[0-9]*/cmdline | tr '\0' ' '`)
	r.Report(t)
	if text := r.Text(); strings.Contains(text, "sleep 3600") || strings.Contains(text, "\nsecret") {
		t.Errorf("another sandbox is seen: %q", text)
	}
	if err := m.s.Stop(t.Context(), first.ID, fleet.ReasonCancelled, 0); err != nil {
		t.Fatal(err)
	}
	a.Wait(t)
}

// CountTraces counts what there is of mounts below dir, loop devices with a
// file below it, and entries of dir whose names are sandbox ids; for
// Harness.Traces of adapters on this machine.
func CountTraces(dir string) map[string]int {
	n := map[string]int{}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			n["mounts"]++
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(file), dir+"/") {
			n["loop devices"]++
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			n["directories"]++
		}
	}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range cmdlines {
		if text, err := os.ReadFile(c); err == nil && strings.Contains(string(text), dir+"/") {
			n["processes"]++
		}
	}
	return n
}
