package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// run is one attempt of a task that holds a sandbox. It ends exactly once, by
// whichever comes first: the runner's report, the loss of the sandbox, the
// backstop of a timeout, or the loss of the lease.
type run struct {
	d     *Dispatcher
	task  fleet.Task
	lease fleet.Lease
	box   fleet.SandboxID
	held  int64 // the fence its runner knows it by; the lease's, but for take-overs

	mu       sync.Mutex
	ended    bool
	stopping fleet.TaskReason // why a stop was asked for
	cancelBy string           // who asked for it
	handed   bool             // the runner has the task and can be told to stop
	started  bool             // first instruction seen
	leasedAt time.Time
	backstop *time.Timer
	memory   held
	accepted time.Time // by the runner
	resumed  bool      // its command had begun when it was taken up again
}

func newRun(d *Dispatcher, t fleet.Task, l fleet.Lease, box fleet.SandboxID) *run {
	return &run{d: d, task: t, lease: l, box: box, held: l.Fence, leasedAt: d.Clock()}
}

// start takes a leased task through claim to the running command.
func (r *run) start(box fleet.Sandbox) {
	d := r.d
	env, missing, err := d.environment(d.base, r.task.Spec)
	if err != nil {
		r.end()
		d.Registry.release(r.box)
		d.drop(r)
		if missing != "" {
			r.fail(fleet.ReasonSecret, fmt.Sprintf("the secret %q does not exist; see spec.secrets of the fleet", missing))
			return
		}
		d.nack(r.lease, time.Second, "secrets cannot be read: "+err.Error())
		return
	}
	now := d.Clock()
	t, err := d.Records.ClaimSandbox(d.base, r.lease, fleet.Claim{Sandbox: r.box, Launch: LaunchOf(box.ReadyAt, r.task.DueAt), At: now, Owner: box.Owner})
	if err != nil {
		r.end()
		d.Registry.release(r.box)
		d.drop(r)
		if errors.Is(err, fleet.ErrConflict) {
			d.Registry.refresh(d.base, r.box) // it is another's by now, or was drained
		}
		if !errors.Is(err, fleet.ErrFenced) {
			d.nack(r.lease, 0, "claim: "+err.Error())
		}
		return
	}
	r.mu.Lock()
	r.task = t
	r.mu.Unlock()
	d.Registry.claimed(r.box, t)
	r.attach(env)
}

// attach hands the assignment to the runner, or takes up again a task that
// runs already, and arms the backstop.
func (r *run) attach(env map[string]string) {
	d := r.d
	r.armBackstop()
	s := r.task.Spec
	err := d.Sandboxes.Claim(d.base, r.box, fleet.Assignment{
		Task: r.task.ID, Fence: r.held, Repo: s.Repo, Prompt: s.Prompt, Input: s.Input, Setup: s.Setup, Command: s.Command,
		Env: d.traced(&r.task, r.lease.Attempt, env), Artifacts: s.Artifacts, Timeouts: s.Timeouts, LogBytes: s.Resources.LogBytes,
	}, (*sink)(r))
	if err != nil {
		if d.base.Err() != nil {
			return // stopping; the next start takes the task up again
		}
		r.lost(fmt.Errorf("claim sandbox %s: %w", r.box, err))
		return
	}
	r.acceptedAt(d.Clock())
	r.mu.Lock()
	r.handed = true
	stopping := r.stopping
	r.mu.Unlock()
	if stopping != "" {
		r.askStop(stopping)
	}
	if !r.resumed { // else that is on record, with when it was
		d.event(r.claimedEvent())
	}
	if r.task.Cancel {
		r.cancel(r.task.CancelBy) // asked for while nobody could be told
	}
}

func (r *run) claimedEvent() fleet.Event {
	return fleet.Event{
		Kind: "task_claimed", Task: r.task.ID, Pool: r.task.Spec.Pool, Sandbox: r.box, Node: r.task.Node, At: r.task.ClaimedAt,
		Reason:  fmt.Sprintf("%s start after %s in the queue, attempt %d", r.task.Launch, r.task.Phases.Queue.Round(time.Millisecond), r.task.Attempt),
		Numbers: map[string]float64{"queueSeconds": r.task.Phases.Queue.Seconds(), "attempt": float64(r.task.Attempt)},
	}
}

// current is the task with what was asked for since it was claimed.
func (r *run) current() fleet.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.task
	if r.cancelBy != "" {
		t.Cancel, t.CancelBy = true, r.cancelBy
	}
	return t
}

// cancel asks for the end of the task.
func (r *run) cancel(by string) {
	r.mu.Lock()
	r.cancelBy = by
	r.mu.Unlock()
	r.requestStop(fleet.ReasonCancelled)
}

// acceptedAt notes when the runner took the task; the first to know counts.
func (r *run) acceptedAt(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accepted.IsZero() {
		r.accepted = at
	}
}

// traced adds the trace context of a task's command to its environment, unless
// the task has one in it.
func (d *Dispatcher) traced(t *fleet.Task, attempt int, env map[string]string) map[string]string {
	c := t.Spec.Trace
	if d.Traced {
		c = t.AgentTrace(attempt)
	}
	if _, has := env["TRACEPARENT"]; has || c.Parent == "" {
		return env
	}
	if env == nil {
		env = map[string]string{}
	}
	env["TRACEPARENT"] = c.Parent
	if c.State != "" {
		env["TRACESTATE"] = c.State
	}
	return env
}

// environment is the task's variables and the values of its secrets. missing
// names a secret that does not exist.
func (d *Dispatcher) environment(ctx context.Context, s fleet.TaskSpec) (env map[string]string, missing string, err error) {
	env = maps.Clone(s.Env)
	if len(s.Secrets) == 0 {
		return env, "", nil
	}
	if env == nil {
		env = map[string]string{}
	}
	for _, name := range s.Secrets {
		if d.Secrets == nil {
			return nil, name, fleet.ErrNotFound
		}
		v, err := d.Secrets.Secret(ctx, name)
		if errors.Is(err, fleet.ErrNotFound) {
			return nil, name, err
		}
		if err != nil {
			return nil, "", err
		}
		env[name] = v
	}
	return env, "", nil
}

// end makes the caller the one who ends the run; false when someone was
// faster.
func (r *run) end() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.ended = true
	if r.backstop != nil {
		r.backstop.Stop()
	}
	return true
}

// armBackstop bounds the whole attempt in case the runner does not keep its
// own timeouts: startup, run and a minute for the rest.
func (r *run) armBackstop() {
	t := r.task.Spec.Timeouts
	if t.Run <= 0 || t.Startup <= 0 {
		return
	}
	left := t.Startup + t.Run + time.Minute + r.d.Grace - r.d.Clock().Sub(r.task.ClaimedAt)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended && r.backstop == nil {
		r.backstop = time.AfterFunc(max(left, time.Second), func() { r.overdue(fleet.ReasonTimeoutRun) })
	}
}

// requestStop asks the runner to end the task; if it does not within the
// grace and half a minute, the sandbox is destroyed.
func (r *run) requestStop(reason fleet.TaskReason) {
	r.mu.Lock()
	if r.ended || r.stopping != "" {
		r.mu.Unlock()
		return
	}
	r.stopping = reason
	if r.backstop != nil {
		r.backstop.Stop()
	}
	r.backstop = time.AfterFunc(r.d.Grace+30*time.Second, func() { r.overdue(reason) })
	handed := r.handed
	r.mu.Unlock()
	if handed {
		r.askStop(reason)
	}
}

func (r *run) askStop(reason fleet.TaskReason) {
	if err := r.d.Sandboxes.Stop(r.d.base, r.box, reason, r.d.Grace); err != nil && r.d.base.Err() == nil {
		r.d.Logger.Warn("cannot ask a sandbox to stop its task; it will be destroyed", "task", r.task.ID, "sandbox", r.box, "error", err)
	}
}

// overdue ends a run whose runner did not.
func (r *run) overdue(reason fleet.TaskReason) {
	if r.d.base.Err() != nil || !r.end() {
		return
	}
	r.fail(reason, message(reason, r.current(), fleet.RunReport{}, fleet.Usage{})+"; its runner did not answer, so the sandbox was destroyed")
	r.finish("the runner did not end its task in time")
}

// abandon ends a run that another attempt has overtaken, or another owner;
// nothing is recorded.
func (r *run) abandon(why string) {
	if r.end() {
		r.finish(why)
	}
}

// yielded lets a run go whose sandbox another owner has taken over, attempt and
// log with it; false when it is still ours.
func (r *run) yielded() bool {
	d := r.d
	if d.Registry.owns(d.base, r.box) {
		return false
	}
	r.end()
	// Not from here: what calls may be the sink, which that waits for.
	d.wg.Go(func() { d.Yield(context.WithoutCancel(d.base), r.box) })
	return true
}

// fail settles the task as ended without a report.
func (r *run) fail(reason fleet.TaskReason, msg string) {
	u, _ := r.usage(r.d.base) // best effort: it may be gone
	u.MilliCPUNow = 0
	n, _ := r.d.Archive.LogSize(r.task.ID, r.lease.Attempt)
	t, err := r.d.Tasks.Settle(r.d.base, r.task.ID, r.lease.Fence, fleet.Settlement{
		State: StateOf(reason), Phases: r.task.Phases, EndedAt: r.d.Clock(),
		Result: fleet.Result{Reason: reason, Message: msg, ExitCode: -1, LogBytes: n, Usage: u, Model: r.modelUse()},
	})
	if err != nil {
		if !errors.Is(err, fleet.ErrFenced) {
			r.d.Logger.Error("cannot settle a task; its lease will run out and it will be tried again", "task", r.task.ID, "error", err)
		}
		return
	}
	r.d.settled(t)
}

// lost deals with a sandbox that ended under its task: an out-of-memory kill
// is the task's own end, anything else is tried again on another sandbox.
func (r *run) lost(err error) {
	if r.d.base.Err() != nil || !r.end() {
		return
	}
	var re *fleet.ReasonError
	reason := fleet.ReasonNodeLost
	if errors.As(err, &re) && re.Reason != "" {
		reason = re.Reason
	}
	r.mu.Lock()
	stopping := r.stopping
	r.mu.Unlock()
	switch {
	case stopping != "":
		r.fail(stopping, message(stopping, r.current(), fleet.RunReport{}, fleet.Usage{}))
	case reason != fleet.ReasonNodeLost:
		u, _ := r.usage(r.d.base)
		r.fail(reason, message(reason, r.current(), fleet.RunReport{Message: err.Error()}, u))
	case !MayRetry(r.task):
		r.fail(reason, fmt.Sprintf("its sandbox was lost on attempt %d of %d: %v", r.task.Attempt, r.task.Spec.Retries.Max+1, err))
	default:
		_ = r.retry(Backoff(r.task.Spec.Retries.Backoff, r.task.Attempt), "sandbox lost: "+err.Error()) // logged
	}
	r.finish("lost")
}

// retry returns the task to its queue. ErrFenced: the task is another's.
func (r *run) retry(after time.Duration, why string) error {
	due := r.d.Clock().Add(after)
	t, err := r.d.Tasks.Retry(r.d.base, r.task.ID, r.lease.Fence, due, why)
	if err != nil {
		if !errors.Is(err, fleet.ErrFenced) {
			r.d.Logger.Error("cannot return a task to its queue; its lease will run out", "task", r.task.ID, "error", err)
		}
		return err
	}
	if t.State.Final() { // cancelled meanwhile
		r.d.settled(t)
		return nil
	}
	r.d.event(fleet.Event{Kind: "task_retried", Task: t.ID, Pool: t.Spec.Pool, Sandbox: r.box,
		Reason: fmt.Sprintf("attempt %d ended (%s); next in %s", r.lease.Attempt, why, after)})
	return nil
}

// finish ends the log and destroys the sandbox in the background.
func (r *run) finish(why string) {
	d := r.d
	if r.yielded() {
		return
	}
	if err := d.Archive.EndLog(r.task.ID, r.lease.Attempt); err != nil {
		d.Logger.Warn("cannot end a log", "task", r.task.ID, "error", err)
	}
	d.wg.Go(func() {
		defer d.drop(r)
		d.Destroy(r.box, why)
	})
}

// Destroy ends a sandbox, trying again with back-off until it succeeds or the
// dispatcher stops (then the next start reaps it).
func (d *Dispatcher) Destroy(id fleet.SandboxID, why string) {
	wait := 100 * time.Millisecond
	for {
		// Destroying goes on when the process is asked to stop, for a while.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(d.base), 30*time.Second)
		err := d.Registry.End(ctx, d.Sandboxes, id, d.Clock(), why)
		cancel()
		if err == nil {
			return
		}
		d.Logger.Warn("cannot destroy a sandbox; trying again", "sandbox", id, "error", err)
		select {
		case <-d.base.Done():
			return
		case <-time.After(wait):
			wait = min(wait*2, 30*time.Second)
		}
	}
}
