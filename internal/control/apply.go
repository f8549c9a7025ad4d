package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

// apply does what the plan says. Nothing here waits for a sandbox: starts and
// ends go on in the background, bounded in number.
func (e *Engine) apply(ctx context.Context, s *snapshot, spec *Spec) {
	for i := range s.p.Actions {
		a := &s.p.Actions[i]
		if err := e.do(ctx, a, spec); err != nil && ctx.Err() == nil {
			e.c.Logger.Warn("cannot apply an action; the next decision sees to it",
				"action", a.Kind, "pool", a.Pool, "sandbox", a.Sandbox, "error", err)
		}
	}
}

func (e *Engine) do(ctx context.Context, a *plan.Action, spec *Spec) error {
	switch a.Kind {
	case plan.StartSandboxes:
		return e.start(ctx, a, spec)
	case plan.DrainSandbox:
		done, err := e.registry.Drain(ctx, a.Sandbox, a.Reason.Sentence())
		e.wrote(a.Sandbox)
		if done {
			e.mu.Lock()
			e.drawn[a.Sandbox] = e.c.Clock()
			e.mu.Unlock()
		}
		return err
	case plan.UndrainSandbox:
		e.mu.Lock()
		busy := e.ending[a.Sandbox]
		delete(e.drawn, a.Sandbox)
		e.mu.Unlock()
		if busy {
			return nil
		}
		_, err := e.registry.Undrain(ctx, a.Sandbox, "")
		e.wrote(a.Sandbox)
		return err
	case plan.DestroySandbox:
		if e.c.Consumers {
			return e.order(ctx, a.Sandbox, "scaled in")
		}
		e.end(a.Sandbox, "scaled in")
		return nil
	case plan.FailWaiting:
		return e.failWaiting(ctx, a)
	case plan.ScaleNodes:
		return e.scale(ctx, a.N)
	case plan.CordonNode:
		return e.c.Nodes.Cordon(ctx, a.Node)
	case plan.UncordonNode:
		return e.c.Nodes.Uncordon(ctx, a.Node)
	case plan.ReleaseNode:
		return e.c.Nodes.Release(ctx, a.Node)
	}
	return fmt.Errorf("action %q is unknown: %w", a.Kind, fleet.ErrInvalid)
}

// end destroys a sandbox in the background, once.
func (e *Engine) end(id fleet.SandboxID, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ending[id] {
		return
	}
	e.ending[id] = true
	e.wg.Go(func() {
		e.dispatch.Destroy(id, why)
		e.mu.Lock()
		delete(e.ending, id)
		delete(e.drawn, id)
		e.mu.Unlock()
		e.poke()
	})
}

// start records and then creates sandboxes.
func (e *Engine) start(ctx context.Context, a *plan.Action, spec *Spec) error {
	t, ok := e.templateFor(a.Pool, spec)
	if !ok {
		return fmt.Errorf("start in pool %s: its template is gone: %w", a.Pool, fleet.ErrNotFound)
	}
	// Records are written side by side, since a store commits what comes
	// together at once, and all are there before the next decision counts them.
	errs := make(chan error, a.N)
	for range a.N {
		now := e.c.Clock()
		box := fleet.Sandbox{State: fleet.SandboxStarting, CreatedAt: now, Spec: specOf(a.Pool, t, a.Node, now)}
		if e.c.Consumers {
			if box.Owner, ok = e.crew.pick(); !ok {
				return fmt.Errorf("start in pool %s: no consumer has told of itself for %s: %w", a.Pool, fleet.ConsumerSilence, fleet.ErrUnavailable)
			}
		}
		e.wg.Go(func() {
			// On record before it exists: whatever happens, it can be reaped.
			err := e.registry.Put(ctx, box)
			e.wrote(box.Spec.ID)
			errs <- err
			if err == nil && !e.c.Consumers {
				e.create(ctx, box)
			}
		})
	}
	var first error
	for range a.N {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (e *Engine) templateFor(key fleet.PoolKey, spec *Spec) (fleet.Template, bool) {
	name, variant := templateOf(key)
	t, ok := spec.template(name)
	if !ok || !variant {
		return t, ok
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t = e.memory(key).template
	return t, t.Name != ""
}

func specOf(key fleet.PoolKey, t fleet.Template, node fleet.NodeID, now time.Time) fleet.SandboxSpec {
	return fleet.SandboxSpec{
		ID: fleet.NewSandboxID(now), Pool: key, Template: t.Name, Revision: t.Revision, Node: node,
		Runtime: t.Runtime, Image: t.Image, Resources: t.Resources, Network: t.Network, Env: t.Env,
		Prepare: t.Prepare, Mounts: t.Mounts, Startup: t.Timeouts.Startup,
	}
}

// create takes one sandbox from its record to ready, or to its end.
func (e *Engine) create(ctx context.Context, box fleet.Sandbox) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		e.discard(ctx, box, "the control plane stopped before it was started")
		return
	}
	iso, err := e.c.Sandboxes.Create(ctx, box.Spec)
	<-e.slots
	now := e.c.Clock()
	if err == nil {
		e.staged(&box, now)
		box.State, box.Isolation, box.ReadyAt = fleet.SandboxReady, iso, now
		if iso.Node != "" {
			box.Spec.Node = iso.Node
		}
		if err = e.registry.Put(ctx, box); err == nil {
			e.measured(ctx, &box, now)
			return
		}
	}
	if ctx.Err() != nil {
		e.discard(ctx, box, "the control plane stopped while it was started")
		return
	}
	e.failed(ctx, &box, err)
}

// discard removes a sandbox whose creation was broken off. What cannot be
// removed now stays on record, and the next start reaps it.
func (e *Engine) discard(ctx context.Context, box fleet.Sandbox, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := e.registry.End(ctx, e.c.Sandboxes, box.Spec.ID, e.c.Clock(), why); err != nil {
		e.c.Logger.Info("a sandbox that was being started is left to the next start", "sandbox", box.Spec.ID, "error", err)
	}
}

// measured takes the measurements of one start that ended well.
func (e *Engine) measured(ctx context.Context, box *fleet.Sandbox, now time.Time) {
	lead := now.Sub(box.CreatedAt)
	if e.c.Consumers {
		e.staged(box, now)
	}
	e.mu.Lock()
	m := e.memory(box.Spec.Pool)
	m.Leads.Add(now, lead)
	m.Proven = box.Spec.Revision
	m.started++
	m.failure, m.reason = "", ""
	e.dirty = true
	e.mu.Unlock()
	e.c.Meter.Created(templateName(box.Spec.Pool), fleet.StartReady, lead)
	e.record(ctx, fleet.Event{
		At: now, Kind: "sandbox_ready", Layer: "sandboxes", Pool: box.Spec.Pool, Sandbox: box.Spec.ID, Node: box.Spec.Node,
		Reason:  fmt.Sprintf("ready %s after it was requested", lead.Round(time.Millisecond)),
		Numbers: map[string]float64{"leadSeconds": lead.Seconds()},
	})
}

// broke takes note of a start that went wrong, and tells the breaker.
func (e *Engine) broke(ctx context.Context, box *fleet.Sandbox, err error) {
	e.countFailure(box, err)
	e.measureFailure(box, err)
	e.record(ctx, fleet.Event{
		Kind: "sandbox_failed", Layer: "sandboxes", Pool: box.Spec.Pool, Sandbox: box.Spec.ID, Node: box.Spec.Node,
		Reason: err.Error(),
	})
}

// failed ends a start that went wrong.
func (e *Engine) failed(ctx context.Context, box *fleet.Sandbox, err error) {
	e.broke(ctx, box, err)
	box.State, box.Message = fleet.SandboxFailed, err.Error()
	if err := e.registry.Put(ctx, *box); err != nil {
		e.c.Logger.Warn("cannot record a failed start", "sandbox", box.Spec.ID, "error", err)
	}
	e.end(box.Spec.ID, box.Message)
}

func (e *Engine) countFailure(box *fleet.Sandbox, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.memory(box.Spec.Pool)
	m.failed++
	m.failure, m.reason = err.Error(), dispatch.FailureOf(err)
}

// watchExits deals with sandboxes that ended by themselves while they waited.
// Those with a task are the dispatcher's: their sink is told.
func (e *Engine) watchExits(ctx context.Context) {
	const soon = 10 * time.Second
	for {
		var x fleet.SandboxExit
		select {
		case <-ctx.Done():
			return
		case x = <-e.c.Sandboxes.Exited():
		}
		box, ok := e.registry.Get(x.ID)
		if !ok || box.State == fleet.SandboxClaimed {
			continue
		}
		e.record(ctx, fleet.Event{
			Kind: "sandbox_lost", Layer: "sandboxes", Pool: box.Spec.Pool, Sandbox: x.ID, Node: box.Spec.Node,
			Reason: fmt.Sprintf("it ended while it was %s: %v", box.State, x.Err),
		})
		if e.c.Clock().Sub(box.ReadyAt) < soon {
			// One that dies at once counts as a failed start, so that it is not
			// replaced for ever.
			e.countFailure(&box, fmt.Errorf("ended right after its start: %w", errors.Join(x.Err)))
		}
		e.end(x.ID, "ended by itself")
	}
}

// failWaiting settles the tasks that wait for a pool which never started: what
// they ask for cannot be had, and they are told so.
func (e *Engine) failWaiting(ctx context.Context, a *plan.Action) error {
	e.mu.Lock()
	m := e.memory(a.Pool)
	reason, failure := m.reason, m.failure
	e.mu.Unlock()
	_, err := e.dispatch.FailWaiting(ctx, a.Pool, reason,
		"no sandbox of template "+templateName(a.Pool)+" could be started: "+failure)
	return err
}

func templateName(key fleet.PoolKey) string {
	name, _ := templateOf(key)
	return name
}

// observer hears of starts and ends from the dispatcher.
type observer struct{ e *Engine }

// Started implements dispatch.Observer.
func (o observer) Started(pool fleet.PoolKey, launch fleet.Launch, wait time.Duration) {
	if o.e.c.Observe != nil {
		o.e.c.Observe.Started(pool, launch, wait)
	}
	now := o.e.c.Clock()
	o.e.mu.Lock()
	o.e.waits.add(now, wait)
	o.e.histories.waited(now, pool, wait)
	late := o.e.layer.begins(wait, o.e.spec.Policy.Objective)
	o.e.stages.ran(pool, launch, now)
	o.e.mu.Unlock()
	if late {
		o.e.c.Meter.Late()
	}
}

// Settled implements dispatch.Observer.
func (o observer) Settled(t fleet.Task) {
	if o.e.c.Observe != nil {
		o.e.c.Observe.Settled(t)
	}
	o.e.finished(t)
	o.e.poke()
}

func (e *Engine) finished(t fleet.Task) {
	e.mu.Lock()
	e.memory(t.Spec.Pool).finished++
	e.layer.ends(&t)
	if !t.StartedAt.IsZero() {
		e.stages.note(fleet.StageClaim, t.Spec.Pool, t.StartedAt, t.Phases.Claim+t.Phases.Start)
	}
	e.mu.Unlock()
}

// waits are the newest times from due to first instruction.
type waits struct {
	ring []forecast.LeadSample
	next int
}

func (w *waits) add(at time.Time, d time.Duration) {
	const most = 4096
	s := forecast.LeadSample{At: at, Lead: d}
	if len(w.ring) < most {
		w.ring = append(w.ring, s)
		return
	}
	w.ring[w.next] = s
	w.next = (w.next + 1) % most
}

// percentiles over the last hour.
func (w *waits) percentiles(now time.Time) (p50, p99 time.Duration) {
	d := make([]time.Duration, 0, len(w.ring))
	for _, s := range w.ring {
		if now.Sub(s.At) <= time.Hour {
			d = append(d, s.Lead)
		}
	}
	return forecast.Percentile(d, 50), forecast.Percentile(d, 99)
}
