//go:build linux

package runner_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestReasons(t *testing.T) {
	t.Parallel()
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	cases := []struct {
		name    string
		command []string
		setup   []string
		limits  fleet.Timeouts
		reason  fleet.TaskReason
		code    int
		signal  string
		message string
	}{
		{name: "success", command: sh("true"), reason: fleet.ReasonNone, code: 0},
		{name: "exit", command: sh("exit 3"), reason: fleet.ReasonExit, code: 3, message: "exited with 3"},
		{name: "signal", command: sh("kill -SEGV $$"), reason: fleet.ReasonExit, code: -1, signal: "SIGSEGV", message: "killed by SIGSEGV"},
		{name: "no such program", command: []string{"no-such-program"}, reason: fleet.ReasonCommand, code: 127, message: "not found on the PATH"},
		{name: "no such file", command: []string{"./nothing"}, reason: fleet.ReasonCommand, code: 127, message: "no such file"},
		{name: "empty", command: []string{}, reason: fleet.ReasonCommand, code: 127},
		{name: "a directory", command: []string{"./dir"}, setup: []string{"mkdir dir"}, reason: fleet.ReasonCommand, code: 126, message: "permission denied"},
		{name: "not executable", command: []string{"./f"}, setup: []string{"echo > f"}, reason: fleet.ReasonCommand, code: 126, message: "permission denied"},
		{name: "no format", command: []string{"./f"}, setup: []string{"echo junk > f; chmod +x f"}, reason: fleet.ReasonCommand, code: 126, message: "#!/bin/sh"},
		{name: "no interpreter", command: []string{"./f"}, setup: []string{"echo '#!/no/such/sh' > f; chmod +x f"}, reason: fleet.ReasonCommand, code: 127, message: "interpreter"},
		{name: "arguments too large", command: []string{"true", strings.Repeat("x", 200<<10)}, reason: fleet.ReasonCommand, code: 126, message: "too large"},
		{name: "setup fails", command: sh("true"), setup: []string{"true", "echo first; echo why >&2; exit 9"}, reason: fleet.ReasonSetup, code: 9, message: "setup[1] `echo first; echo why >&2; exit 9` exited with 9: "},
		{name: "setup hangs", command: sh("true"), setup: []string{"exec sleep 60"}, limits: fleet.Timeouts{Startup: 50 * time.Millisecond}, reason: fleet.ReasonTimeoutStartup, code: -1, signal: "SIGTERM", message: "timeouts.startup (50ms)"},
		{name: "runs too long", command: sh("exec sleep 60"), limits: fleet.Timeouts{Run: 50 * time.Millisecond}, reason: fleet.ReasonTimeoutRun, code: -1, signal: "SIGTERM", message: "timeouts.run (50ms)"},
		{name: "idle", command: sh("echo a; exec sleep 60"), limits: fleet.Timeouts{Idle: 80 * time.Millisecond}, reason: fleet.ReasonTimeoutIdle, code: -1, signal: "SIGTERM", message: "timeouts.idle (80ms)"},
		{name: "not idle", command: sh("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"), limits: fleet.Timeouts{Idle: 400 * time.Millisecond}, reason: fleet.ReasonNone},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assign(c.command...)
			a.Setup, a.Timeouts = c.setup, c.limits
			_, r := runTask(t, a)
			if r.Reason != c.reason || r.ExitCode != c.code || r.Signal != c.signal {
				t.Errorf("got %q, code %d, signal %q; want %q, %d, %q (%s)", r.Reason, r.ExitCode, r.Signal, c.reason, c.code, c.signal, r.Message)
			}
			if !strings.Contains(r.Message, c.message) {
				t.Errorf("message %q lacks %q", r.Message, c.message)
			}
			if c.name == "setup fails" && (!strings.Contains(r.Message, "why") || !strings.Contains(r.Message, "first")) {
				t.Errorf("message %q lacks the output", r.Message)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LEAK", "of the runner")
	b := newBox(t)
	b.o.Env = map[string]string{"A": "template", "B": "template"}
	b.start().ready()
	a := assign("sh", "-c", `echo "$A $B ${LEAK-none} $MUSTER_TASK_ID"; cat "$MUSTER_PROMPT_FILE"; echo; echo "$MUSTER_PROMPT"; pwd; cat`)
	a.Env = map[string]string{"B": "task", "MUSTER_TASK_ID": "forged"}
	a.Prompt = "do\n\"it\""
	s := newSink()
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	if r := b.finish(s); r.ExitCode != 0 {
		t.Fatalf("%+v", r)
	}
	want := "template task none t1\ndo\n\"it\"\ndo\n\"it\"\n" + b.workspace + "\n"
	if got := s.out(fleet.StreamStdout); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(s.phases, []fleet.TaskState{fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting}) {
		t.Errorf("phases %v", s.phases)
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	const script = `cat; echo "|${PAYLOAD-unset}"; cat "$MUSTER_INPUT_FILE"`
	for to, want := range map[fleet.InputTo]string{
		fleet.InputFile:  "|unset\n{\"a\": 1}\n",
		fleet.InputStdin: "{\"a\": 1}\n|unset\n{\"a\": 1}\n",
		fleet.InputEnv:   "|{\"a\": 1}\n\n{\"a\": 1}\n",
	} {
		a := assign("sh", "-c", script)
		a.Input = &fleet.Input{Data: []byte("{\"a\": 1}\n"), To: to, Name: "PAYLOAD"}
		if s, r := runTask(t, a); r.ExitCode != 0 || s.out(fleet.StreamStdout) != want {
			t.Errorf("%s: %q, want %q; %+v", to, s.out(fleet.StreamStdout), want, r)
		}
	}
	a := assign("sh", "-c", `sha256sum < "$MUSTER_INPUT_FILE"; wc -c`)
	a.Input = &fleet.Input{Data: bytes.Repeat([]byte("\x00\xff\n"), 300_000), To: fleet.InputStdin}
	want := fmt.Sprintf("%x  -\n900000\n", sha256.Sum256(a.Input.Data))
	if s, r := runTask(t, a); r.ExitCode != 0 || s.out(fleet.StreamStdout) != want {
		t.Errorf("binary: %q, want %q; %+v", s.out(fleet.StreamStdout), want, r)
	}
}

func TestLargePromptGoesToTheFileOnly(t *testing.T) {
	t.Parallel()
	a := assign("sh", "-c", `wc -c < "$MUSTER_PROMPT_FILE"; echo "${MUSTER_PROMPT-unset}"`)
	a.Prompt = strings.Repeat("p", 1<<20)
	s, r := runTask(t, a)
	if got := s.out(fleet.StreamStdout); r.ExitCode != 0 || got != "1048576\nunset\n" {
		t.Errorf("%q %+v", got, r)
	}
	if !strings.Contains(s.out(fleet.StreamSystem), "MUSTER_PROMPT_FILE") {
		t.Errorf("note %q", s.out(fleet.StreamSystem))
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		grace        time.Duration
		code         int
		signal       string
	}{
		{"obeys", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done", 20 * time.Second, 5, ""},
		{"ignores", "trap '' TERM; echo up; while :; do sleep 0.01; done", 100 * time.Millisecond, -1, "SIGKILL"},
		{"no grace", "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done", 0, -1, "SIGKILL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t).start().ready()
			s := newSink()
			if err := b.s.Claim(wait(t), assign("sh", "-c", c.script), s); err != nil {
				t.Fatal(err)
			}
			<-s.firstLog
			if err := b.s.Stop(wait(t), fleet.ReasonCancelled, c.grace); err != nil {
				t.Fatal(err)
			}
			r := b.finish(s)
			if r.Reason != fleet.ReasonCancelled || r.ExitCode != c.code || r.Signal != c.signal {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestStopShortensTheGrace(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	if err := b.s.Claim(wait(t), assign("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"), s); err != nil {
		t.Fatal(err)
	}
	<-s.firstLog
	for _, grace := range []time.Duration{time.Hour, 0} {
		if err := b.s.Stop(wait(t), fleet.ReasonCancelled, grace); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.finish(s); r.Signal != "SIGKILL" {
		t.Errorf("%+v", r)
	}
}

func TestBackgroundProcessesEndWithTheTask(t *testing.T) {
	t.Parallel()
	a := assign("sh", "-c", "echo done; sleep 1000 & echo $! > pid")
	b := newBox(t).start().ready()
	s := newSink()
	begin := time.Now()
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	r := b.finish(s)
	if r.Reason != fleet.ReasonNone || s.out(fleet.StreamStdout) != "done\n" {
		t.Errorf("%+v %q", r, s.out(fleet.StreamStdout))
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	pid, err := os.ReadFile(filepath.Join(b.workspace, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	for range 200 { // init of this machine reaps it
		b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the background process is alive")
}

func TestLogLimit(t *testing.T) {
	t.Parallel()
	a := assign("sh", "-c", "head -c 100000 /dev/zero; echo end >&2")
	a.LogBytes = 1000
	s, r := runTask(t, a)
	if r.Reason != fleet.ReasonNone || len(s.out(fleet.StreamStdout))+len(s.out(fleet.StreamStderr)) > 1000 {
		t.Errorf("%d bytes, %+v", len(s.out(fleet.StreamStdout)), r)
	}
	if r.LogDropped < 100004-1000 || r.LogDropped > 100004 {
		t.Errorf("dropped %d", r.LogDropped)
	}
	if n := strings.Count(s.out(fleet.StreamSystem), "log limit"); n != 1 {
		t.Errorf("%d notes: %q", n, s.out(fleet.StreamSystem))
	}
}

func TestBinaryOutputArrivesAsItIs(t *testing.T) {
	t.Parallel()
	a := assign("sh", "-c", "head -c 3000000 /dev/urandom | tee out")
	b := newBox(t).start().ready()
	s := newSink()
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	if r := b.finish(s); r.Reason != fleet.ReasonNone {
		t.Fatalf("%+v", r)
	}
	want, err := os.ReadFile(filepath.Join(b.workspace, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.out(fleet.StreamStdout); sha256.Sum256([]byte(got)) != sha256.Sum256(want) {
		t.Errorf("%d bytes differ from the %d written", len(got), len(want))
	}
}

// countSink counts log without keeping it.
type countSink struct {
	*sink
	n    int64
	peak uint64
}

func (s *countSink) LogOffset() int64 { return s.n }

func (s *countSink) Log(offset int64, _ time.Time, _ fleet.Stream, data []byte) error {
	s.n = offset + int64(len(data))
	if s.n>>23 != offset>>23 { // every 8 MiB
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		s.peak = max(s.peak, m.HeapAlloc)
	}
	return nil
}

func TestHugeLineStreamsInBoundedMemory(t *testing.T) {
	b := newBox(t).start().ready()
	s := &countSink{sink: newSink()}
	const size = 100 << 20
	if err := b.s.Claim(wait(t), assign("sh", "-c", "head -c 104857600 /dev/zero | tr '\\0' x"), s); err != nil {
		t.Fatal(err)
	}
	if r := b.finish(s.sink); r.Reason != fleet.ReasonNone || s.n != size {
		t.Fatalf("%d bytes, %+v", s.n, r)
	}
	// Both ends and the test share this heap.
	if s.peak > 8<<20 {
		t.Errorf("%d MiB of live heap", s.peak>>20)
	}
	t.Logf("peak heap %d KiB", s.peak>>10)
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	t.Run("runs before ready", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		b.o.Prepare, b.o.Env = []string{"echo $X > made", "test -e made"}, map[string]string{"X": "y"}
		b.start().ready()
		if got, _ := os.ReadFile(filepath.Join(b.workspace, "made")); string(got) != "y\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		b.o.Prepare = []string{"true", "echo out; echo because >&2; exit 4"}
		b.start()
		re := reasonOf(t, b.s.Ready(wait(t)))
		if re.Reason != fleet.ReasonPrepare || !strings.Contains(re.Error(), "prepare[1]") || !strings.Contains(re.Output, "because") {
			t.Errorf("%v", re)
		}
		if err := b.s.Claim(wait(t), assign("true"), newSink()); err == nil {
			t.Error("claimed a sandbox that was never ready")
		}
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		b.o.Prepare, b.o.Startup = []string{"exec sleep 60"}, 50*time.Millisecond
		b.start()
		if re := reasonOf(t, b.s.Ready(wait(t))); re.Reason != fleet.ReasonTimeoutStartup {
			t.Errorf("%v", re)
		}
	})
	t.Run("leaves services running", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		b.o.Prepare = []string{"(while :; do echo tick; date > beat; sleep 0.05; done) & echo started"}
		b.start().ready()
		s := newSink()
		a := assign("sh", "-c", "rm -f beat; for i in $(seq 100); do [ -e beat ] && exit 0; sleep 0.05; done; exit 1")
		if err := b.s.Claim(wait(t), a, s); err != nil {
			t.Fatal(err)
		}
		if r := b.finish(s); r.ExitCode != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func reasonOf(t *testing.T, err error) *fleet.ReasonError {
	t.Helper()
	re, ok := err.(*fleet.ReasonError) //nolint:errorlint // the contract names the type
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return re
}

func TestClaimOfAnother(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	if _, _, alive := b.s.Held(wait(t)); !alive {
		t.Error("not alive")
	}
	s := newSink()
	if err := b.s.Claim(wait(t), assign("sleep", "60"), s); err != nil {
		t.Fatal(err)
	}
	other := assign("true")
	other.Fence++
	if err := b.s.Claim(wait(t), other, newSink()); err == nil || !isConflict(err) {
		t.Errorf("second claim: %v", err)
	}
	task, fence, alive := b.s.Held(wait(t))
	if task != "t1" || fence != 7 || !alive {
		t.Errorf("held %s %d %v", task, fence, alive)
	}
	b.s.End(context.Canceled)
	b.stop()
	<-s.ended
	if s.lost == nil {
		t.Error("the sink was not told")
	}
	if err := b.s.Claim(wait(t), assign("sleep", "60"), newSink()); err == nil {
		t.Error("claimed an ended sandbox")
	}
}

func TestAlternatingStreamsKeepTheirBytes(t *testing.T) {
	t.Parallel()
	s, _ := runTask(t, assign("sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo $i; echo $i >&2; i=$((i+1)); done"))
	if s.out(fleet.StreamStdout) != s.out(fleet.StreamStderr) || bytes.Count([]byte(s.out(fleet.StreamStdout)), []byte("\n")) != 3000 {
		t.Error("streams differ")
	}
}
