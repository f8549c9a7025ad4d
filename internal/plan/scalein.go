package plan

import (
	"time"
)

// isStale tells a sandbox that is to be replaced.
func (d *decision) isStale(w *work, b *Idle) bool {
	if w.t.MaxAge > 0 {
		d.wake(b.Created.Add(w.t.MaxAge))
	}
	return b.Stale || w.t.MaxAge > 0 && d.now.Sub(b.Created) >= w.t.MaxAge
}

// expel drains at once what no task may get any more: here the old is broken
// before the new is made, whatever the signals are. What is to be replaced is
// counted on the way.
func (d *decision) expel(w *work) {
	for i := range w.o.Idle {
		b := &w.o.Idle[i]
		if !b.Unfit {
			if (b.Stale || w.t.MaxAge > 0) && d.isStale(w, b) {
				w.stale++
			}
			continue
		}
		if i >= MaxIdle {
			continue
		}
		w.named |= 1 << i
		w.unfit++
		d.act(Action{Kind: DrainSandbox, Pool: w.o.Key, Sandbox: b.ID, Node: b.Node, Reason: &Reason{
			Cause: CauseUnfit, Bound: BoundTemplate, Numbers: Numbers{Ready: w.o.Ready, Count: 1},
			Detail: "its template now asks for another network, other mounts or another runtime",
		}})
	}
}

// scaleIn drains by name what is ready beyond what is wanted, and destroys
// what was drained long enough ago. Busy sandboxes are not even observed by
// name, so that they cannot be chosen.
func (d *decision) scaleIn(w *work) {
	d.destroyDrained(w)
	if d.signal != "" || d.o.NodesError != "" {
		w.s.SurplusSince = time.Time{}
		return
	}
	d.replace(w)
	surplus := w.idle() - w.drains - w.grant
	if w.stale > w.drains {
		// Replacements that are beside the stale ones for now are no surplus.
		surplus -= min(w.stale-w.drains, max(1, int(d.p.Surge*float64(w.grant))))
	}
	if surplus <= 0 {
		w.s.SurplusSince = time.Time{}
		return
	}
	if w.s.SurplusSince.IsZero() || w.s.SurplusSince.After(d.now) {
		w.s.SurplusSince = d.now
	}
	// With the money used up what is ready goes out of dispatch at once: a task
	// that starts is what costs.
	if wait := d.p.HoldSurplus - d.now.Sub(w.s.SurplusSince); wait > 0 && !d.room.broke.has() {
		d.wake(d.now.Add(wait))
		if w.cause == "" {
			w.because(CauseHold, BoundNone, 0)
			w.count, w.wait = surplus, wait
		}
		return
	}
	if n := d.drain(w, min(surplus, w.o.Ready-w.unfit), false); n > 0 && w.cause == "" {
		w.because(CauseSurplus, BoundNone, 0)
		w.count = n
	}
}

// replace drains stale ones: as many as there are ready beyond the want, so
// that the new is made before the old is broken; one when there is no room for
// both.
func (d *decision) replace(w *work) {
	if w.stale == 0 {
		return
	}
	n := min(w.stale, w.o.Ready-w.unfit-w.grant)
	stuck := w.placed == 0 && w.o.Starting == 0 && w.s.Breaker.Failures == 0
	if n <= 0 && stuck && w.need == 0 {
		n = 1
	}
	n = d.drain(w, n, true)
	if w.cause == "" {
		w.because(CauseReplace, BoundNone, 0)
		w.count = max(n, w.placed, 1)
		w.detail = "of another revision or older than maxAge"
	}
}

// drain names up to n ready sandboxes, the first to part with first.
func (d *decision) drain(w *work, n int, staleOnly bool) int {
	done := 0
	for i := 0; i < len(w.o.Idle) && i < MaxIdle && done < n; i++ {
		b := &w.o.Idle[i]
		if w.named&(1<<i) != 0 || staleOnly && !d.isStale(w, b) {
			continue
		}
		w.named |= 1 << i
		d.act(Action{Kind: DrainSandbox, Pool: w.o.Key, Sandbox: b.ID, Node: b.Node})
		done++
	}
	w.drains += done
	return done
}

// destroyDrained removes what was drained long enough ago. It is not scale-in
// any more: the choice was made when it was drained, and it serves nobody. It
// stops while signals are stale nevertheless, so that it can be taken back.
func (d *decision) destroyDrained(w *work) {
	if d.signal != "" {
		return
	}
	taken := w.undrain
	for i := range w.o.Draining {
		b := &w.o.Draining[i]
		if taken > 0 && !d.isStale(w, b) && !d.leaving(b.Node) {
			taken--
			continue
		}
		if age := d.now.Sub(b.Since); age >= d.p.DrainGrace || age < 0 || d.leaving(b.Node) {
			d.act(Action{Kind: DestroySandbox, Pool: w.o.Key, Sandbox: b.ID, Node: b.Node})
		} else {
			d.wake(b.Since.Add(d.p.DrainGrace))
		}
	}
}

// reclaim drains idle warm stock of other pools at once when waiting tasks
// found no room: demand goes before stock. Only as much as helps is taken, and
// only where a waiting sandbox fits afterwards.
func (d *decision) reclaim() {
	if d.scarce == 0 || d.signal != "" {
		return
	}
	for i := range d.works {
		w := &d.works[i]
		short := min(w.starts-w.placed, w.need-w.idle()-w.undrain-w.placed)
		if w.bound.ofMoney() || short <= 0 {
			continue
		}
		d.reclaimFor(w, short)
	}
	// The room that this makes brings no node; nor does what is on the way out.
	d.scarce = max(0, d.scarce-d.outgoing())
}

// outgoing is how many sandboxes make room soon: those on the way out, but for
// those on nodes that go, too.
func (d *decision) outgoing() int {
	n := 0
	for i := range d.works {
		w := &d.works[i]
		n += w.o.Releasing + w.drains
		for b := range w.o.Draining {
			if !d.leaving(w.o.Draining[b].Node) {
				n++
			}
		}
	}
	return n
}

// reclaimFor frees room for n sandboxes of w, node by node.
func (d *decision) reclaimFor(w *work, n int) {
	pending := 0 // already on the way out
	for i := range d.works {
		pending += d.works[i].o.Releasing + len(d.works[i].o.Draining) + d.works[i].drains
	}
	n -= pending
	for k := range d.o.Nodes {
		if n <= 0 {
			return
		}
		n -= d.reclaimOn(w, &d.o.Nodes[k], n)
	}
}

// reclaimOn drains idle sandboxes of other pools on a node until up to n of w
// fit there; none when not even one would.
func (d *decision) reclaimOn(w *work, node *Node, n int) int {
	free := space{slots: unbounded, size: Size{
		MilliCPU:    node.Capacity.MilliCPU - node.UsedSize.MilliCPU,
		MemoryBytes: node.Capacity.MemoryBytes - node.UsedSize.MemoryBytes,
		DiskBytes:   node.Capacity.DiskBytes - node.UsedSize.DiskBytes,
	}}
	if node.Slots > 0 {
		free.slots = int32(node.Slots - node.Used)
	}
	if d.room.limit >= 0 {
		free.slots = min(free.slots, int32(d.room.limit-d.room.used))
	}
	type victim struct{ pool, idle int }
	var victims []victim
	useful, fits := 0, 0
	for i := range d.works {
		v := &d.works[i]
		if v == w {
			continue
		}
		spare := v.o.Ready - v.unfit - v.drains - v.need
		for b := 0; b < len(v.o.Idle) && b < MaxIdle && spare > 0 && fits < n; b++ {
			if v.named&(1<<b) != 0 || v.o.Idle[b].Node != node.ID {
				continue
			}
			spare--
			free.take(-1, v.o.Size)
			victims = append(victims, victim{i, b})
			if k, _ := free.fit(w.o.Size); k > fits {
				fits, useful = k, len(victims)
			}
		}
	}
	if useful == 0 {
		return fits
	}
	r := d.reason(w)
	r.Cause, r.Numbers.Count, r.Detail = CauseReclaim, useful, "for pool "+string(w.o.Key)
	for _, x := range victims[:useful] {
		v := &d.works[x.pool]
		b := &v.o.Idle[x.idle]
		v.named |= 1 << x.idle
		v.drains++
		d.act(Action{Kind: DrainSandbox, Pool: v.o.Key, Sandbox: b.ID, Node: b.Node, Reason: &r})
		if v.cause == "" || v.cause == CauseHold {
			v.because(CauseReclaim, w.bound, 0)
			v.count, v.detail = useful, r.Detail
		}
	}
	return fits
}
