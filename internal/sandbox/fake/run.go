package fake

import (
	"bytes"
	"context"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Script is a task in Go. It returns the report; task, fence, durations and
// dropped log bytes are filled in. ctx ends when the task is stopped or times
// out; a script that goes on is taken for killed after the grace time, but
// must still return some time.
type Script func(ctx context.Context, r *Run) fleet.RunReport

// Succeed is the Script of the zero Options.
func Succeed(_ context.Context, r *Run) fleet.RunReport {
	r.Running()
	r.Print(fleet.StreamStdout, "done\n")
	return fleet.RunReport{}
}

// Run is a task that runs in a fake sandbox.
type Run struct {
	Assignment fleet.Assignment
	Spec       fleet.SandboxSpec

	b       *box
	started time.Time

	mu      sync.Mutex
	cancel  context.CancelFunc
	ctx     context.Context
	reason  fleet.TaskReason
	killed  chan struct{}
	kill    *time.Timer
	limit   *time.Timer // timeouts.run
	idle    *time.Timer // timeouts.idle
	offset  int64
	dropped int64
	over    bool
	running time.Time
	patch   int64
	files   []fleet.Artifact
}

func newRun(b *box, a fleet.Assignment) *Run {
	r := &Run{Assignment: a, Spec: b.spec, b: b, started: time.Now(), killed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// drive runs the script and reports, unless the sandbox ends before.
func (r *Run) drive(script Script) {
	defer r.cancel()
	r.b.say(event{phase: fleet.TaskStarting, at: r.started})
	result := make(chan fleet.RunReport, 1)
	var body sync.WaitGroup
	defer body.Wait()
	body.Go(func() { result <- script(r.ctx, r) })
	var report fleet.RunReport
	select {
	case <-r.b.ended:
		r.finish()
		return
	case report = <-result:
	case <-r.killed:
		report = fleet.RunReport{ExitCode: -1, Signal: "SIGKILL"}
	}
	r.b.say(event{report: r.complete(report)})
}

// complete fills in what the runner itself knows.
func (r *Run) complete(p fleet.RunReport) *fleet.RunReport {
	reason := r.finish()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	p.Task, p.Fence = r.Assignment.Task, r.Assignment.Fence
	if reason != "" {
		p.Reason = reason
	} else if p.Reason == "" && (p.ExitCode != 0 || p.Signal != "") {
		p.Reason = fleet.ReasonExit
	}
	if r.running.IsZero() {
		p.Start = now.Sub(r.started)
	} else {
		p.Start, p.Run = r.running.Sub(r.started), now.Sub(r.running)
	}
	p.LogDropped, p.PatchBytes, p.Artifacts = r.dropped, r.patch, r.files
	return &p
}

// finish ends the context and all timers.
func (r *Run) finish() fleet.TaskReason {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for _, t := range []*time.Timer{r.kill, r.limit, r.idle} {
		if t != nil {
			t.Stop()
		}
	}
	return r.reason
}

func (r *Run) stop(reason fleet.TaskReason, grace time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.reason != "" {
		return
	}
	r.reason = reason
	r.kill = time.AfterFunc(grace, func() { close(r.killed) })
	r.cancel()
}

// Running tells that the command began.
func (r *Run) Running() {
	r.mu.Lock()
	r.running = time.Now()
	t := r.Assignment.Timeouts
	if t.Run > 0 {
		r.limit = time.AfterFunc(t.Run, func() { r.stop(fleet.ReasonTimeoutRun, time.Second) })
	}
	if t.Idle > 0 {
		r.idle = time.AfterFunc(t.Idle, func() { r.stop(fleet.ReasonTimeoutIdle, time.Second) })
	}
	at := r.running
	r.mu.Unlock()
	r.b.say(event{phase: fleet.TaskRunning, at: at})
}

// Collecting tells that the command has ended and results are gathered.
func (r *Run) Collecting() { r.b.say(event{phase: fleet.TaskCollecting, at: time.Now()}) }

// Print writes to the task's log, within the assignment's log limit.
func (r *Run) Print(stream fleet.Stream, text string) {
	data := []byte(text)
	r.mu.Lock()
	if r.idle != nil && !r.over {
		r.idle.Reset(r.Assignment.Timeouts.Idle)
	}
	if limit := r.Assignment.LogBytes; limit > 0 && r.offset+int64(len(data)) > limit {
		keep := max(0, limit-r.offset)
		r.dropped += int64(len(data)) - keep
		data = data[:keep]
	}
	offset := r.offset
	r.offset += int64(len(data))
	r.mu.Unlock()
	if len(data) > 0 {
		r.b.say(event{offset: offset, at: time.Now(), stream: stream, data: data})
	}
}

// Sleep waits, or returns early with ctx's error.
func (r *Run) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Patch sends a patch.
func (r *Run) Patch(diff []byte) {
	r.mu.Lock()
	r.patch = int64(len(diff))
	r.mu.Unlock()
	r.b.say(event{patch: true, data: diff})
}

// Artifact sends a collected file.
func (r *Run) Artifact(path string, data []byte) {
	a := fleet.Artifact{Path: path, Bytes: int64(len(data))}
	r.mu.Lock()
	r.files = append(r.files, a)
	r.mu.Unlock()
	r.b.say(event{artifact: &a, data: data})
}

// retryDelay is how long the runner waits after a sink returned an error, as
// a real one does before it connects again.
const retryDelay = 20 * time.Millisecond

// pump delivers events to sink from the beginning until the report is taken,
// the sandbox ends, another sink is attached or the adapter is closed.
func (b *box) pump(a attachment, sink fleet.TaskSink, closed <-chan struct{}) {
	defer close(a.done)
	if a.before != nil {
		select {
		case <-a.before:
		case <-closed:
			return
		}
	}
	for i := 0; ; {
		b.mu.Lock()
		more, replaced := b.more, b.gen != a.gen
		var e *event
		if i < len(b.events) {
			e = &b.events[i]
		}
		b.mu.Unlock()
		if replaced {
			return
		}
		if e != nil {
			done, err := deliver(*e, sink)
			if done {
				return
			}
			i++
			if err == nil {
				continue
			}
			if !b.alive() {
				b.lose(a, sink)
				return
			}
			i = 0
			if !pause(closed) {
				return
			}
			continue
		}
		select {
		case <-more:
		case <-closed:
			return
		case <-b.ended:
			if b.drained(i) {
				b.lose(a, sink)
				return
			}
		}
	}
}

// lose tells the sink of the end, unless it was let go or replaced.
func (b *box) lose(a attachment, sink fleet.TaskSink) {
	b.mu.Lock()
	current, err := b.gen == a.gen, b.err
	b.mu.Unlock()
	if current {
		sink.Lost(err)
	}
}

func (b *box) drained(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return i >= len(b.events)
}

// pause waits before a further attempt; false when the adapter was closed.
func pause(closed <-chan struct{}) bool {
	t := time.NewTimer(retryDelay)
	defer t.Stop()
	select {
	case <-closed:
		return false
	case <-t.C:
		return true
	}
}

// deliver hands one event over; done when it was the report and was taken.
func deliver(e event, sink fleet.TaskSink) (done bool, err error) {
	switch {
	case e.report != nil:
		err = sink.Done(*e.report)
		return err == nil, err
	case e.patch:
		return false, sink.Patch(int64(len(e.data)), bytes.NewReader(e.data))
	case e.artifact != nil:
		return false, sink.Artifact(*e.artifact, bytes.NewReader(e.data))
	case e.phase != "":
		return false, sink.Phase(e.phase, e.at)
	}
	seen := sink.LogOffset() - e.offset
	if seen >= int64(len(e.data)) {
		return false, nil
	}
	if seen > 0 {
		e.offset, e.data = e.offset+seen, e.data[seen:]
	}
	return false, sink.Log(e.offset, e.at, e.stream, e.data)
}
