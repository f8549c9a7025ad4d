package fake

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

type state int

const (
	stateStarting state = iota
	stateReady
	stateBusy
	stateEnded
)

// box is one sandbox with its runner. The runner keeps every event of its
// task, so that a new sink can be given all of them again.
type box struct {
	spec    fleet.SandboxSpec
	created time.Time
	settled chan struct{} // closed when Create has its answer
	ended   chan struct{} // closed when the sandbox is gone

	mu       sync.Mutex
	state    state
	err      error // of Create, or why it ended
	task     fleet.Assignment
	run      *Run
	events   []event
	more     chan struct{} // closed and replaced when events grow
	gen      int           // attachment whose pump may deliver
	lastPump chan struct{} // closed when the newest pump has returned
	script   sync.WaitGroup
	holder   *Sandboxes    // who created or adopted it last
	released bool          // by its holder; nobody has adopted it since
	changed  chan struct{} // closed and replaced when it is released
}

// event is one thing the runner says.
type event struct {
	offset   int64
	at       time.Time
	stream   fleet.Stream // of a log chunk
	data     []byte
	phase    fleet.TaskState
	artifact *fleet.Artifact
	patch    bool
	report   *fleet.RunReport
}

func newBox(spec fleet.SandboxSpec, holder *Sandboxes) *box {
	return &box{
		spec: spec, created: time.Now(), settled: make(chan struct{}),
		ended: make(chan struct{}), more: make(chan struct{}),
		holder: holder, changed: make(chan struct{}),
	}
}

// settle gives Create's answer to all who wait for it.
func (b *box) settle(err error) {
	b.mu.Lock()
	if err != nil {
		b.err = err
		b.endLocked()
	} else if b.state == stateStarting {
		b.state = stateReady
	}
	b.mu.Unlock()
	close(b.settled)
}

func (b *box) awaitReady(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("create %s: %w", b.spec.ID, ctx.Err())
	case <-b.settled:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == stateEnded {
		return fmt.Errorf("create %s: %w", b.spec.ID, b.err)
	}
	return nil
}

// end makes the sandbox gone and returns the state it was in.
func (b *box) end(err error) state {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.state
	if was != stateEnded {
		b.err = err
		b.endLocked()
	}
	return was
}

func (b *box) endLocked() {
	if b.state == stateEnded {
		return
	}
	b.state = stateEnded
	close(b.ended)
}

// wait returns when nothing of the sandbox runs any more.
func (b *box) wait() {
	b.script.Wait()
}

func (b *box) cause() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *box) alive() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state != stateEnded
}

func (b *box) isReady() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == stateReady || b.state == stateBusy
}

func (b *box) held() (fleet.TaskID, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.task.Task, b.task.Fence
}

// claim starts the task, or accepts the claim that already holds.
func (b *box) claim(a fleet.Assignment, script Script) (first bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case stateReady:
	case stateBusy:
		if b.task.Task == a.Task && b.task.Fence == a.Fence {
			return false, nil
		}
		return false, fmt.Errorf("sandbox %s holds task %s: %w", b.spec.ID, b.task.Task, fleet.ErrConflict)
	case stateStarting:
		return false, fmt.Errorf("sandbox %s is not ready: %w", b.spec.ID, fleet.ErrConflict)
	default:
		return false, fmt.Errorf("sandbox %s: %w", b.spec.ID, fleet.ErrNotFound)
	}
	b.state, b.task = stateBusy, a
	b.run = newRun(b, a)
	b.script.Go(func() { b.run.drive(script) })
	return true, nil
}

func (b *box) stop(reason fleet.TaskReason, grace time.Duration) {
	b.mu.Lock()
	run := b.run
	b.mu.Unlock()
	if run != nil {
		run.stop(reason, grace)
	}
}

func (b *box) say(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
	close(b.more)
	b.more = make(chan struct{})
}

// attach makes the caller's pump the only one that delivers; it begins when
// the one before it has returned.
func (b *box) attach() attachment {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gen++
	a := attachment{gen: b.gen, before: b.lastPump, done: make(chan struct{})}
	b.lastPump = a.done
	close(b.more) // wake the pump before, to let it see that it is replaced
	b.more = make(chan struct{})
	return a
}

type attachment struct {
	gen    int
	before <-chan struct{}
	done   chan struct{}
}
