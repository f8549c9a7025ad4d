package dispatch

import (
	"context"
	"errors"
	"maps"
	"time"

	"muster.dev/muster/internal/fleet"
)

// leaseAll leases as many tasks as there are ready sandboxes and claims one
// for each.
func (d *Dispatcher) leaseAll(ctx context.Context) {
	d.mu.Lock()
	halt := d.halt
	d.mu.Unlock()
	for !halt && ctx.Err() == nil {
		slots := d.Registry.Slots()
		if len(slots) == 0 {
			return
		}
		o := offers{d: d, taken: map[fleet.TaskID]fleet.Sandbox{}}
		got, err := d.Queue.Lease(ctx, fleet.LeaseRequest{Slots: slots, Visibility: d.Visibility, Consumer: d.Consumer, Claim: o.claim})
		if err != nil {
			for _, box := range o.taken {
				d.Registry.release(box.Spec.ID)
			}
			if ctx.Err() == nil {
				d.Logger.Warn("cannot lease; trying again on the next tick", "error", err)
			}
			return
		}
		if len(got) == 0 {
			return
		}
		for _, dl := range got {
			d.begin(dl, o.taken)
		}
	}
}

// offers names sandboxes for the tasks of one lease.
type offers struct {
	d     *Dispatcher
	taken map[fleet.TaskID]fleet.Sandbox
}

// claim implements fleet.LeaseRequest.Claim. Secrets are read before a sandbox
// is claimed, which cannot be done here.
func (o *offers) claim(t fleet.Task) (fleet.Claim, bool) {
	if len(t.Spec.Secrets) > 0 || o.d.find(t.ID) != nil {
		return fleet.Claim{}, false
	}
	box, ok := o.d.Registry.take(t.Spec.Pool)
	if !ok {
		return fleet.Claim{}, false
	}
	o.taken[t.ID] = box
	return fleet.Claim{Sandbox: box.Spec.ID, Launch: LaunchOf(box.ReadyAt, t.DueAt), At: o.d.Clock(), Owner: box.Owner}, true
}

// begin starts the run of a leased task, with the sandbox that was claimed
// along with it or with one it claims now.
func (d *Dispatcher) begin(dl fleet.Delivery, taken map[fleet.TaskID]fleet.Sandbox) {
	box, ok := taken[dl.Task.ID]
	if dl.Task.State.Active() {
		r := newRun(d, dl.Task, dl.Lease, box.Spec.ID)
		d.add(r) // there is no other: offers has looked, and runs begin here only
		d.Registry.claimed(r.box, dl.Task)
		d.wg.Go(func() { r.attach(maps.Clone(dl.Task.Spec.Env)) })
		return
	}
	if ok {
		d.Registry.release(box.Spec.ID)
	}
	if box, ok = d.Registry.take(dl.Task.Spec.Pool); !ok {
		// The sandbox was drained between counting and taking.
		d.nack(dl.Lease, 0, "no sandbox was ready any more")
		return
	}
	r := newRun(d, dl.Task, dl.Lease, box.Spec.ID)
	if !d.add(r) {
		d.Registry.release(box.Spec.ID)
		d.nack(dl.Lease, 0, "an earlier attempt is still being ended")
		return
	}
	d.wg.Go(func() { r.start(box) })
}

func (d *Dispatcher) nack(l fleet.Lease, delay time.Duration, why string) {
	if err := d.Queue.Nack(d.base, l, delay, why); err != nil && !errors.Is(err, fleet.ErrFenced) {
		d.Logger.Warn("cannot return a task to its queue; its lease will run out", "task", l.Task, "error", err)
	}
}
