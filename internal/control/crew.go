package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

const (
	rollCallEvery = 2 * time.Second
	sweepEvery    = time.Minute
	mirrorEvery   = 5 * time.Second  // where nothing wakes it
	forgetAfter   = 10 * time.Minute // a consumer that tells nothing
	youngReading  = 10 * time.Second // a record younger than that may be missing in a reading
	claimGoal     = 200 * time.Millisecond
	rateWindow    = 5 * 60 // seconds
)

// crew is what the leader knows of its consumers.
type crew struct {
	mu     sync.Mutex
	live   []fleet.Consumer // that take sandboxes, by name
	all    []fleet.Consumer
	err    error // why they could not be read
	load   map[string]int
	writes map[fleet.SandboxID]time.Time // orders of our own, of late
	began  map[int64]int                 // tasks begun, by second
	leased map[string]leased             // by consumer
	each   float64                       // see plan.ConsumerLoad
	target plan.ConsumerTarget

	last      int64     // event followed last; the loop's own
	since     time.Time // likewise: of the last reading of records
	seen, own time.Time // likewise
}

// leased is a reading of what a consumer has leased.
type leased struct {
	at time.Time
	n  int64
}

// wrote notes that a record was written here just now.
func (e *Engine) wrote(id fleet.SandboxID) {
	if !e.c.Consumers {
		return
	}
	c := &e.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes == nil {
		c.writes = map[fleet.SandboxID]time.Time{}
	}
	c.writes[id] = e.c.Clock()
}

// pick names the live consumer with the fewest sandboxes.
func (c *crew) pick() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live) == 0 {
		return "", false
	}
	least := slices.MinFunc(c.live, func(a, b fleet.Consumer) int {
		return cmp.Or(cmp.Compare(c.load[a.Name], c.load[b.Name]), cmp.Compare(a.Name, b.Name))
	})
	c.load[least.Name]++
	return least.Name, true
}

// recoverOrders reads what an earlier leader ordered; consumers have gone on.
func (e *Engine) recoverOrders(ctx context.Context) error {
	last, err := e.c.Store.Events(ctx, fleet.EventFilter{Limit: 1, Last: true})
	if err != nil {
		return fmt.Errorf("read the newest event: %w", err)
	}
	if len(last) > 0 {
		e.crew.last = last[0].Seq
	}
	if err := e.haltCrew(ctx, false); err != nil {
		return err
	}
	if err := e.mirror(ctx); err != nil {
		return err
	}
	return e.rollCall(ctx)
}

// reclaim takes over what consumers had, in a fleet that has none any more.
func (e *Engine) reclaim(ctx context.Context) error {
	all, err := e.c.Store.Sandboxes(ctx, time.Time{})
	if err != nil {
		return fmt.Errorf("read the sandboxes on record: %w", err)
	}
	for i := range all {
		if all[i].Owner == "" {
			continue
		}
		if _, _, err := e.c.Store.TakeOver(ctx, all[i].Spec.ID, all[i].Owner, ""); err != nil && !errors.Is(err, fleet.ErrConflict) {
			return fmt.Errorf("take over sandbox %s from consumer %s: %w", all[i].Spec.ID, all[i].Owner, err)
		}
	}
	return nil
}

// lead follows consumers and what they do until ctx ends.
func (e *Engine) lead(ctx context.Context) {
	boxes, free := e.c.Store.WakeSandboxes()
	defer free()
	events, freeEvents := e.c.Store.WakeEvents()
	defer freeEvents()
	tick := time.NewTicker(e.c.Tick)
	defer tick.Stop()
	for woken := true; ; {
		began := e.c.Clock()
		var err error
		if woken || began.Sub(e.crew.since) >= mirrorEvery {
			err = e.mirror(ctx)
		}
		err = errors.Join(err, e.followEvents(ctx))
		if due(&e.crew.seen, began, rollCallEvery) {
			err = errors.Join(err, e.rollCall(ctx))
		}
		if due(&e.crew.own, began, sweepEvery) {
			err = errors.Join(err, e.sweepStrays(ctx))
		}
		if err != nil && ctx.Err() == nil {
			e.c.Logger.Warn("cannot follow the consumers; trying again", "error", err)
		}
		rest := time.NewTimer(max(20*time.Millisecond, 4*e.c.Clock().Sub(began)))
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
		woken = err != nil
		select {
		case <-ctx.Done():
			return
		case <-boxes:
			woken = true
		case <-events:
		case <-tick.C:
		}
	}
}

// mirror shows the records as consumers have written them, and measures what
// became of the starts.
func (e *Engine) mirror(ctx context.Context) error {
	began := e.c.Clock()
	since := e.crew.since
	if since.IsZero() {
		since = began // nobody's start here
	}
	all, err := e.c.Store.Sandboxes(ctx, since.Add(-youngReading))
	if err != nil {
		return fmt.Errorf("read the records of sandboxes: %w", err)
	}
	e.crew.since = began
	there := make(map[fleet.SandboxID]bool, len(all))
	load := map[string]int{}
	for i := range all {
		s := &all[i]
		there[s.Spec.ID] = true
		if s.State != fleet.SandboxGone {
			load[s.Owner]++
		}
		if e.crew.later(s.Spec.ID, began) {
			continue
		}
		before, held := e.registry.Get(s.Spec.ID)
		if held && before.State == s.State && before.Owner == s.Owner && before.Task == s.Task && before.Fence == s.Fence && before.Order == s.Order ||
			!held && s.State == fleet.SandboxGone {
			continue
		}
		e.registry.Mirror(*s)
		if held {
			e.became(ctx, &before, s)
		}
		e.noteDrain(s, began)
	}
	for _, s := range e.registry.AppendTo(nil) {
		if !there[s.Spec.ID] && began.Sub(s.CreatedAt) > youngReading {
			e.registry.Forget(s.Spec.ID)
		}
	}
	e.crew.mu.Lock()
	defer e.crew.mu.Unlock()
	e.crew.load = load
	for id, at := range e.crew.writes {
		if began.Sub(at) > youngReading {
			delete(e.crew.writes, id)
		}
	}
	return nil
}

// later reports whether a record was written here since then, so that a
// reading of then is older than what is known.
func (c *crew) later(id fleet.SandboxID, then time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.writes[id]
	return ok && !at.Before(then)
}

// noteDrain keeps since when a sandbox is drained, which another leader may
// have begun.
func (e *Engine) noteDrain(s *fleet.Sandbox, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch _, known := e.drawn[s.Spec.ID]; {
	case s.State != fleet.SandboxDraining || s.Task != "" || s.Order != "" || s.Failure != "":
		delete(e.drawn, s.Spec.ID)
	case !known:
		e.drawn[s.Spec.ID] = now
	}
}

// became measures what a consumer made of a sandbox.
func (e *Engine) became(ctx context.Context, before, s *fleet.Sandbox) {
	const soon = 10 * time.Second
	words := errors.New(cmp.Or(s.Message, "its consumer did not say why"))
	failure := words
	if s.Failure != "" {
		failure = &fleet.ReasonError{Reason: s.Failure, Err: words}
	}
	switch {
	case before.State == fleet.SandboxStarting && !s.ReadyAt.IsZero():
		e.measured(ctx, s, s.ReadyAt)
	case before.State == fleet.SandboxStarting && s.State != fleet.SandboxStarting && s.Order == "":
		e.broke(ctx, s, failure)
	case before.State == fleet.SandboxReady && s.Failure != "" && s.Usage.At.Sub(s.ReadyAt) < soon && e.c.Clock().Sub(s.ReadyAt) < soon:
		e.countFailure(s, fmt.Errorf("ended right after its start: %w", failure))
	}
	e.poke()
}

// followEvents hears of starts and ends from the consumers' journal.
func (e *Engine) followEvents(ctx context.Context) error {
	for {
		ev, err := e.c.Store.Events(ctx, fleet.EventFilter{After: e.crew.last, Kinds: []string{"task_started", "task_settled"}, Limit: 1000})
		if err != nil {
			return fmt.Errorf("read the events of consumers: %w", err)
		}
		for i := range ev {
			x := &ev[i]
			e.crew.last = x.Seq
			if x.Kind == "task_started" {
				e.crew.begun(x.At)
				observer{e}.Started(x.Pool, "", time.Duration(x.Numbers["waitSeconds"]*float64(time.Second)))
				continue
			}
			switch t, err := e.c.Store.Task(ctx, x.Task); {
			case err == nil:
				observer{e}.Settled(t)
			case !errors.Is(err, fleet.ErrNotFound):
				return fmt.Errorf("read task %s: %w", x.Task, err)
			}
		}
		if len(ev) < 1000 {
			return nil
		}
	}
}

// begun counts a task for the rate of leases.
func (c *crew) begun(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began == nil {
		c.began = map[int64]int{}
	}
	c.began[at.Unix()]++
}

// rollCall reads who is there, and gives to others what is nobody's.
func (e *Engine) rollCall(ctx context.Context) error {
	all, err := e.c.Store.Consumers(ctx)
	now := e.c.Clock()
	c := &e.crew
	c.mu.Lock()
	c.err = err
	if err != nil {
		c.mu.Unlock()
		return fmt.Errorf("read the consumers: %w", err)
	}
	c.all, c.live = all, nil
	state := map[string]fleet.Consumer{}
	for _, m := range all {
		if m.Age < fleet.ConsumerSilence {
			state[m.Name] = m
			if !m.Leaving {
				c.live = append(c.live, m)
			}
		}
	}
	c.measure(now)
	c.mu.Unlock()
	for _, m := range all {
		if m.Age > forgetAfter {
			if err := e.c.Store.DeleteConsumer(ctx, m.Name); err != nil {
				return fmt.Errorf("forget consumer %s: %w", m.Name, err)
			}
		}
	}
	return e.reassign(ctx, state)
}

// reassign gives the sandboxes of consumers that are dead or leaving to
// others. What was only being started by a dead one is started anew.
func (e *Engine) reassign(ctx context.Context, state map[string]fleet.Consumer) error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16)
	moved := map[string]int{}
	for _, s := range e.registry.Snapshot() {
		m, alive := state[s.Owner]
		if alive && (!m.Leaving || s.State == fleet.SandboxStarting) {
			continue
		}
		to, ok := e.crew.pick()
		if !ok {
			break
		}
		moved[s.Owner]++
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := e.give(ctx, s, to, alive); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	for from, n := range moved {
		why := "it has told nothing for " + fleet.ConsumerSilence.String()
		if _, alive := state[from]; alive {
			why = "it is ending"
		}
		if from == "" {
			from, why = "the control plane", "the fleet has consumers now"
		}
		e.record(ctx, fleet.Event{Kind: "sandboxes_taken_over", Layer: "consumers", From: n, To: 0,
			Reason: fmt.Sprintf("%d sandboxes of %s go to others: %s", n, from, why)})
	}
	return errors.Join(errs...)
}

// give hands one sandbox over.
func (e *Engine) give(ctx context.Context, s fleet.Sandbox, to string, alive bool) error {
	next, _, err := e.c.Store.TakeOver(ctx, s.Spec.ID, s.Owner, to)
	switch {
	case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrNotFound):
		return nil // it is over, or not theirs any more; the mirror will show it
	case err != nil:
		return fmt.Errorf("give sandbox %s of %q to %s: %w", s.Spec.ID, s.Owner, to, err)
	}
	e.registry.Mirror(next)
	if next.State == fleet.SandboxStarting && !alive {
		return e.order(ctx, next.Spec.ID, "its consumer went away while it was started")
	}
	e.wrote(s.Spec.ID)
	return nil
}

// order asks a sandbox's owner to end it.
func (e *Engine) order(ctx context.Context, id fleet.SandboxID, why string) error {
	_, err := e.registry.Order(ctx, id, why)
	e.wrote(id)
	return err
}

// orderAll ends every sandbox that has no task, and waits until they are gone.
func (e *Engine) orderAll(ctx context.Context, why string) error {
	for {
		if err := e.mirror(ctx); err != nil {
			return err
		}
		if err := e.rollCall(ctx); err != nil {
			return err
		}
		left := 0
		for _, s := range e.registry.Snapshot() {
			if s.State == fleet.SandboxClaimed {
				continue
			}
			left++
			if err := e.order(ctx, s.Spec.ID, why); err != nil {
				return err
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d sandboxes are still there: %w", left, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// haltCrew tells every consumer whether to lease.
func (e *Engine) haltCrew(ctx context.Context, halt bool) error {
	v := "0"
	if halt {
		v = "1"
	}
	if err := e.c.Store.PutSetting(ctx, fleet.SettingConsumersHalt, []byte(v)); err != nil {
		return fmt.Errorf("tell the consumers whether to lease: %w", err)
	}
	return nil
}

// sweepStrays removes sandboxes that no record knows, and returns tasks to
// their queue whose sandbox no record knows.
func (e *Engine) sweepStrays(ctx context.Context) error {
	ids, err := e.c.Sandboxes.List(ctx)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	for _, id := range ids {
		switch s, err := e.c.Store.Sandbox(ctx, id); {
		case errors.Is(err, fleet.ErrNotFound), err == nil && s.State == fleet.SandboxGone && e.c.Clock().Sub(s.GoneAt) > sweepEvery:
			if err := e.c.Sandboxes.Destroy(ctx, id); err != nil {
				return fmt.Errorf("remove sandbox %s, which is not on record: %w", id, err)
			}
		case err != nil:
			return fmt.Errorf("read the record of sandbox %s: %w", id, err)
		}
	}
	return e.dispatch.LoseOrphans(ctx, sweepEvery)
}

// measure keeps the target of consumers; c.mu is held.
func (c *crew) measure(now time.Time) {
	if c.leased == nil {
		c.leased = map[string]leased{}
	}
	for _, m := range c.live {
		was, ok := c.leased[m.Name]
		span := now.Sub(was.at)
		if ok && span < 10*time.Second {
			continue
		}
		c.leased[m.Name] = leased{now, m.Leased}
		rate := float64(m.Leased-was.n) / span.Seconds()
		switch {
		case !ok || m.ClaimP99 == 0 || rate <= 0:
		case m.ClaimP99 <= claimGoal:
			c.each = max(c.each, rate)
		case c.each > rate:
			c.each = rate // it was too much for it
		}
	}
	for name := range c.leased {
		if !slices.ContainsFunc(c.live, func(m fleet.Consumer) bool { return m.Name == name }) {
			delete(c.leased, name)
		}
	}
	for second := range c.began {
		if second < now.Unix()-rateWindow {
			delete(c.began, second)
		}
	}
}

// rate is the 95th percentile of tasks begun a second; c.mu is held.
func (c *crew) rate() float64 {
	// Seconds without a task count, too.
	per := make([]time.Duration, rateWindow)
	i := 0
	for _, n := range c.began {
		if i < len(per) {
			per[i] = time.Duration(n) * time.Second
			i++
		}
	}
	return forecast.Percentile(per, 95).Seconds()
}

// ConsumersWanted is how many consumers the plan wants, and why; 0 where the
// fleet has none. It takes the time into account and is to be asked now and
// then.
func (e *Engine) ConsumersWanted() (int, string) {
	if !e.c.Consumers {
		return 0, ""
	}
	e.mu.Lock()
	p := e.spec.Consumers
	wanted := 0
	for i := range e.last.p.Pools {
		wanted += e.last.p.Pools[i].Desired
	}
	e.mu.Unlock()
	c := &e.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = plan.Consumers(e.c.Clock(), &plan.ConsumerLoad{Sandboxes: wanted, Rate: c.rate(), Each: c.each}, &p, c.target)
	return c.target.N, c.target.Reason
}

// Consumers is who runs the tasks, as they told last; an error where that
// could not be read.
func (e *Engine) Consumers() ([]fleet.Consumer, error) {
	e.crew.mu.Lock()
	defer e.crew.mu.Unlock()
	return slices.Clone(e.crew.all), e.crew.err
}
