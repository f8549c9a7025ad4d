package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Recovered counts what a start found of an earlier process.
type Recovered struct {
	Adopted  int // warm sandboxes taken over
	Resumed  int // running tasks taken over
	Requeued int // tasks whose sandbox was gone
	Reaped   int // sandboxes and remains removed
}

// Recover brings memory, store and host together after a start, before Run:
// waiting sandboxes that live are adopted, running tasks go on, tasks whose
// sandbox is gone are tried again, and everything unknown is removed. It is
// safe to be interrupted and run again.
func (d *Dispatcher) Recover(ctx context.Context) (_ Recovered, err error) {
	// A recovery that is broken off ends everything it began: nothing goes on
	// trying in the background.
	undo := context.AfterFunc(ctx, d.stop)
	defer func() {
		if undo(); err != nil {
			d.stop()
			d.wg.Wait()
		}
	}()
	known, err := d.Records.Sandboxes(ctx, d.Clock())
	if err != nil {
		return Recovered{}, fmt.Errorf("read the sandboxes on record: %w", err)
	}
	onHost, err := d.Sandboxes.List(ctx)
	if err != nil {
		return Recovered{}, fmt.Errorf("list the sandboxes on this host: %w", err)
	}
	c := &recovery{d: d, held: map[fleet.TaskID]bool{}, after: "a restart of the control plane"}
	recorded := map[fleet.SandboxID]bool{}
	limit := make(chan struct{}, 16)
	var wg sync.WaitGroup
	each := func(f func()) {
		limit <- struct{}{}
		wg.Go(func() { defer func() { <-limit }(); f() })
	}
	for _, s := range known {
		if s.State == fleet.SandboxGone {
			continue
		}
		recorded[s.Spec.ID] = true
		each(func() { c.sandbox(ctx, s) })
	}
	for _, id := range onHost {
		if !recorded[id] {
			each(func() { c.reap(id, "not on record") })
		}
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return c.n, err
	}
	return c.n, c.tasks(ctx)
}

// Take takes over one sandbox of another owner, as the record says it is since
// then, and what runs in it; after says what happened. It returns once the
// sandbox is adopted, given up, or ctx ends.
func (d *Dispatcher) Take(ctx context.Context, s fleet.Sandbox, after string) Recovered {
	c := &recovery{d: d, held: map[fleet.TaskID]bool{}, after: after}
	c.sandbox(ctx, s)
	return c.n
}

type recovery struct {
	d     *Dispatcher
	after string // what happened before, in words
	mu    sync.Mutex
	n     Recovered
	held  map[fleet.TaskID]bool
}

func (c *recovery) count(f func(*Recovered)) {
	c.mu.Lock()
	f(&c.n)
	c.mu.Unlock()
}

func (c *recovery) reap(id fleet.SandboxID, why string) {
	c.d.Destroy(id, why)
	c.count(func(n *Recovered) { n.Reaped++ })
}

// sandbox decides about one sandbox on record.
func (c *recovery) sandbox(ctx context.Context, s fleet.Sandbox) {
	d := c.d
	d.Registry.hold(s)
	defer d.Registry.release(s.Spec.ID)
	switch s.State {
	case fleet.SandboxReady, fleet.SandboxClaimed:
	default:
		// Its creation or its end was interrupted.
		c.reap(s.Spec.ID, "interrupted while "+string(s.State))
		return
	}
	var task fleet.Task
	if s.State == fleet.SandboxClaimed {
		t, err := d.Tasks.Task(ctx, s.Task)
		if err != nil && !errors.Is(err, fleet.ErrNotFound) {
			d.Logger.Error("cannot read the task of a sandbox; it stays until the next start", "sandbox", s.Spec.ID, "error", err)
			return
		}
		if err != nil || !t.State.Active() || t.Sandbox != s.Spec.ID || t.Fence != s.Fence {
			c.reap(s.Spec.ID, "its task is over")
			return
		}
		task = t
	}
	heldTask, fence, alive, err := d.Sandboxes.Adopt(ctx, s.Spec)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.Logger.Warn("cannot adopt a sandbox", "sandbox", s.Spec.ID, "error", err)
	}
	switch {
	case s.State == fleet.SandboxReady && alive && heldTask == "":
		c.count(func(n *Recovered) { n.Adopted++ })
	case s.State == fleet.SandboxReady:
		c.reap(s.Spec.ID, "did not outlive the control plane")
	case alive && (heldTask == "" || heldTask == task.ID && fence == s.HeldFence()):
		c.resume(ctx, task, s.HeldFence())
	default:
		c.lose(task, s.Spec.ID)
	}
}

// resume takes up a running task. Its assignment is sent again: if the first
// one did arrive, the runner only continues its reports.
func (c *recovery) resume(ctx context.Context, t fleet.Task, held int64) {
	d := c.d
	env, _, err := d.environment(ctx, t.Spec)
	if err != nil {
		d.Logger.Warn("secrets of a resumed task cannot be read; they matter only if it had not begun", "task", t.ID, "error", err)
		env = t.Spec.Env
	}
	r := newRun(d, t, leaseOf(t), t.Sandbox)
	r.held = held
	if r.started = !t.StartedAt.IsZero(); r.started {
		r.resumed, r.accepted = true, t.StartedAt // the runner took it before that
	}
	d.add(r)
	c.mu.Lock()
	c.held[t.ID] = true
	c.n.Resumed++
	c.mu.Unlock()
	d.event(fleet.Event{Kind: "task_resumed", Task: t.ID, Pool: t.Spec.Pool, Sandbox: t.Sandbox,
		Reason: "taken up again after " + c.after})
	d.wg.Go(func() { r.attach(env) })
}

// lose treats the task of a sandbox that is gone as lost.
func (c *recovery) lose(t fleet.Task, box fleet.SandboxID) {
	r := newRun(c.d, t, leaseOf(t), box)
	c.d.add(r)
	c.mu.Lock()
	c.held[t.ID] = true
	c.n.Requeued++
	c.mu.Unlock()
	r.lost(errors.New("it did not outlive " + c.after))
}

func leaseOf(t fleet.Task) fleet.Lease {
	return fleet.Lease{Task: t.ID, Attempt: t.Attempt, Fence: t.Fence}
}

// tasks deals with active tasks whose sandbox is not even on record.
func (c *recovery) tasks(ctx context.Context) error {
	return c.d.eachActive(ctx, func(t fleet.Task) error {
		if !c.held[t.ID] {
			c.lose(t, t.Sandbox)
		}
		return nil
	})
}

// eachActive calls f with every task that holds a sandbox, here or elsewhere.
func (d *Dispatcher) eachActive(ctx context.Context, f func(fleet.Task) error) error {
	var before fleet.TaskID
	for {
		page, err := d.Tasks.Tasks(ctx, fleet.TaskFilter{
			States: []fleet.TaskState{fleet.TaskClaimed, fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting},
			Before: before, Limit: 1000,
		})
		if err != nil {
			return fmt.Errorf("read the running tasks: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, t := range page {
			before = t.ID
			if err := f(t); err != nil {
				return err
			}
		}
	}
}

// LoseOrphans deals with active tasks whose sandbox is not on record, or gone,
// for longer than the given time: they are tried again. It is for a process
// that drives no sandboxes itself.
func (d *Dispatcher) LoseOrphans(ctx context.Context, after time.Duration) error {
	c := &recovery{d: d, held: map[fleet.TaskID]bool{}, after: "its consumer"}
	return d.eachActive(ctx, func(t fleet.Task) error {
		s, err := d.Records.Sandbox(ctx, t.Sandbox)
		switch {
		case err == nil && (s.State != fleet.SandboxGone || d.Clock().Sub(s.GoneAt) < after), d.Clock().Sub(t.ClaimedAt) < after:
		case err != nil && !errors.Is(err, fleet.ErrNotFound):
			return fmt.Errorf("read the sandbox of task %s: %w", t.ID, err)
		default:
			c.lose(t, t.Sandbox)
			return d.Archive.EndLog(t.ID, t.Attempt)
		}
		return nil
	})
}
