package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
)

// look reads the records and does what they ask; false where they could not be
// read.
func (o *Consumer) look(ctx context.Context) bool {
	read, cancel := context.WithTimeout(ctx, callTime)
	all, err := o.c.Store.Sandboxes(read, time.Time{})
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			o.c.Logger.Warn("cannot read the records of sandboxes; trying again", "error", err)
		}
		return false
	}
	mine := map[fleet.SandboxID]bool{}
	for i := range all {
		if all[i].Owner == o.c.Name {
			mine[all[i].Spec.ID] = true
			o.see(ctx, all[i])
		}
	}
	for _, s := range o.registry.Snapshot() {
		if !mine[s.Spec.ID] && o.idle(s.Spec.ID) {
			o.dispatch.Yield(ctx, s.Spec.ID)
		}
	}
	o.forget()
	return true
}

// forget drops what was remembered of sandboxes that ended a while ago: by now
// no reading of the records is that old.
func (o *Consumer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, at := range o.over {
		if o.c.Clock().Sub(at) > time.Minute {
			delete(o.over, id)
		}
	}
}

func (o *Consumer) idle(id fleet.SandboxID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.busy[id] == nil
}

// see compares one record with what is here.
func (o *Consumer) see(ctx context.Context, s fleet.Sandbox) {
	id := s.Spec.ID
	o.mu.Lock()
	w, over := o.busy[id], !o.over[id].IsZero()
	if w != nil && w.cancel != nil && s.Order != "" && w.ordered == "" {
		w.ordered = s.Order
		w.cancel()
	}
	o.mu.Unlock()
	if w != nil || over {
		return // the reading may be older than what was done here
	}
	here, held := o.registry.Get(id)
	switch {
	case held && here.State == fleet.SandboxClaimed && s.Order == "":
	case s.Order != "", s.State == fleet.SandboxFailed, !held && s.State == fleet.SandboxDraining:
		o.registry.Mirror(s)
		o.end(id, cmp.Or(s.Order, s.Message, "left behind by an earlier owner"))
	case !held && s.State == fleet.SandboxStarting:
		o.registry.Mirror(s)
		o.create(ctx, s)
	case !held:
		o.take(ctx, s)
	case here.Task == "" && s.Task == "" && here.State != s.State:
		o.registry.Mirror(s) // drained, or put back
	}
}

// begin notes that something is under way for a sandbox; done ends that.
func (o *Consumer) begin(id fleet.SandboxID, cancel context.CancelFunc) (_ *work, done func()) {
	w := &work{cancel: cancel}
	o.mu.Lock()
	o.busy[id] = w
	o.mu.Unlock()
	return w, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.busy[id] == w {
			delete(o.busy, id)
		}
	}
}

// create takes a sandbox from its record to ready, or to its end.
func (o *Consumer) create(ctx context.Context, s fleet.Sandbox) {
	ctx, cancel := context.WithCancel(ctx)
	w, done := o.begin(s.Spec.ID, cancel)
	o.wg.Go(func() {
		defer cancel()
		defer done()
		select {
		case o.slots <- struct{}{}:
			defer func() { <-o.slots }()
		case <-ctx.Done():
		}
		if s, ok := o.anew(ctx, s); !ok || s.State != fleet.SandboxStarting || s.Order != "" {
			return // the next look sees it as it is
		}
		iso, err := o.c.Sandboxes.Create(ctx, s.Spec)
		if err == nil {
			s.State, s.Isolation, s.ReadyAt = fleet.SandboxReady, iso, o.c.Clock()
			s.Spec.Node = cmp.Or(iso.Node, s.Spec.Node)
			if err = o.registry.Put(ctx, s); err == nil {
				return
			}
			if errors.Is(err, fleet.ErrNotFound) {
				// Its record is gone: nobody else will ever look for it.
				o.end(s.Spec.ID, "its record is gone")
				return
			}
		}
		o.mu.Lock()
		ordered := w.ordered
		o.mu.Unlock()
		switch {
		case ordered != "":
			o.end(s.Spec.ID, ordered)
		case ctx.Err() != nil || errors.Is(err, fleet.ErrConflict):
			// Stopping, ordered to end, or another's: the record says what, to the
			// next look.
		default:
			o.failed(ctx, s, err)
		}
	})
}

// failed records that a sandbox never became ready, and ends it.
func (o *Consumer) failed(ctx context.Context, s fleet.Sandbox, err error) {
	s.State, s.Message, s.Failure = fleet.SandboxFailed, err.Error(), dispatch.FailureOf(err)
	if err := o.registry.Put(ctx, s); err != nil {
		o.c.Logger.Warn("cannot record a failed start", "sandbox", s.Spec.ID, "error", err)
	}
	o.end(s.Spec.ID, s.Message)
}

// take takes over a sandbox that another owner has left.
func (o *Consumer) take(ctx context.Context, s fleet.Sandbox) {
	_, done := o.begin(s.Spec.ID, nil)
	o.wg.Go(func() {
		defer done()
		select {
		case o.taking <- struct{}{}:
			defer func() { <-o.taking }()
		case <-ctx.Done():
			return
		}
		if s, ok := o.anew(ctx, s); ok {
			o.dispatch.Take(ctx, s, "another consumer gave it up")
		}
	})
}

// anew reads a record again right before something is done that cannot be
// taken back; false when it is not ours any more, or cannot be read.
func (o *Consumer) anew(ctx context.Context, s fleet.Sandbox) (fleet.Sandbox, bool) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s, err := o.c.Store.Sandbox(ctx, s.Spec.ID)
	return s, err == nil && s.Owner == o.c.Name && s.State != fleet.SandboxGone
}

// end destroys a sandbox in the background, once.
func (o *Consumer) end(id fleet.SandboxID, why string) {
	_, done := o.begin(id, nil)
	o.wg.Go(func() {
		defer done()
		o.dispatch.Destroy(id, why)
		o.mu.Lock()
		o.over[id] = o.c.Clock()
		o.mu.Unlock()
	})
}

// watchExits deals with sandboxes that ended by themselves while they waited.
// Those with a task are the dispatcher's: their sink is told.
func (o *Consumer) watchExits(ctx context.Context) {
	for {
		var x fleet.SandboxExit
		select {
		case <-ctx.Done():
			return
		case x = <-o.c.Sandboxes.Exited():
		}
		s, ok := o.registry.Get(x.ID)
		if !ok || s.State == fleet.SandboxClaimed || !o.idle(x.ID) {
			continue
		}
		why := fmt.Sprintf("it ended while it was %s: %v", s.State, x.Err)
		_, _ = o.events.AppendEvents(ctx, []fleet.Event{{
			At: x.At, Kind: "sandbox_lost", Layer: "sandboxes", Pool: s.Spec.Pool, Sandbox: x.ID, Node: s.Spec.Node, Reason: why,
		}}) // never fails
		s.State, s.Message, s.Failure = fleet.SandboxDraining, why, cmp.Or(x.Reason, fleet.ReasonNodeLost)
		if err := o.registry.Put(ctx, s); err != nil {
			o.c.Logger.Warn("cannot record that a sandbox ended", "sandbox", x.ID, "error", err)
		}
		o.end(x.ID, why)
	}
}
