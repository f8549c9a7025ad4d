package plan

import (
	"strings"
	"time"
)

// stock sets the warm stock of a pool: minima and calendar floors, the base
// stock over the lead time, bursts remembered; it rises at once and falls only
// after a hold.
func (d *decision) stock(w *work) {
	w.tte = -1
	if w.o.Unknown || w.variant() {
		w.warm = 0
		return
	}
	d.floors(w)
	rate := w.s.Arrivals.Rate()
	lead := d.lead(w.o)
	// The stock must last from this decision's start until what the next one
	// starts is ready.
	horizon := lead + d.p.Review
	base := w.s.Arrivals.Quantile(d.p.Quantile, horizon)
	if last := w.s.Arrivals.Last; !last.IsZero() && d.now.Sub(last) <= d.p.BurstMemory {
		base = max(base, w.s.Arrivals.Burst(d.p.Quantile))
	} else if rate*horizon.Seconds() < 0.01 {
		base = 0
	}
	d.depletion(w, rate, lead)
	if w.burst {
		base = max(base, int(2*w.s.Arrivals.Fast*horizon.Seconds()+0.999))
	}
	raw := max(base, w.o.Seasonal)
	w.warm = max(w.floor, d.hold(w, raw))
}

// variant tells a pool with resources of a task's own; it has no warm stock.
func (w *work) variant() bool { return strings.IndexByte(string(w.o.Key), '~') >= 0 }

// floors lifts the stock to the minima in force. Windows begin one lead time
// early, that of a node included where nodes are brought, so that the stock is
// there when the window opens.
func (d *decision) floors(w *work) {
	w.floor = w.t.Min
	if w.o.Template == d.p.First {
		w.floor = max(w.floor, d.p.Min)
	}
	lead := d.lead(w.o) + d.bootLead()
	for i := range d.o.Floors {
		f := &d.o.Floors[i]
		if f.Template == w.o.Template {
			d.wake(f.From.Add(-lead))
			d.wake(f.Until)
		}
		if f.Template != w.o.Template || d.now.Before(f.From.Add(-lead)) || !d.now.Before(f.Until) {
			continue
		}
		if f.Min > w.floor {
			w.floor, w.floors = f.Min, f.Name
		}
	}
}

// depletion measures how long the ready stock lasts: arrivals against what is
// becoming ready.
func (d *decision) depletion(w *work, rate float64, lead time.Duration) {
	rate = max(rate, w.s.Arrivals.Fast)
	if rate <= 1e-3 {
		return
	}
	refill := 0.0
	if s := lead.Seconds(); s > 0 {
		refill = float64(w.o.Starting) / s
	}
	net := rate - refill
	if net <= 0 {
		return
	}
	w.tte = time.Duration(min(float64(w.o.Ready)/net, 1e6) * float64(time.Second))
	// A task or two now and then is no burst.
	w.burst = w.tte < lead && w.s.Arrivals.Fast*lead.Seconds() >= 1
}

// hold keeps a target up for HoldWarm after its cause: no flapping.
func (d *decision) hold(w *work, raw int) int {
	s := w.s
	if s.WarmUntil.Sub(d.now) > d.p.HoldWarm { // the clock went back
		s.WarmUntil = d.now.Add(d.p.HoldWarm)
	}
	if raw >= s.Warm || !d.now.Before(s.WarmUntil) {
		s.Warm, s.WarmUntil = raw, d.now.Add(d.p.HoldWarm)
	}
	if s.Warm > w.floor {
		d.glance(s.WarmUntil)
	}
	return s.Warm
}
