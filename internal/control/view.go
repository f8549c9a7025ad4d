package control

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// View is the fleet as of the last decision.
func (e *Engine) View(context.Context) (fleet.View, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.c.Clock()
	s := &e.last
	v := fleet.View{
		Name: e.spec.Name, At: s.at, Consumers: s.p.Consumers, ConsumersBusy: e.active(),
		Backlog: s.stats.Backlog, Delayed: s.stats.Delayed, InFlight: s.stats.InFlight, Dead: s.stats.Dead,
		OldestAge: age(now, s.stats.Oldest), SignalsAsOf: s.asOf, SignalsError: s.err,
		ObjectiveP99: e.spec.Policy.Objective, Sentence: s.p.Sentence(),
		NodeHourMicroUSD: e.spec.Policy.Budget.NodeHour, Started: e.started,
		Pools: []fleet.PoolView{}, Nodes: []fleet.NodeView{}, Dedication: e.dedication.view(),
		NodesError: nodesError(s, &e.layer), NodesDesired: len(s.nodes),
	}
	if e.spec.elastic() {
		v.NodesDesired = s.p.Nodes.Desired
	}
	if s.at.IsZero() {
		v.At, v.Sentence = now, "taking over what an earlier process left"
	}
	v.StartP50, v.StartP99 = e.waits.percentiles(now)
	v.ScaleOut = e.stages.scaleOut()
	for i := range s.p.Pools {
		v.Pools = append(v.Pools, poolView(now, &s.p.Pools[i], &s.o.Pools[i], demandIn(&s.stats, s.p.Pools[i].Pool)))
	}
	v.Queues = queueViews(now, s)
	packed := e.registry.Packing()
	for _, n := range s.nodes {
		nv := fleet.NodeView{Node: n, Packed: packed[n.ID]}
		for i := range s.o.Nodes {
			if o := &s.o.Nodes[i]; o.ID == n.ID {
				nv.Used, nv.UsedMilliCPU, nv.UsedMemory = o.Used, o.UsedSize.MilliCPU, o.UsedSize.MemoryBytes
			}
		}
		v.Nodes = append(v.Nodes, nv)
	}
	return v, nil
}

// active counts the tasks that hold a sandbox.
func (e *Engine) active() int {
	if !e.c.Consumers {
		return e.dispatch.Active()
	}
	n := 0
	for _, s := range e.registry.AppendTo(nil) {
		if s.State == fleet.SandboxClaimed {
			n++
		}
	}
	return n
}

// nodesError is why nodes cannot be read, or why the last ones that were asked
// for did not come.
func nodesError(s *snapshot, l *layer) string {
	if s.o.NodesError == "" && s.p.Nodes.Reason.Numbers.Failures > 0 {
		return l.failure
	}
	return s.o.NodesError
}

func poolView(now time.Time, t *plan.PoolTarget, o *plan.Pool, d fleet.PoolDemand) fleet.PoolView {
	return fleet.PoolView{
		Pool: t.Pool, Template: o.Template, Backlog: d.Backlog, Delayed: d.Delayed, InFlight: d.InFlight,
		OldestAge: age(now, d.Oldest), ArrivalRate: t.Rate, Desired: t.Desired, WarmTarget: t.Warm,
		Ready: o.Ready, Starting: o.Starting, Running: o.Running, Draining: o.Releasing + len(o.Draining),
		StartLead: o.Lead, TimeToEmpty: t.TimeToEmpty, Breaker: t.Breaker,
		Reason: t.Reason.Sentence(), Bound: string(t.Reason.Bound),
	}
}

func queueViews(now time.Time, s *snapshot) []fleet.QueueView {
	out := make([]fleet.QueueView, len(s.queue))
	for i := range s.queue {
		r := &s.queue[i].Stats
		out[i] = fleet.QueueView{
			Name: s.queue[i].Name, AsOf: r.AsOf, Error: s.o.Queues[i].Error,
			Backlog: r.Backlog, Delayed: r.Delayed, InFlight: r.InFlight, Dead: r.Dead, OldestAge: age(now, r.Oldest),
		}
	}
	return out
}

func demandIn(s *fleet.QueueStats, key fleet.PoolKey) fleet.PoolDemand {
	for _, p := range s.Pools {
		if p.Pool == key {
			return p
		}
	}
	return fleet.PoolDemand{Pool: key}
}

func age(now, since time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since))
}

// Cancel ends a task; see dispatch.Dispatcher.Cancel.
func (e *Engine) Cancel(ctx context.Context, id fleet.TaskID, by string) (fleet.Task, error) {
	return e.dispatch.Cancel(ctx, id, by)
}

// Exec runs a command in the sandbox of a running task.
func (e *Engine) Exec(ctx context.Context, id fleet.TaskID, r fleet.ExecRequest) (int, error) {
	return e.dispatch.Exec(ctx, id, r)
}

// Usage is what a task's sandbox uses, or used.
func (e *Engine) Usage(ctx context.Context, id fleet.TaskID) (fleet.Usage, error) {
	return e.dispatch.Usage(ctx, id)
}

// SandboxUsage is what a sandbox uses now, read from outside it.
func (e *Engine) SandboxUsage(ctx context.Context, id fleet.SandboxID) (fleet.Usage, error) {
	return e.c.Sandboxes.Usage(ctx, id)
}

// ExplainEvent returns an event with the decision it came from.
func (e *Engine) ExplainEvent(ctx context.Context, seq int64) (fleet.Explanation, error) {
	found, err := e.c.Store.Events(ctx, fleet.EventFilter{After: seq - 1, Limit: 1})
	if err != nil {
		return fleet.Explanation{}, fmt.Errorf("read event %d: %w", seq, err)
	}
	if len(found) == 0 || found[0].Seq != seq {
		return fleet.Explanation{}, fmt.Errorf("event %d: %w", seq, fleet.ErrNotFound)
	}
	ev := found[0]
	x := fleet.Explanation{Event: &ev, Summary: fmt.Sprintf("%s %s: %s", clockTime(ev.At), ev.Kind, ev.Reason), Steps: []fleet.Event{}}
	if ev.Decision > 0 {
		d, err := e.c.Store.Decision(ctx, ev.Decision)
		if err != nil {
			return x, fmt.Errorf("read decision %d: %w", ev.Decision, err)
		}
		x.Decision = &d
		if x.Otherwise, err = e.otherwise(ctx, &d); err != nil {
			return x, err
		}
	}
	if ev.Sandbox != "" || ev.Task != "" {
		x.Steps, err = e.c.Store.Events(ctx, fleet.EventFilter{Task: ev.Task, Sandbox: ev.Sandbox})
	}
	return x, err
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05") }
