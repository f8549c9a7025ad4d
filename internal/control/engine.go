package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// Engine sizes a fleet and runs its tasks.
type Engine struct {
	c        Config
	registry *dispatch.Registry
	dispatch *dispatch.Dispatcher
	started  time.Time
	wake     chan struct{}               // to decide soon
	read     map[string]fleet.QueueStats // last good reading of each queue
	leasing  chan struct{}               // the dispatcher's share of the queue's wakes
	slots    chan struct{}               // one for every start under way
	events   *dispatch.Scribe
	wg       sync.WaitGroup

	decider plan.Decider    // the loop's own
	state   *plan.State     // likewise
	gap     time.Duration   // likewise
	boxes   []fleet.Sandbox // likewise: a buffer

	mu            sync.Mutex
	spec          Spec
	ready         bool          // recovered, and decided once
	frozen        bool          // no more decisions: stopping
	recovered     chan struct{} // closed once it has
	pools         map[fleet.PoolKey]*poolMemory
	waits         waits
	layer         layer
	stages        stages
	histories     histories
	shadow        shadow
	dedication    dedication
	crew          crew
	last          snapshot
	said          map[fleet.PoolKey]said // what the journal was last told
	ending        map[fleet.SandboxID]bool
	drawn         map[fleet.SandboxID]time.Time // drained at
	dirty         bool
	lastJournal   time.Time
	pruned, saved time.Time // the loop's own
	kept          time.Time // likewise
}

// snapshot is the last decision with what it was made from.
type snapshot struct {
	at    time.Time
	seq   int64
	o     plan.Observation
	p     plan.Plan
	stats fleet.QueueStats
	queue []fleet.QueueReading // each with its last good reading
	nodes []fleet.Node
	err   string // why the queue could not be read
	asOf  time.Time
}

// New returns an Engine; Run starts it.
func New(c Config) (*Engine, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	e := &Engine{
		c: c, registry: dispatch.NewRegistry(c.Store), started: c.Clock(), spec: c.Spec.normal(),
		wake: make(chan struct{}, 1), leasing: make(chan struct{}, 1), recovered: make(chan struct{}), slots: make(chan struct{}, c.ParallelStarts),
		pools: map[fleet.PoolKey]*poolMemory{}, said: map[fleet.PoolKey]said{},
		ending: map[fleet.SandboxID]bool{}, drawn: map[fleet.SandboxID]time.Time{}, state: &plan.State{},
		stages: stages{meter: c.Meter}, layer: layer{meter: c.Meter},
	}
	var hears dispatch.Observer = observer{e}
	if c.Consumers {
		e.registry = dispatch.NewSharedRegistry(c.Store)
		hears = nil // from the journal, as of the consumers
	}
	e.events = dispatch.NewScribe(c.Store, c.Logger)
	e.dispatch = dispatch.New(dispatch.Config{
		Tasks: c.Store, Records: c.Store, Journal: e.events, Queue: sharedQueue{c.Queue, e.leasing},
		Archive: c.Archive, Sandboxes: c.Sandboxes, Secrets: c.Secrets, Registry: e.registry,
		Logger: c.Logger, Clock: c.Clock, Consumer: c.Consumer, Visibility: c.Visibility, Grace: c.Grace,
		Observe: hears, Costs: c.Store.TaskCosts, Traced: c.Traced,
	})
	return e, nil
}

// sharedQueue is a queue whose wakes come by way of the engine, since both the
// dispatcher and the loop want each of them.
type sharedQueue struct {
	fleet.Queue
	wake chan struct{}
}

func (q sharedQueue) Wake() <-chan struct{} { return q.wake }

// Dispatcher returns the dispatcher, for those who wire the API.
func (e *Engine) Dispatcher() *dispatch.Dispatcher { return e.dispatch }

// SetSpec replaces the fleet's specification; warm sandboxes of changed
// templates are replaced, those made first before the old ones go.
func (e *Engine) SetSpec(s Spec) {
	e.mu.Lock()
	e.spec = s.normal()
	e.mu.Unlock()
	e.poke()
}

// poke asks for a decision soon.
func (e *Engine) poke() { poke(e.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready is nil once the engine has recovered and decided for the first time.
func (e *Engine) Ready(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ready {
		return fmt.Errorf("taking over what an earlier process left: %w", fleet.ErrUnavailable)
	}
	return nil
}

// Run recovers, then sizes the fleet and runs its tasks until ctx ends.
// Sandboxes and running tasks outlive it, and the next Run takes them over.
// It returns an error when it could not recover.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.load(ctx); err != nil {
		return err
	}
	go e.events.Run(context.WithoutCancel(ctx))
	defer e.events.Close() // after everything that writes events has ended
	if err := e.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("recover: %w", err)
	}
	close(e.recovered)
	// Decide once before anything is leased: what the fleet's file no longer
	// allows is then out of dispatch.
	e.tick(ctx)
	e.wg.Go(func() { e.shareWakes(ctx) })
	if e.c.Consumers {
		e.wg.Go(func() { e.lead(ctx) })
	} else {
		e.wg.Go(func() { e.watchExits(ctx) })
	}
	e.wg.Go(func() {
		if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
			e.c.Logger.Warn("cannot remove what pruned tasks left; the next start tries again", "error", err)
		}
	})
	if !e.c.Follow && !e.c.Consumers {
		e.wg.Go(func() { _ = e.dispatch.Run(ctx) }) // never fails
	}
	e.loop(ctx)
	e.wg.Wait()
	end := context.WithoutCancel(ctx)
	return errors.Join(e.save(end), e.saveShadow(end), e.keepHistory(end, true))
}

// recover takes over what an earlier process has left.
func (e *Engine) recover(ctx context.Context) error {
	if e.c.Consumers {
		return e.recoverOrders(ctx)
	}
	if err := e.reclaim(ctx); err != nil {
		return err
	}
	r, err := e.dispatch.Recover(ctx)
	if err != nil {
		return err
	}
	if r != (dispatch.Recovered{}) {
		e.record(ctx, fleet.Event{Kind: "recovered", Layer: "sandboxes", Reason: fmt.Sprintf(
			"after a restart: %d warm sandboxes adopted, %d running tasks taken up, %d tasks returned to the queue, %d remains removed",
			r.Adopted, r.Resumed, r.Requeued, r.Reaped)})
	}
	return nil
}

// shareWakes gives each wake of the queue to the dispatcher and the loop.
func (e *Engine) shareWakes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.c.Queue.Wake():
			poke(e.leasing)
			poke(e.wake)
		}
	}
}

// loop decides at most every Gap and at least every Tick.
func (e *Engine) loop(ctx context.Context) {
	changed, release := e.registry.Watch()
	defer release()
	var moved <-chan struct{} // nodes, where they tell
	if w, ok := e.c.Nodes.(fleet.Watcher); ok {
		moved = w.Changed()
	}
	tick := time.NewTicker(e.c.Tick)
	defer tick.Stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		select { // never faster than the gap
		case <-ctx.Done():
			return
		case <-gap.C:
		}
		gap.Reset(e.pace(e.tick(ctx)))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.keepHouse(ctx)
			continue
		case <-e.wake:
		case <-changed:
		case <-moved:
			e.guard(ctx, true)
		}
		if !e.makeWay(ctx) {
			return
		}
	}
}

// makeWay waits a moment where sandboxes are ready: a task that has just come
// starts on the processors that a decision and its starts would take, and the
// decision then is about what has become of it. False when ctx has ended.
func (e *Engine) makeWay(ctx context.Context) bool {
	if e.registry.Slots() == nil {
		return true
	}
	t := time.NewTimer(e.c.Gap)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// tick is one round of observe, decide, journal, apply.
// It reports whether it did anything.
func (e *Engine) tick(ctx context.Context) bool {
	e.mu.Lock()
	frozen := e.frozen
	spec := e.spec
	e.mu.Unlock()
	if frozen || ctx.Err() != nil {
		return false
	}
	now := wall(e.c.Clock())
	snap := e.observe(ctx, now, &spec)
	if h, ok := e.c.Sandboxes.(fleet.Hurrier); ok {
		h.Hurry(tasksWait(&snap.o))
	}
	asJournaled(&snap.o)
	// What is decided stays in the decider's memory for two decisions: this one
	// is e.last until the next one is.
	p, next := e.decider.Decide(now, &snap.o, &spec.Policy, e.state)
	snap.p = *p
	seq, err := e.journal(ctx, &snap, &spec.Policy, e.state, next)
	if err != nil {
		// What is not on record is not done: a decision can always be taken
		// again.
		if ctx.Err() == nil {
			e.c.Logger.Error("cannot journal a decision; nothing is applied", "error", err)
		}
		return false
	}
	e.state, snap.seq = next, seq
	e.mu.Lock()
	e.last = snap
	e.mu.Unlock()
	if e.c.fault != nil {
		if err := e.c.fault(); err != nil {
			return false
		}
	}
	if spec.elastic() {
		e.registry.Prefer(preferences(&snap))
	}
	e.announce(ctx, &snap)
	e.apply(ctx, &snap, &spec)
	e.saw(&snap)
	e.measureDecision(&snap, &spec)
	e.mu.Lock()
	e.ready = true
	e.mu.Unlock()
	return p.Changed()
}

// tasksWait reports whether more tasks are due somewhere than sandboxes ready.
func tasksWait(o *plan.Observation) bool {
	ready := map[fleet.PoolKey]int{}
	for i := range o.Pools {
		ready[o.Pools[i].Key] = o.Pools[i].Ready
	}
	for i := range o.Queues {
		for _, d := range o.Queues[i].Pools {
			if d.Backlog > ready[d.Pool] {
				return true
			}
		}
	}
	return false
}

// pace is the gap before the next decision: short, so that a burst is met at
// once, and longer while one decision after the other does something, so that
// a steady stream is met in a few decisions a second and not in a hundred.
func (e *Engine) pace(changed bool) time.Duration {
	const longest = 100 * time.Millisecond
	if !changed {
		e.gap = e.c.Gap
	} else {
		e.gap = max(e.c.Gap, min(2*e.gap, longest))
	}
	return e.gap
}

// Quiesce prepares a stop that waits: nothing more is leased or started;
// running tasks are cancelled when asked, and waited for until ctx ends.
func (e *Engine) Quiesce(ctx context.Context, cancel bool) error {
	e.Freeze()
	if e.c.Consumers {
		if err := e.haltCrew(ctx, true); err != nil {
			return err
		}
	}
	e.dispatch.Halt()
	if cancel {
		for _, s := range e.registry.Snapshot() {
			if s.State != fleet.SandboxClaimed {
				continue
			}
			if _, err := e.dispatch.Cancel(ctx, s.Task, "stop of the control plane"); err != nil && !errors.Is(err, fleet.ErrNotFound) {
				return fmt.Errorf("cancel task %s: %w", s.Task, err)
			}
		}
	}
	changed, release := e.registry.Watch()
	defer release()
	for e.active() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d tasks still run: %w", e.active(), ctx.Err())
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// RemoveWaiting destroys every sandbox that has no task; to be called after
// Run has returned, before the sandboxes are closed.
func (e *Engine) RemoveWaiting(ctx context.Context) error {
	if e.c.Consumers {
		return e.orderAll(ctx, "stop of the control plane")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, s := range e.registry.Snapshot() {
		if s.State == fleet.SandboxClaimed {
			continue
		}
		e.slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-e.slots }()
			if err := e.registry.End(ctx, e.c.Sandboxes, s.Spec.ID, e.c.Clock(), "stop of the control plane"); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
