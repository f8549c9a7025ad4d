package sim

import (
	"errors"
	"fmt"
	"io"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// Sizer is a policy: it sizes a World. It runs on the virtual clock and keeps
// its memory between calls.
type Sizer interface {
	// Decide acts on the world, or sets the targets of its pools, and returns
	// when it wants to be asked again if nothing happens until then: a time
	// after now in milliseconds, or Never. It is called once for an instant,
	// after all that happens in it.
	Decide(now int64, w *World) (wake int64)
}

// beginner is a Sizer that wants to prepare the world before the first event.
type beginner interface{ Begin(w *World) }

// patience is how long after the window a run waits for tasks that have not
// started; what is left then counts with the wait it has had.
const patience = 7 * 24 * time.Hour

// run is one policy on one trace.
type run struct {
	w       *World
	p       *policy
	sizer   Sizer
	in      trace.Stream
	head    trace.Row
	ended   bool // the trace has no more rows
	rows    int64
	wake    int64
	horizon int64
	series  *Series
	tell    func(done float64)
	started int64  // first instant, for progress
	after   func() // tests look at the world between instants
}

// simulate runs to the end of the window and until every task of it has started.
func (r *run) simulate() error {
	if err := r.next(); err != nil {
		return err
	}
	if b, ok := r.sizer.(beginner); ok {
		b.Begin(r.w)
	}
	w := r.w
	w.events.push(newEvent(max(w.open, w.now), windowOpens, 0, 0))
	for steps := uint(0); ; steps++ {
		at := r.nextTime()
		if at > r.horizon || r.finished(at) {
			break
		}
		if r.series != nil {
			r.series.advance(w, at)
		}
		w.now = at
		happened, err := r.instant()
		if err != nil {
			return err
		}
		w.news = w.news || happened
		if r.p.eager && happened || r.wake <= at {
			r.wake = max(at+1, r.sizer.Decide(at, w))
		}
		if !r.p.direct {
			w.reconcile()
		}
		if r.after != nil {
			r.after()
		}
		if r.tell != nil && steps%(1<<16) == 0 {
			r.tell(min(1, float64(at-r.started)/float64(max(1, w.close-r.started))))
		}
	}
	return r.finish()
}

// nextTime is when the next thing happens.
func (r *run) nextTime() int64 {
	at := r.wake
	if !r.ended {
		at = min(at, r.head.Arrival)
	}
	if len(r.w.events) > 0 {
		at = min(at, r.w.events[0].at)
	}
	return at
}

// finished tells whether what happens from at on cannot change the result.
func (r *run) finished(at int64) bool {
	return at == Never || r.ended && r.w.waiting == 0 && at >= r.w.close
}

// instant lets everything happen that happens now.
func (r *run) instant() (happened bool, err error) {
	w := r.w
	for len(w.events) > 0 && w.events[0].at <= w.now {
		e := w.events.pop()
		happened = happened || r.matters(e)
		r.handle(e)
	}
	for !r.ended && r.head.Arrival <= w.now {
		happened = true
		w.arrive(r.head.Class, task{arrived: r.head.Arrival, work: r.head.Duration})
		if err = r.next(); err != nil {
			return happened, err
		}
	}
	return happened, nil
}

// matters tells whether a policy is asked after an event. A sandbox that becomes
// ready on a node in service while nobody waits moves from one count to another
// and leaves the plan of package plan as it is.
func (r *run) matters(e event) bool {
	w := r.w
	return e.kind() != boxStarted || !w.still || w.waiting > 0 || w.nodes[w.boxes[e.index()].node].state != nodeReady
}

func (r *run) handle(e event) {
	w, i := r.w, e.index()
	switch e.kind() {
	case taskDone:
		if b := &w.boxes[i]; b.gen&0xffffff == e.gen() {
			w.done(i)
		}
	case boxStarted:
		if b := &w.boxes[i]; b.gen&0xffffff == e.gen() {
			w.started(i)
		}
	case nodeBooted:
		if w.nodes[i].gen&0xffffff == e.gen() {
			w.booted(i)
		}
	case nodeFailed:
		if w.nodes[i].gen&0xffffff == e.gen() {
			w.nodeFails(i)
		}
	case nodeIdle:
		n := &w.nodes[i]
		if n.gen&0xffffff == e.gen() && n.used == 0 && !r.p.direct && w.now-n.empty >= w.hold {
			w.remove(i)
		}
	case windowOpens:
		w.bill.peak = max(w.bill.peak, w.alive)
	}
}

// next reads a row ahead.
func (r *run) next() error {
	row, err := r.in.Next()
	switch {
	case errors.Is(err, io.EOF):
		r.ended = true
	case err != nil:
		return err
	case int(row.Class) >= len(r.w.Pools):
		return fmt.Errorf("class %d was not there when the trace was read first", row.Class)
	default:
		r.head = row
		r.rows++
		if r.rows == 1 {
			r.started = min(row.Arrival, r.w.open)
			r.w.now, r.wake = r.started, r.started
		}
	}
	return nil
}

// finish bills what is left, and counts the tasks that never started.
func (r *run) finish() error {
	w := r.w
	if r.series != nil {
		r.series.advance(w, w.close)
	}
	w.now = max(w.now, w.close)
	w.settle()
	for i := range w.Pools {
		for q := &w.Pools[i].queue; q.n > 0; {
			if t := q.pop(); !t.again && t.arrived >= w.open && t.arrived < w.close {
				w.waits.add(w.now - t.arrived)
			}
		}
	}
	if r.tell != nil {
		r.tell(1)
	}
	return nil
}
