//go:build linux

package runner

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// task is the one task of a runner.
type task struct {
	r     *Runner
	a     fleet.Assignment
	ref   protocol.TaskRef
	log   *window
	stop  *stopper
	begin time.Time
	env   []string
	steps *steps
	stdin string // file with the command's standard input; empty: none
	base  string // what the patch is against; empty: no repository

	mu     sync.Mutex
	own    map[string]string // environment
	phases []protocol.Phase
	done   bool // report and files are complete
	report fleet.RunReport
	files  []outFile
	stored int // how many of files the host has
}

// outFile is a file for the host. open never fails: what cannot be read any
// more reads as empty.
type outFile struct {
	path string // empty: the patch
	size int64
	open func() io.ReadCloser
}

func newTask(r *Runner, c protocol.Claim) *task {
	a := c.Assignment
	t := &task{
		r: r, a: a, ref: protocol.TaskRef{Task: a.Task, Fence: a.Fence},
		log: newWindow(c.LogOffset, a.LogBytes, r.wake), stop: newStopper(), begin: time.Now(),
		report: fleet.RunReport{Task: a.Task, Fence: a.Fence, ExitCode: -1},
	}
	context.AfterFunc(r.ctx, t.log.close) // the runner is ending: nobody will take it
	t.steps = &steps{a: r.a, ctx: r.ctx, sink: t.log.write, blocked: t.log.blocked, stop: t.stop}
	return t
}

func (t *task) requestStop(reason fleet.TaskReason, grace time.Duration) {
	if reason == fleet.ReasonNone {
		reason = fleet.ReasonCancelled
	}
	t.stop.request(reason, grace)
}

// run is the whole task, from accepted to done.
func (t *task) run() {
	t.phase(fleet.TaskStarting)
	r := &t.report
	if t.a.Timeouts.Startup > 0 {
		t.steps.deadline = t.begin.Add(t.a.Timeouts.Startup)
	}
	t.r.mu.Lock()
	env := t.r.env
	t.base = t.r.base
	t.r.mu.Unlock()
	own := t.makeOwn()
	t.mu.Lock()
	t.own = own
	t.mu.Unlock()
	t.env = t.r.environ(own, env, t.a.Env)
	r.Start = time.Since(t.begin)
	if r.Reason == fleet.ReasonNone {
		t.setup()
	}
	if r.Reason == fleet.ReasonNone {
		t.command()
	}
	t.r.a.killAll()
	t.steps.finish()
	t.phase(fleet.TaskCollecting)
	begin := time.Now()
	t.collect()
	t.r.a.killAll()
	r.Collect = time.Since(begin)
	r.LogDropped = t.log.droppedBytes()
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	t.r.mu.Lock()
	t.r.state = protocol.StateDone
	t.r.mu.Unlock()
	t.r.wake()
}

func (t *task) phase(s fleet.TaskState) {
	t.mu.Lock()
	t.phases = append(t.phases, protocol.Phase{TaskRef: t.ref, State: s, At: time.Now().UnixNano()})
	t.mu.Unlock()
	t.r.wake()
}

// maxEnvString is the largest "NAME=value" Linux executes with.
const maxEnvString = 128<<10 - 1

// ownEnv is the part of the environment users cannot set.
func (t *task) ownEnv() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own
}

func (t *task) makeOwn() map[string]string {
	own := map[string]string{"MUSTER_TASK_ID": string(t.a.Task)}
	t.takeInput(own)
	if t.a.Prompt == "" {
		return own
	}
	if len("MUSTER_PROMPT=")+len(t.a.Prompt) < maxEnvString && !strings.Contains(t.a.Prompt, "\x00") {
		own["MUSTER_PROMPT"] = t.a.Prompt
	} else {
		t.log.note("the prompt is too large for an environment variable: read it from $MUSTER_PROMPT_FILE")
	}
	if file, err := t.writeFile("muster-prompt-*", []byte(t.a.Prompt)); err != nil {
		t.log.note("the prompt file could not be written: %v", err)
	} else {
		own["MUSTER_PROMPT_FILE"] = file
	}
	return own
}

// takeInput puts the input where the task wants it. Without it the task cannot
// do its work, so it fails where that cannot be done.
func (t *task) takeInput(own map[string]string) {
	in := t.a.Input
	if in == nil {
		return
	}
	file, err := t.writeFile("muster-input-*", in.Data)
	if err != nil {
		t.report.Reason, t.report.Message = fleet.ReasonSetup, fmt.Sprintf("the input could not be written: %v", err)
		return
	}
	own["MUSTER_INPUT_FILE"] = file
	switch in.To {
	case fleet.InputStdin:
		t.stdin = file
	case fleet.InputEnv:
		own[in.Name] = string(in.Data)
	}
}

// writeFile puts bytes where the agent can read them and the patch does not
// see them.
func (t *task) writeFile(pattern string, b []byte) (file string, err error) {
	t.r.a.as(func() {
		var f *os.File
		if f, err = os.CreateTemp(t.r.tempDir(), pattern); err != nil {
			return
		}
		file = f.Name()
		_, err = f.Write(b)
		if e := f.Close(); err == nil {
			err = e
		}
	})
	return file, err
}

// tempDir is where the agent may write besides its workspace.
func (r *Runner) tempDir() string {
	if r.c.Temp != "" {
		return r.c.Temp
	}
	return "/tmp"
}

// setup clones and runs the setup commands.
func (t *task) setup() {
	if t.a.Repo == nil && len(t.a.Setup) == 0 {
		return
	}
	begin := time.Now()
	defer func() { t.report.Setup = time.Since(begin) }()
	if t.a.Repo != nil {
		if o := t.checkout(); o != nil {
			t.fail(o)
			return
		}
	}
	for i, line := range t.a.Setup {
		t.log.note("setup: %s", shorten(line, 500))
		c := command{argv: []string{"/bin/sh", "-c", line}, env: t.env, dir: t.r.c.Workspace}
		o := t.steps.run(c, fleet.ReasonTimeoutStartup)
		if !o.ok() {
			t.fail(&failure{o: o, what: fmt.Sprintf("setup[%d] `%s`", i, shorten(line, 200))})
			return
		}
	}
}

// failure is a step before the command that did not succeed.
type failure struct {
	o    *outcome
	what string // what was run, for people
}

// messageTail is how much output goes into a message.
const messageTail = 1 << 10

// fail records why the command was never reached.
func (t *task) fail(f *failure) {
	r := &t.report
	r.ExitCode, r.Signal = f.o.exit()
	if f.o.stopped != fleet.ReasonNone {
		r.Reason = f.o.stopped
		r.Message = f.what + " " + t.stopMessage(f.o.stopped)
		return
	}
	r.Reason = fleet.ReasonSetup
	if se := (*startError)(nil); asStart(f.o.err, &se) {
		if _, reason := se.code(); reason == fleet.ReasonPids {
			r.Reason = reason
		}
	}
	r.Message = f.what + " " + f.o.what()
	if out := f.o.output(); out != "" {
		if len(out) > messageTail {
			out = "…" + strings.ToValidUTF8(out[len(out)-messageTail:], "")
		}
		r.Message += ": " + out
	}
}

// stopMessage says why we ended something, as the rest of a sentence.
func (t *task) stopMessage(reason fleet.TaskReason) string {
	switch reason {
	case fleet.ReasonTimeoutStartup:
		return fmt.Sprintf("was still running after timeouts.startup (%s)", t.a.Timeouts.Startup)
	case fleet.ReasonTimeoutRun:
		return fmt.Sprintf("was still running after timeouts.run (%s)", t.a.Timeouts.Run)
	case fleet.ReasonTimeoutIdle:
		return fmt.Sprintf("wrote nothing for timeouts.idle (%s)", t.a.Timeouts.Idle)
	case fleet.ReasonCancelled:
		return "was cancelled"
	}
	return fmt.Sprintf("was stopped (%s)", reason)
}

// command runs the command itself.
func (t *task) command() {
	r := &t.report
	t.phase(fleet.TaskRunning)
	begin := time.Now()
	t.steps.deadline, t.steps.idle = time.Time{}, t.a.Timeouts.Idle
	if t.a.Timeouts.Run > 0 {
		t.steps.deadline = begin.Add(t.a.Timeouts.Run)
	}
	var o *outcome
	if len(t.a.Command) == 0 {
		o = &outcome{err: &startError{name: "(empty command)", dir: t.r.c.Workspace, err: syscall.ENOENT}}
	} else {
		o = t.steps.run(command{argv: t.a.Command, env: t.env, dir: t.r.c.Workspace, stdin: t.stdin}, fleet.ReasonTimeoutRun)
	}
	r.Run = time.Since(begin)
	r.ExitCode, r.Signal = o.exit()
	se := (*startError)(nil)
	switch {
	case o.stopped != fleet.ReasonNone:
		r.Reason, r.Message = o.stopped, "the command "+t.stopMessage(o.stopped)
	case asStart(o.err, &se):
		r.ExitCode, r.Reason = se.code()
		r.Message = "the command could not be run: " + o.err.Error()
	case o.err != nil:
		r.Reason, r.Message = fleet.ReasonCommand, "the command could not be run: "+o.err.Error()
	case !o.ok():
		r.Reason, r.Message = fleet.ReasonExit, "the command "+o.what()
	}
}

// progress returns the phases so far and whether the report is complete.
func (t *task) progress() ([]protocol.Phase, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.phases, t.done
}

// nextFile returns the first file the host has not stored, and its number.
func (t *task) nextFile() (outFile, uint32, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stored >= len(t.files) {
		return outFile{}, 0, false
	}
	return t.files[t.stored], uint32(t.stored) + 1, true
}

// fileNumber is the number of that file on the wire.
func (t *task) fileNumber() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint32(t.stored) + 1
}

func (t *task) fileStored() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stored < len(t.files) {
		t.stored++
	}
}

// fileChanged notes that a file became shorter than it was when collected.
func (t *task) fileChanged(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.ArtifactNote = join(t.report.ArtifactNote, shorten(path, 200)+" changed while it was read")
}

func (t *task) finalReport() fleet.RunReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report
}

func join(note, more string) string {
	if note == "" {
		return more
	}
	return note + "; " + more
}

// inWorkspace joins a path to the workspace.
func (r *Runner) inWorkspace(elem ...string) string {
	return filepath.Join(append([]string{r.c.Workspace}, elem...)...)
}
