package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Config is what a Dispatcher works with; every field is needed unless said.
type Config struct {
	Tasks     fleet.Tasks
	Records   fleet.SandboxRecords
	Journal   fleet.Journal
	Queue     fleet.Queue
	Archive   fleet.Archive
	Sandboxes fleet.Sandboxes
	Secrets   fleet.Secrets
	Registry  *Registry
	Logger    *slog.Logger     // default: discard
	Clock     func() time.Time // default: time.Now
	Consumer  string           // name of this process in leases
	// Visibility is how long a lease holds; default 30 s. It is extended three
	// times in that span.
	Visibility time.Duration
	// Grace is between SIGTERM and SIGKILL; default 10 s.
	Grace time.Duration
	// Costs reads what tasks have cost so far, for those with a bound on it; see
	// fleet.Ledger. nil: nothing is bounded.
	Costs func(ctx context.Context, ids []fleet.TaskID) ([]fleet.TaskCost, error)
	// Traced: each command gets a trace context of its own, in $TRACEPARENT and
	// $TRACESTATE. Otherwise it gets its submitter's, if any.
	Traced bool
	// Observe is told of every start and end, for measurements; may be nil.
	Observe Observer
}

// Observer measures. Calls must not block.
type Observer interface {
	// Started: the first instruction of a task ran wait after it was due.
	Started(pool fleet.PoolKey, launch fleet.Launch, wait time.Duration)
	// Settled: a task reached a final state.
	Settled(t fleet.Task)
}

// Dispatcher leases, claims, runs and settles.
type Dispatcher struct {
	Config
	base context.Context // ends with Run; runs are bound to it
	stop context.CancelFunc

	mu   sync.Mutex
	runs map[fleet.TaskID]*run
	// cancelled holds who cancelled a task between its claim and its run.
	cancelled map[fleet.TaskID]string
	wg        sync.WaitGroup
	halt      bool // lease nothing more
	drives    bool // Run has begun: tasks are claimed here
}

// New returns a Dispatcher; Run starts it.
func New(c Config) *Dispatcher {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Visibility <= 0 {
		c.Visibility = 30 * time.Second
	}
	if c.Grace <= 0 {
		c.Grace = 10 * time.Second
	}
	base, stop := context.WithCancel(context.Background())
	return &Dispatcher{Config: c, base: base, stop: stop, runs: map[fleet.TaskID]*run{}, cancelled: map[fleet.TaskID]string{}}
}

// Run leases and runs tasks until ctx ends. It returns once every goroutine of
// its own has ended; sandboxes and their tasks go on and can be adopted.
// Recover must have been called before.
func (d *Dispatcher) Run(ctx context.Context) error {
	ready, release := d.Registry.Watch()
	defer release()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	extend := time.NewTicker(d.Visibility / 3)
	defer extend.Stop()
	defer d.wg.Wait()
	defer d.stop()
	d.mu.Lock()
	d.drives = true
	d.mu.Unlock()
	d.wg.Go(func() { d.sample(d.base) })
	for {
		d.leaseAll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-d.Queue.Wake():
		case <-ready:
		case <-tick.C:
		case <-extend.C:
			d.extendLeases(ctx)
		}
	}
}

// Halt stops leasing; what runs goes on. Used to drain before a stop.
func (d *Dispatcher) Halt() {
	d.mu.Lock()
	d.halt = true
	d.mu.Unlock()
}

// Resume ends Halt.
func (d *Dispatcher) Resume() {
	d.mu.Lock()
	d.halt = false
	d.mu.Unlock()
	d.Registry.poke()
}

// Yield lets go of a sandbox that is another's by now, and of the task in it;
// both go on. It waits until nothing of them is called here any more.
func (d *Dispatcher) Yield(ctx context.Context, id fleet.SandboxID) {
	for _, r := range d.all() {
		if r.box == id {
			r.end()
			d.drop(r)
		}
	}
	d.Registry.Forget(id)
	if err := letGo(ctx, d.Sandboxes, id); err != nil {
		d.Logger.Warn("cannot let go of a sandbox that is another's", "sandbox", id, "error", err)
	}
}

// HearCancelled ends the runs of tasks whose cancellation was asked for in
// another process.
func (d *Dispatcher) HearCancelled(ctx context.Context) error {
	if d.Active() == 0 {
		return nil
	}
	return d.eachActive(ctx, func(t fleet.Task) error {
		if r := d.find(t.ID); r != nil && t.Cancel {
			r.cancel(t.CancelBy)
		}
		return nil
	})
}

// Active counts the tasks that run; one that ended does not count even while
// its sandbox is still being removed.
func (d *Dispatcher) Active() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, r := range d.runs {
		r.mu.Lock()
		if !r.ended {
			n++
		}
		r.mu.Unlock()
	}
	return n
}

// add registers a run; false when the task has one already.
func (d *Dispatcher) add(r *run) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[r.task.ID] != nil {
		return false
	}
	d.runs[r.task.ID] = r
	if by, ok := d.cancelled[r.task.ID]; ok {
		delete(d.cancelled, r.task.ID)
		r.task.Cancel, r.task.CancelBy = true, by
	}
	return true
}

func (d *Dispatcher) drop(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[r.task.ID] == r {
		delete(d.runs, r.task.ID)
	}
}

// all returns the runs there are.
func (d *Dispatcher) all() []*run {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.runs))
}

func (d *Dispatcher) find(id fleet.TaskID) *run {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs[id]
}

// extendLeases prolongs every lease held. A run whose lease was lost belongs
// to another attempt and is ended here.
func (d *Dispatcher) extendLeases(ctx context.Context) {
	for _, r := range d.all() {
		_, err := d.Queue.Extend(ctx, r.lease, d.Visibility)
		switch {
		case errors.Is(err, fleet.ErrFenced):
			r.abandon("another attempt owns the task")
		case err != nil && ctx.Err() == nil:
			d.Logger.Warn("cannot extend a lease", "task", r.task.ID, "error", err)
		}
	}
}

// Cancel asks for the end of a task: at once when it is queued, else by
// SIGTERM and, after the grace, SIGKILL. Cancelling a final task changes
// nothing.
func (d *Dispatcher) Cancel(ctx context.Context, id fleet.TaskID, by string) (fleet.Task, error) {
	t, err := d.Tasks.Cancel(ctx, id, by, d.Clock())
	if err != nil {
		return t, err
	}
	d.mu.Lock()
	r := d.runs[id]
	if r == nil && t.State.Active() && d.drives {
		d.cancelled[id] = by // its run hears of it
	}
	d.mu.Unlock()
	switch {
	case r != nil && !t.State.Final():
		r.cancel(by)
	case t.State == fleet.TaskCancelled && (r == nil || t.Sandbox == ""): // it never ran, or was cancelled before
		d.settled(t)
	}
	return t, nil
}

// Exec runs a command in the sandbox of a running task.
func (d *Dispatcher) Exec(ctx context.Context, id fleet.TaskID, q fleet.ExecRequest) (int, error) {
	box, err := d.sandboxOf(ctx, id)
	if err != nil {
		return 0, err
	}
	return d.Sandboxes.Exec(ctx, box, q)
}

// Usage reads what a running task's sandbox uses now, or what a settled one
// used.
func (d *Dispatcher) Usage(ctx context.Context, id fleet.TaskID) (fleet.Usage, error) {
	if r := d.find(id); r != nil {
		return r.usage(ctx)
	}
	t, err := d.Tasks.Task(ctx, id)
	return t.Result.Usage, err
}

func (d *Dispatcher) sandboxOf(ctx context.Context, id fleet.TaskID) (fleet.SandboxID, error) {
	if r := d.find(id); r != nil {
		return r.box, nil
	}
	t, err := d.Tasks.Task(ctx, id)
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("task %s is %s and has no sandbox to reach: %w", id, t.State, fleet.ErrConflict)
}

// event writes to the journal; a journal that cannot be written is logged and
// does not hold up the work.
func (d *Dispatcher) event(e fleet.Event) {
	if e.At.IsZero() {
		e.At = d.Clock()
	}
	e.Layer = "tasks"
	if _, err := d.Journal.AppendEvents(d.base, []fleet.Event{e}); err != nil && d.base.Err() == nil {
		d.Logger.Warn("cannot journal an event", "kind", e.Kind, "task", e.Task, "error", err)
	}
}

// settled tells the journal and the measurements of a final task.
func (d *Dispatcher) settled(t fleet.Task) {
	if d.Observe != nil {
		d.Observe.Settled(t)
	}
	d.event(fleet.Event{Kind: "task_settled", Task: t.ID, Pool: t.Spec.Pool, Sandbox: t.Sandbox, Node: t.Node, Reason: settledSentence(t)})
}
