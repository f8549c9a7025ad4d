package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The scripts of the suite that a fake must play too; see its test.
const (
	// ScriptHello prints "hello $NAME" to stdout and "oops" to stderr.
	ScriptHello = `echo "hello $NAME"; echo oops >&2`
	// ScriptFail exits with 7.
	ScriptFail = `echo failing; exit 7`
	// ScriptPolite ends with 3 when it is asked to.
	ScriptPolite = `trap 'echo leaving; exit 3' TERM; echo started; while :; do sleep 0.05; done`
	// ScriptStubborn cannot be asked.
	ScriptStubborn = `trap '' TERM; echo started; while :; do sleep 0.05; done`
	// ScriptTalk prints a line every 20 ms and goes on for an hour.
	ScriptTalk = `i=0; while [ $i -lt 180000 ]; do echo "line $i"; i=$((i+1)); sleep 0.02; done`
	// ScriptSilent prints one line and then nothing.
	ScriptSilent = `echo started; sleep 3600`
	// ScriptLoud prints 200,000 bytes.
	ScriptLoud = `i=0; while [ $i -lt 2000 ]; do echo "this line has one hundred bytes with its line feed, which makes for an easy count of them all --- ok"; i=$((i+1)); done`
	// ScriptCount prints "line 0" to "line 99", one every 20 ms.
	ScriptCount = `i=0; while [ $i -lt 100 ]; do echo "line $i"; i=$((i+1)); sleep 0.02; done`
	// ScriptFiles leaves out/report.txt ("result") in the workspace.
	ScriptFiles = `mkdir -p out && printf result > out/report.txt`
)

// CommandMissing is a program that is nowhere.
const CommandMissing = "muster-no-such-program"

// PrepareFails is a prepare command that says "broken" and fails.
const PrepareFails = "echo broken >&2; exit 9"

func testLife(t *testing.T, m *machine) {
	spec := m.create(t)
	ids, err := m.s.List(t.Context())
	if err != nil || !slices.Equal(ids, []fleet.SandboxID{spec.ID}) {
		t.Errorf("list: %v, %v", ids, err)
	}
	a := assignment(ScriptHello)
	a.Env = map[string]string{"NAME": "world"}
	r := m.claim(t, spec.ID, a)
	p := r.Report(t)
	if p.Task != a.Task || p.Fence != a.Fence || p.ExitCode != 0 || p.Reason != "" || p.Signal != "" {
		t.Errorf("report %+v", p)
	}
	if text := r.Text(); !strings.Contains(text, "hello world\n") || !strings.Contains(text, "oops\n") {
		t.Errorf("log %q", text)
	}
	if !slices.IsSortedFunc(r.phases, byLife) || !slices.Contains(r.phases, fleet.TaskRunning) {
		t.Errorf("phases %v", r.phases)
	}
	if err := m.s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	m.quiet(t)
}

func byLife(a, b fleet.TaskState) int {
	return slices.Index(fleet.TaskStates, a) - slices.Index(fleet.TaskStates, b)
}

// quiet checks that no exit was announced: a sandbox whose task has reported,
// and one that was destroyed, did not end by itself.
func (m *machine) quiet(t *testing.T) {
	t.Helper()
	select {
	case e := <-m.s.Exited():
		t.Errorf("exit announced: %+v", e)
	case <-time.After(50 * time.Millisecond):
	}
}

func testCreateTwice(t *testing.T, m *machine) {
	spec := m.spec()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = m.s.Create(t.Context(), spec) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := m.s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("creating what is ready took %v", took)
	}
	if ids, err := m.s.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("list: %v, %v", ids, err)
	}
}

func testCreateInvalid(t *testing.T, m *machine) {
	spec := m.spec()
	spec.ID = "../x"
	if _, err := m.s.Create(t.Context(), spec); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("create of a bad id: %v", err)
	}
	if ids, err := m.s.List(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("list: %v, %v", ids, err)
	}
}

// testCreateCancelled ends a Create at several moments; nothing may be left.
func testCreateCancelled(t *testing.T, m *machine) {
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 45 * time.Millisecond} {
		spec := m.spec()
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := m.s.Create(ctx, spec)
		cancel()
		ids, lerr := m.s.List(t.Context())
		if lerr != nil {
			t.Fatal(lerr)
		}
		switch {
		case err == nil && !slices.Equal(ids, []fleet.SandboxID{spec.ID}):
			t.Errorf("created, but list returns %v", ids)
		case err != nil && len(ids) > 0:
			t.Errorf("not created after %v (%v), but list returns %v", after, err, ids)
		}
		if err := m.s.Destroy(t.Context(), spec.ID); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
}

func testPrepareFails(t *testing.T, m *machine) {
	spec := m.spec()
	spec.Prepare = []string{PrepareFails}
	_, err := m.s.Create(t.Context(), spec)
	var r *fleet.ReasonError
	if !errors.As(err, &r) || r.Reason != fleet.ReasonPrepare || !strings.Contains(r.Output, "broken") {
		t.Errorf("create: %v", err)
	}
	if ids, err := m.s.List(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("left after a failed prepare: %v, %v", ids, err)
	}
	m.quiet(t)
}

func testDestroyTwice(t *testing.T, m *machine) {
	spec := m.create(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := m.s.Destroy(t.Context(), spec.ID); err != nil {
				t.Errorf("destroy: %v", err)
			}
		})
	}
	wg.Wait()
	if err := m.s.Destroy(t.Context(), fleet.NewSandboxID(time.Now())); err != nil {
		t.Errorf("destroy of what never was: %v", err)
	}
	if err := m.s.Claim(t.Context(), spec.ID, assignment(ScriptHello), NewRecorder()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("claim of the destroyed: %v", err)
	}
	m.quiet(t)
}

func testClaimConflict(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptPolite)
	r := m.claim(t, spec.ID, a)
	r.WaitLog(t, "started")
	if err := m.s.Claim(t.Context(), spec.ID, assignment(ScriptHello), NewRecorder()); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("second claim: %v", err)
	}
	b := a
	b.Fence++
	if err := m.s.Claim(t.Context(), spec.ID, b, NewRecorder()); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("claim with another fence: %v", err)
	}
	again := r.Successor()
	if err := m.s.Claim(t.Context(), spec.ID, a, again); err != nil {
		t.Fatalf("claim again with the same task and fence: %v", err)
	}
	if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonCancelled, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if p := again.Report(t); p.Reason != fleet.ReasonCancelled {
		t.Errorf("report %+v", p)
	}
}

func testClaimUnknown(t *testing.T, m *machine) {
	id := fleet.NewSandboxID(time.Now())
	if err := m.s.Claim(t.Context(), id, assignment(ScriptHello), NewRecorder()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("claim: %v", err)
	}
	if err := m.s.Stop(t.Context(), id, fleet.ReasonCancelled, 0); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("stop: %v", err)
	}
	if _, err := m.s.Exec(t.Context(), id, fleet.ExecRequest{Command: []string{"true"}}); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("exec: %v", err)
	}
	if _, err := m.s.Usage(t.Context(), id); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("usage: %v", err)
	}
}

func testFailingTask(t *testing.T, m *machine) {
	p := m.run(t, ScriptFail).Report(t)
	if p.ExitCode != 7 || p.Reason != fleet.ReasonExit {
		t.Errorf("report %+v", p)
	}
}

func testNoSuchCommand(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment("")
	a.Command = []string{CommandMissing}
	p := m.claim(t, spec.ID, a).Report(t)
	if p.Reason != fleet.ReasonCommand || !strings.Contains(p.Message, CommandMissing) {
		t.Errorf("report %+v", p)
	}
}

func testExec(t *testing.T, m *machine) {
	spec := m.create(t)
	r := m.claim(t, spec.ID, assignment(ScriptPolite))
	r.WaitLog(t, "started")
	var out bytes.Buffer
	code, err := m.s.Exec(t.Context(), spec.ID, fleet.ExecRequest{Command: []string{"echo", "beside"}, Stdout: &out})
	if err != nil || code != 0 || !strings.Contains(out.String(), "beside") {
		t.Errorf("exec: %d, %v, %q", code, err, out.String())
	}
	if m.h.Real {
		out.Reset()
		code, err := m.s.Exec(t.Context(), spec.ID, fleet.ExecRequest{
			Command: []string{"sh", "-c", "cat; exit 4"}, Stdin: strings.NewReader("typed"), Stdout: &out,
		})
		if err != nil || code != 4 || out.String() != "typed" {
			t.Errorf("exec with input: %d, %v, %q", code, err, out.String())
		}
	}
	if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonCancelled, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	r.Report(t)
}

func testStop(t *testing.T, m *machine) {
	spec := m.create(t)
	r := m.claim(t, spec.ID, assignment(ScriptPolite))
	r.WaitLog(t, "started")
	if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonCancelled, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	p := r.Report(t)
	if p.Reason != fleet.ReasonCancelled || p.ExitCode != 3 || !strings.Contains(r.Text(), "leaving") {
		t.Errorf("report %+v, log %q", p, r.Text())
	}
}

func testStopIgnored(t *testing.T, m *machine) {
	spec := m.create(t)
	r := m.claim(t, spec.ID, assignment(ScriptStubborn))
	r.WaitLog(t, "started")
	began := time.Now()
	if err := m.s.Stop(t.Context(), spec.ID, fleet.ReasonBudget, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	p := r.Report(t)
	if took := time.Since(began); p.Reason != fleet.ReasonBudget || p.Signal != "SIGKILL" || took < 150*time.Millisecond {
		t.Errorf("report %+v after %v", p, took)
	}
}

func testRunTimeout(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptTalk)
	a.Timeouts.Run = 300 * time.Millisecond
	if p := m.claim(t, spec.ID, a).Report(t); p.Reason != fleet.ReasonTimeoutRun || p.Run < 250*time.Millisecond {
		t.Errorf("report %+v", p)
	}
}

func testIdleTimeout(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptSilent)
	a.Timeouts.Idle = 300 * time.Millisecond
	if p := m.claim(t, spec.ID, a).Report(t); p.Reason != fleet.ReasonTimeoutIdle {
		t.Errorf("report %+v", p)
	}
}

func testLogLimit(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptLoud)
	a.LogBytes = 10_000
	r := m.claim(t, spec.ID, a)
	p := r.Report(t)
	const slack = 4096 // a line of muster's own
	if n := int64(len(r.Text())); n > a.LogBytes+slack || n < a.LogBytes/2 {
		t.Errorf("%d bytes were kept of a limit of %d", n, a.LogBytes)
	}
	if p.LogDropped < 180_000 || p.Reason != "" {
		t.Errorf("report %+v", p)
	}
}

func testPatchAndArtifacts(t *testing.T, m *machine) {
	spec := m.create(t)
	a := assignment(ScriptFiles)
	a.Artifacts = []string{"out/**"}
	r := m.claim(t, spec.ID, a)
	p := r.Report(t)
	if len(p.Artifacts) != 1 || p.Artifacts[0].Path != "out/report.txt" || string(r.artifacts["out/report.txt"]) != "result" {
		t.Errorf("report %+v, stored %q", p, r.artifacts)
	}
}

// testSinkErrors lets the store fail a while: everything must come again.
func testSinkErrors(t *testing.T, m *machine) {
	spec := m.create(t)
	r := NewRecorder()
	for method, n := range map[string]int{"Log": 2, "Done": 1, "Phase": 1, "Artifact": 1} {
		r.FailNext(method, n)
	}
	a := assignment(ScriptCount + "; " + ScriptFiles)
	a.Artifacts = []string{"out/*"}
	if err := m.s.Claim(t.Context(), spec.ID, a, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Report(t); p.ExitCode != 0 {
		t.Errorf("report %+v", p)
	}
	completeCount(t, r)
	if string(r.artifacts["out/report.txt"]) != "result" {
		t.Errorf("artifacts %q", r.artifacts)
	}
}

// completeCount checks that the log of ScriptCount is whole and in order.
func completeCount(t *testing.T, r *Recorder) {
	t.Helper()
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if !strings.Contains(r.Text(), want.String()) {
		t.Errorf("log %q", r.Text())
	}
}

func testUsage(t *testing.T, m *machine) {
	spec := m.create(t)
	if m.h.lacks(NoReadings) {
		if u, err := m.s.Usage(t.Context(), spec.ID); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("usage that nobody measures: %+v, %v", u, err)
		}
		return
	}
	var last fleet.Usage
	for range 3 {
		u, err := m.s.Usage(t.Context(), spec.ID)
		if err != nil {
			t.Fatal(err)
		}
		if u.At.Before(last.At) || u.CPU < last.CPU || u.MemoryByteSeconds < last.MemoryByteSeconds || u.IOWriteBytes < last.IOWriteBytes {
			t.Errorf("a counter fell: %+v after %+v", u, last)
		}
		if !m.h.lacks(NoCgroups) && (u.CPU == 0 || u.MemoryBytes == 0 || u.Pids == 0) {
			t.Errorf("a running sandbox uses nothing: %+v", u)
		}
		last = u
		time.Sleep(10 * time.Millisecond)
	}
}

func testManyAtOnce(t *testing.T, m *machine) {
	const n = 6
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			spec := m.spec()
			if _, err := m.s.Create(t.Context(), spec); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			r := NewRecorder()
			a := assignment(ScriptHello)
			a.Env = map[string]string{"NAME": string(spec.ID)}
			if err := m.s.Claim(t.Context(), spec.ID, a, r); err != nil {
				t.Errorf("claim: %v", err)
				return
			}
			<-r.ended
			if !strings.Contains(r.Text(), "hello "+string(spec.ID)) {
				t.Errorf("%s, log %q", r.how(), r.Text())
			}
			if err := m.s.Destroy(t.Context(), spec.ID); err != nil {
				t.Errorf("destroy: %v", err)
			}
		})
	}
	wg.Wait()
}
