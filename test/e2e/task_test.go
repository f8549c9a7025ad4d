package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fixtureRepo makes a bare git repository with one commit.
func fixtureRepo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	work, bare := filepath.Join(dir, "work"), filepath.Join(dir, "hello.git")
	script := `set -e
git init -q -b main "$1"; cd "$1"
printf 'hello world\n' > greeting.txt; mkdir src; printf 'package hello\n' > src/hello.go
git add -A; git -c user.name=t -c user.email=t@example.com commit -q -m first
git clone -q --bare "$1" "$2"; chmod -R a+rX "$2"`
	if out, err := exec.Command("sh", "-c", script, "sh", work, bare).CombinedOutput(); err != nil {
		t.Fatalf("fixture: %v: %s", err, out)
	}
	// t.TempDir's parent is private to its owner; sandboxes see the mount only.
	return bare
}

func repoFleet(bare string) string {
	return strings.Replace(smallFleet, "      network: {mode: none}\n",
		"      network: {mode: none}\n      mounts: [{source: "+bare+", target: /fixtures/hello.git}]\n", 1)
}

// TestFirstTask is the way of a new user: submit a task that clones a
// repository, changes a file and leaves a patch and an artifact.
func TestFirstTask(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, repoFleet(fixtureRepo(t)))
	m.start()
	task := `
apiVersion: muster.dev/v1alpha1
kind: Task
metadata: {name: greet, labels: {team: web}}
spec:
  repo: {url: /fixtures/hello.git, ref: main}
  prompt: Say hello to Muster.
  setup: ["test -f greeting.txt"]
  command: [/bin/sh, -c, "echo working as $(id -un); sed -i 's/world/muster/' greeting.txt; echo new > added.txt; mkdir out; echo \"$MUSTER_PROMPT\" > out/prompt.txt; echo oops >&2"]
  artifacts: ["out/**"]
`
	out, errOut, code := m.muster(task, "submit", "--wait", "--follow", "-f", "-")
	if code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, out, errOut)
	}
	if !strings.Contains(out, "working as agent") || !strings.Contains(errOut, "oops") {
		t.Errorf("the log was not followed: stdout %q stderr %q", out, errOut)
	}
	var list struct{ Tasks []taskView }
	if err := json.Unmarshal([]byte(m.must("tasks", "--label", "team=web", "--state", "succeeded", "-o", "json")), &list); err != nil || len(list.Tasks) != 1 {
		t.Fatalf("tasks -o json: %v %+v", err, list)
	}
	id := list.Tasks[0].ID
	patch := m.must("patch", id)
	for _, want := range []string{"-hello world", "+hello muster", "+++ b/added.txt"} {
		if !strings.Contains(patch, want) {
			t.Errorf("the patch lacks %q:\n%s", want, patch)
		}
	}
	dir := t.TempDir()
	m.must("artifacts", id, dir)
	if b, err := os.ReadFile(filepath.Join(dir, "out/prompt.txt")); err != nil || string(b) != "Say hello to Muster.\n" {
		t.Errorf("artifact: %v %q", err, b)
	}
	if ex := m.must("explain", id); !strings.Contains(ex, "waited") {
		t.Errorf("explain says nothing of the wait: %s", ex)
	}
	if ev := m.must("events"); !strings.Contains(ev, "scale_out") {
		t.Errorf("no scaling event is listed:\n%s", ev)
	}
	m.must("fleet")
}

// TestExitCodes: `submit --wait` ends as the task did.
func TestExitCodes(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		reason string
	}{
		{"own code", []string{"--", "/bin/sh", "-c", "exit 7"}, 7, "exit"},
		{"signal", []string{"--", "/bin/sh", "-c", "kill -KILL $$"}, 137, "exit"},
		{"no such command", []string{"--", "/no/such/agent"}, 127, "command"},
		{"not executable", []string{"--", "/etc/passwd"}, 126, "command"},
		{"run timeout", []string{"--timeout-run", "1s", "--", "/bin/sleep", "60"}, 124, "timeout_run"},
		{"idle timeout", []string{"--timeout-idle", "1s", "--", "/bin/sleep", "60"}, 124, "timeout_idle"},
		{"out of memory", []string{"--", "/usr/bin/perl", "-e", `my @a; push @a, "x" x 1000000 while 1`}, 137, "oom"},
		{"disk", []string{"--", "/bin/sh", "-c", "dd if=/dev/zero of=/workspace/fill bs=1M count=200"}, 1, "disk"},
		{"pids", []string{"--", "/usr/bin/perl", "-e", `my $e; for (1..200) { my $p = fork; if (!defined $p) { $e = 1; last } if ($p == 0) { sleep 30; exit } } die "fork refused" if $e`}, 11, "pids"},
		{"setup", []string{"--setup", "echo cannot; exit 3", "--", "/bin/true"}, 1, "setup"},
		{"clone", []string{"--repo", "/fixtures/nowhere.git", "--", "/bin/true"}, 1, "setup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, code := m.muster("", append([]string{"submit", "--wait", "--name", strings.ReplaceAll(c.name, " ", "-")}, c.args...)...)
			var list struct {
				Tasks []taskView `json:"tasks"`
			}
			if err := json.Unmarshal([]byte(m.must("tasks", "--limit", "1", "-o", "json")), &list); err != nil || len(list.Tasks) == 0 {
				t.Fatalf("tasks: %v", err)
			}
			v := list.Tasks[0]
			if v.Reason != c.reason {
				t.Errorf("reason %q (%s, %s), want %q\n%s%s", v.Reason, v.State, v.Message, c.reason, out, errOut)
			}
			if c.code > 2 && code != c.code && c.code != 11 {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, errOut)
			}
			if code == 0 {
				t.Errorf("exit code 0 for a task that failed")
			}
			if v.Message == "" {
				t.Errorf("no message for a person")
			}
		})
	}
}

// TestLogs: a line of 100 MB and binary output pass through bounded memory
// and come out as they went in, up to the log limit.
func TestLogs(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, strings.Replace(smallFleet, "disk: 64Mi", "disk: 64Mi, log: 8Mi", 1))
	m.start()
	out, errOut, code := m.muster("", "submit", "--wait", "--follow", "--", "/usr/bin/perl", "-e",
		`print "a" x 1000000 for 1..100; print "\n"; print STDERR "end\n"`)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	if n := strings.Count(out, "a"); n < 7<<20 || n > 9<<20 {
		t.Errorf("%d bytes of the line were kept, want about 8 MiB", n)
	}
	if !strings.Contains(errOut, "log limit") {
		t.Errorf("nothing says that the log was cut: %q", errOut)
	}
	out, _, code = m.muster("", "submit", "--wait", "--follow", "--", "/usr/bin/perl", "-e", `print pack("C*", 0..255) x 100`)
	if code != 0 || len(out) != 25600 || out[:256] != string(seq256()) {
		t.Errorf("binary output: exit %d, %d bytes", code, len(out))
	}
}

func seq256() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestCancelAndExec reach into a running sandbox.
func TestCancelAndExec(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	var s submitted
	if _, err := m.api("POST", "/v1/tasks", map[string]any{"tasks": []any{map[string]any{
		"command": []string{"/bin/sh", "-c", "echo up; touch /workspace/here; sleep 100"}}}}, &s); err != nil {
		t.Fatal(err)
	}
	id := s.Tasks[0].ID
	m.waitState(id, "running")
	if out := m.must("exec", id, "--", "/bin/ls", "/workspace"); !strings.Contains(out, "here") {
		t.Errorf("exec: %q", out)
	}
	if _, _, code := m.muster("", "exec", id, "--", "/bin/sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec exit code %d, want 9", code)
	}
	m.must("cancel", id)
	if v := m.waitFinal(id); v.State != "cancelled" || v.Reason != "cancelled" {
		t.Errorf("after cancel: %+v", v)
	}
}

func (m *machine) waitState(id, state string) {
	m.t.Helper()
	for range 1000 {
		var v taskView
		if _, err := m.api("GET", "/v1/tasks/"+id, nil, &v); err != nil {
			m.t.Fatal(err)
		}
		if v.State == state {
			return
		}
		time.Sleep(10 * time.Millisecond) // another process is waited for
	}
	m.t.Fatalf("task %s did not become %s within 10 s", id, state)
}
