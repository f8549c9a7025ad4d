package plan

import (
	"cmp"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// work is one pool on its way through a decision.
type work struct {
	o *Pool
	s *PoolState
	t TemplatePolicy
	d Demand

	// Everything below counts sandboxes.
	need   int // ready ones that waiting tasks want
	floor  int // warm, by minima and calendar
	warm   int // warm in all; at least floor
	grant  int // of need+warm, what the bounds allow, and what fills free slots
	filled int // of grant, beyond need+warm
	stale  int // ready ones to be replaced
	unfit  int // ready ones that no task may get

	missing int // wanted and not there
	starts  int // of them, those that may be started now
	placed  int // of them, those that found room on a node
	drains  int
	named   uint64 // bit i: Idle[i] is drained by this decision
	undrain int    // taken back
	looked  int    // draining ones considered for that
	failing bool   // the tasks that wait are failed
	burst   bool
	tte     time.Duration

	cause  Cause
	bound  Bound
	limit  int
	count  int
	wait   time.Duration
	detail string
	floors string
}

// idle is the supply that is not busy.
func (w *work) idle() int { return w.o.Ready - w.unfit + w.o.Starting }

func (w *work) because(c Cause, b Bound, limit int) {
	w.cause, w.bound, w.limit = c, b, limit
}

// Decider makes decisions in memory of its own, which it uses again: a fleet
// of any steady size is decided without allocating. It holds nothing that
// influences a decision. A Decider is not safe for concurrent use.
type Decider struct {
	// Terse leaves out of a plan what nobody acts on: the targets of its pools,
	// numbers and reasons. Its actions, its Wake and the state are the same.
	Terse bool

	d      decision
	plans  [2]Plan
	states [2]State
	whys   [2]Reason // of nodes that go
	turn   int
}

// decision is the state of one call of Decide.
type decision struct {
	now    time.Time
	o      *Observation
	p      Policy
	plan   *Plan
	why    *Reason
	next   *State
	works  []work
	signal string // why the queues are stale; empty when they are not
	room   room
	terse  bool
	scarce int // starts for waiting tasks that found no room

	prices prices
	filler *work  // the pool that fills free slots, if any does
	kept   steady // for Holds

	counted layer         // the nodes, before anything is decided
	longest time.Duration // of the lead times of pools

	// Buffers.
	cursors, asks, order []int
	spaces               []space
}

// Decide sizes the fleet: what should be, and what to do now. It is pure and
// deterministic, costs O(pools + nodes + named sandboxes), and touches neither
// the observation nor the state it is given.
func Decide(now time.Time, o Observation, p Policy, s State) (Plan, State) {
	plan, next := new(Decider).Decide(now, &o, &p, &s)
	return *plan, *next
}

// Decide is [Decide] in the memory of the Decider: what it returns holds until
// the call after the next one. The state given may be the one it returned
// last; neither it nor the observation is changed.
func (x *Decider) Decide(now time.Time, o *Observation, p *Policy, s *State) (*Plan, *State) {
	x.turn ^= 1
	if s == &x.states[x.turn] {
		x.turn ^= 1
	}
	d := &x.d
	plan, next := &x.plans[x.turn], &x.states[x.turn]
	clear(plan.Actions) // lets go of reasons
	*plan = Plan{Pools: plan.Pools[:0], Actions: plan.Actions[:0]}
	d.now, d.o, d.p, d.plan, d.next, d.why = now, o, *p, plan, next, &x.whys[x.turn]
	d.p.fill()
	d.room, d.scarce, d.filler = room{}, 0, nil
	d.kept, d.terse = steady{}, x.Terse
	d.works = sized(d.works, len(o.Pools))
	d.cursors = sized(d.cursors, len(o.Queues))
	*next = State{At: now, Pools: carry(next.Pools[:0], s.Pools, o.Pools), Nodes: s.Nodes}
	d.signal = staleSignal(now, o.Queues, d.p.StaleAfter)
	plan.Signal = d.signal
	d.longest = 0
	for i := range o.Pools {
		d.longest = max(d.longest, d.lead(&o.Pools[i]))
	}
	d.counted = d.countNodes()
	for i := range o.Pools {
		w := &d.works[i]
		w.o, w.s = &o.Pools[i], &next.Pools[i]
		if !w.o.Unknown {
			w.t = d.p.Templates[w.o.Template]
		}
		d.expel(w)
		d.measure(w, d.cursors)
		d.stock(w)
	}
	d.room = d.measureRoom()
	d.grantAll()
	d.fill()
	for i := range d.works {
		d.supply(&d.works[i])
	}
	d.placeAll()
	for i := range d.works {
		d.scaleIn(&d.works[i])
	}
	d.reclaim()
	d.nodes()
	d.conclude()
	d.keep()
	return plan, next
}

// sized returns n zero values, in the memory of s where it suffices.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// wake notes a time at which the decision could change by itself.
func (d *decision) wake(at time.Time) {
	d.expect(at)
	d.glance(at)
}

// glance is wake for what Holds looks at by itself.
func (d *decision) glance(at time.Time) {
	if at.After(d.now) && (d.plan.Wake.IsZero() || at.Before(d.plan.Wake)) {
		d.plan.Wake = at
	}
}

// measure takes the readings of one pool in: demand, arrivals, breaker.
func (d *decision) measure(w *work, cursors []int) {
	s := w.s
	got, _ := demandOf(w.o.Key, d.o.Queues, cursors)
	if d.signal == "" {
		s.Last, s.LastGood, s.Finished = got, true, w.o.Finished
		w.d = got
		s.Arrivals.Observe(d.now, got.Arrived, d.window(w))
	} else if s.LastGood {
		// From the last reading on: what finished since then is no longer
		// demand, so that an outage is not an endless backlog either.
		w.d = s.Last
		done := int(max(0, w.o.Finished-s.Finished))
		w.d.InFlight = max(0, w.d.InFlight-done)
		done -= min(done, s.Last.InFlight)
		w.d.Backlog = max(0, w.d.Backlog-done)
		w.d.Held = min(w.d.Held, w.d.Backlog)
	} else {
		w.d = Demand{Pool: w.o.Key}
	}
	// Tasks in flight and busy sandboxes are the same thing seen from two
	// sides at slightly different moments; the larger is the safer.
	total := w.d.Backlog - w.d.Held + max(w.d.InFlight, w.o.Running)
	w.need = max(0, total-w.o.Running)
	s.Breaker.update(d.now, w.o.Revision, w.o.Started, w.o.Failed, &d.p.Breaker)
}

// window is the span in which arrivals are counted: one lead time.
func (d *decision) window(w *work) time.Duration {
	return min(max(d.lead(w.o), d.p.Review), time.Minute)
}

// lead is the lead time to plan with: the measured 95th percentile.
func (d *decision) lead(p *Pool) time.Duration {
	if p.Lead.P95 > 0 {
		return p.Lead.P95
	}
	return d.p.PriorLead.P95
}

// conclude writes targets and reasons.
func (d *decision) conclude() {
	if d.terse && !d.room.broke.has() { // a budget tells when it begins anew
		return
	}
	if cap(d.plan.Pools) < len(d.works) {
		d.plan.Pools = make([]PoolTarget, len(d.works))
	}
	d.plan.Pools = d.plan.Pools[:len(d.works)]
	for i := range d.works {
		w := &d.works[i]
		d.explain(w)
		t := &d.plan.Pools[i]
		*t = PoolTarget{
			Pool: w.o.Key, Desired: w.o.Running + w.grant, Warm: min(w.warm, max(0, w.grant-w.need)),
			Unmet: max(0, w.grant-w.idle()-w.undrain-w.placed), Rate: w.s.Arrivals.Rate(),
			Dispersion: w.s.Arrivals.Dispersion(), TimeToEmpty: w.tte, Breaker: w.s.Breaker.view(w.o),
			// No more is leased than can be claimed: what is ready, and what
			// runs already.
			Consumers: w.o.Running + min(w.need, w.idle()+w.undrain+w.placed),
			Reason:    d.reason(w),
		}
		d.plan.Consumers += t.Consumers
	}
	at := 0
	for i := range d.plan.Actions {
		if a := &d.plan.Actions[i]; a.Reason == nil && a.Pool != "" {
			if d.works[at].o.Key != a.Pool { // often it is the last one's
				at, _ = d.index(a.Pool)
			}
			a.Reason = &d.plan.Pools[at].Reason
		}
	}
}

// severity orders causes by how much a person should care.
func severity(t *PoolTarget) int {
	n := 0
	switch t.Reason.Cause {
	case CauseGiveUp:
		n = 9
	case CauseBreaker, CauseProbe, CauseNoTemplate:
		n = 7
	case CauseBudget:
		n = 6
	case CauseCapacity:
		n = 5
	case CauseBurst:
		n = 4
	case CauseDemand:
		n = 3
	case CauseStarting, CauseWarm, CauseFloor:
		n = 2
	case CauseReplace, CauseReclaim, CauseUndrain, CauseSurplus:
		n = 1
	}
	if n > 0 && t.Reason.Numbers.Backlog > 0 {
		n += 10
	}
	return n
}

func (d *decision) act(a Action) { d.plan.Actions = append(d.plan.Actions, a) }

// reason is the reason of a pool with its numbers.
func (d *decision) reason(w *work) Reason {
	var age time.Duration
	if w.d.Backlog > 0 && !w.d.Oldest.IsZero() {
		age = max(0, d.now.Sub(w.d.Oldest))
	}
	r := Reason{Cause: w.cause, Bound: w.bound, Detail: w.detail, Numbers: Numbers{
		Backlog: w.d.Backlog, InFlight: w.d.InFlight, Ready: w.o.Ready, Starting: w.o.Starting,
		Running: w.o.Running, Draining: len(w.o.Draining), Desired: w.o.Running + w.grant, Warm: w.warm,
		Floor: w.floor, Stale: w.stale, Count: w.count, Limit: w.limit, Failures: w.s.Breaker.Failures,
		Rate: w.s.Arrivals.Rate(), Lead: d.lead(w.o), OldestAge: age, Wait: w.wait,
	}}
	if w.cause == CauseBudget {
		d.room.broke.tell(d, &r.Numbers)
	}
	return r
}

// explain settles the cause of a pool that no step has named one for.
func (d *decision) explain(w *work) {
	if w.count == 0 {
		w.count = w.placed
	}
	if w.cause != "" {
		return
	}
	missing := w.grant - w.idle() - w.undrain
	switch {
	case d.signal != "" && w.placed == 0:
		w.because(CauseStale, BoundSignal, 0)
		w.detail = d.signal
	case w.undrain > 0:
		w.because(CauseUndrain, BoundNone, 0)
		w.count = w.undrain
	case w.burst && w.placed > 0:
		w.because(CauseBurst, BoundNone, 0)
	case w.placed > 0 && w.need > w.idle():
		w.because(CauseDemand, BoundNone, 0)
	case w.placed > 0 && w.floor > 0 && w.warm == w.floor:
		w.because(CauseFloor, BoundMin, 0)
		if w.floors != "" {
			w.bound, w.detail = BoundFloor, w.floors
		}
	case w.placed > 0:
		w.because(CauseWarm, BoundNone, 0)
	case w.o.Starting > 0 && missing <= 0 && w.o.Ready < w.grant:
		w.because(CauseStarting, BoundNone, 0)
	default:
		w.because(CauseSteady, BoundNone, 0)
	}
}

// index finds a pool by key.
func (d *decision) index(key fleet.PoolKey) (int, bool) {
	return slices.BinarySearchFunc(d.works, key, func(w work, key fleet.PoolKey) int { return cmp.Compare(w.o.Key, key) })
}
