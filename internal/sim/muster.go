package sim

import (
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

// Muster is the policy of the product: what a Fleet says, for package plan.
type Muster struct {
	Policy plan.Policy
	// Floors gives the calendar's windows that are open or open within the
	// hour; nil: there are none.
	Floors func(now time.Time) []plan.Floor
}

// gap is how long the control loop waits, in milliseconds, before it looks at
// what its last actions did.
const gap = 10

// floorsEvery is how often the calendar is looked at: often enough, since it
// names windows an hour ahead.
const floorsEvery = 300 * second

// planner drives package plan: it keeps an observation up to date, asks for a
// decision, and applies it to the world. It decides nothing itself.
type planner struct {
	c       Muster
	o       plan.Observation
	s       *plan.State
	decider plan.Decider
	pools   []poolView
	order   []int32 // position in o.Nodes -> node
	place   []int32 // node -> position in o.Nodes; -1: none
	before  []plan.Node
	nodeIDs []fleet.NodeID
	boxIDs  []fleet.SandboxID
	floorAt int64
	spend   spending
	outlook outlook
	slots   int
	every   bool // asked after every event
	again   bool // the last actions may lead to more
}

// poolView is what the control loop measures of one pool; see
// internal/control.
type poolView struct {
	at       int // position in the observation
	leads    forecast.Leads
	weekly   forecast.Weekly
	arrived  int64
	started  int64
	hours    int64 // what Seasonal was computed for
	draining []drained
	idle     []named // as the observation names the ready ones
}

// drained is a sandbox on its way out.
type drained struct {
	box int32
	gen uint32
}

func newMuster(c *Config, _ *Survey) (Sizer, error) {
	m := &planner{c: c.Muster, s: &plan.State{}, decider: plan.Decider{Terse: true}, slots: c.Model.Slots, floorAt: -floorsEvery}
	// Failing or uneven starts are looked at one by one.
	m.every = c.every || c.Model.StartFailures > 0 || c.Model.ColdStart.Kind != "constant"
	p := &m.c.Policy
	*p = p.WithDefaults()
	p.Nodes.Scalable = true
	p.Nodes.Slots = c.Model.Slots
	p.Nodes.BootLead, p.Nodes.MinBill = c.Model.Boot.Median, c.Model.MinBill
	if c.Model.MaxNodes > 0 {
		p.Nodes.Max = c.Model.MaxNodes
	}
	if p.Budget.NodeHour == 0 {
		p.Budget.NodeHour = c.Model.NodeHour
	}
	names := c.poolNames()
	sorted := slices.Sorted(slices.Values(names))
	templates := map[string]plan.TemplatePolicy{}
	for _, name := range names {
		templates[name] = p.Templates[name]
		m.every = m.every || p.Templates[name].MaxAge > 0 // what is ready replaces what is old
	}
	if p.Templates = templates; p.First == "" || len(names) == 1 {
		p.First = names[0]
	}
	m.o.Queues = []plan.Queue{{Name: "trace", Pools: make([]plan.Demand, len(names))}}
	m.o.Pools = make([]plan.Pool, len(names))
	m.pools = make([]poolView, len(names))
	for i, name := range names {
		at, _ := slices.BinarySearch(sorted, name)
		m.pools[i].at = at
		m.o.Queues[0].Pools[at].Pool = fleet.PoolKey(name)
		m.o.Pools[at] = plan.Pool{Key: fleet.PoolKey(name), Template: name, Revision: "1"}
	}
	return m, nil
}

// Begin implements beginner: changed nodes are recorded, and empty ones are
// the planner's own business.
func (m *planner) Begin(w *World) {
	w.watch, w.hold, w.objective = true, Never, m.c.Policy.Objective.Milliseconds()
}

// Decide implements Sizer.
func (m *planner) Decide(now int64, w *World) int64 {
	at := clock(now)
	quiet := m.quiet(now, w)
	m.outlook.observe(now, at, w, m)
	if quiet && m.decider.Holds(at, m.o.Outlook) {
		m.again = false
		return m.wake(now)
	}
	w.news = false
	m.observe(now, at, w)
	return m.decide(now, at, w)
}

// quiet tells that nothing happened since the last decision but that time has
// passed, of which the planner can tell whether it matters.
func (m *planner) quiet(now int64, w *World) bool {
	if w.news || m.every || m.timed() && now-m.floorAt >= floorsEvery || m.spends() {
		return false
	}
	for i := range m.pools {
		if v := &m.pools[i]; v.hours != m.hours(now, &m.o.Pools[v.at]) {
			return false
		}
	}
	return true
}

// decide is one decision on what was observed, applied.
func (m *planner) decide(now int64, at time.Time, w *World) int64 {
	var p *plan.Plan
	p, m.s = m.decider.Decide(at, &m.o, &m.c.Policy, m.s)
	m.again = false
	for i := range p.Actions {
		m.again = m.follow(w, &p.Actions[i]) || m.again
		m.apply(w, &p.Actions[i])
	}
	w.still = m.still()
	return m.wake(now)
}

// follow tells whether to look at what an action did: not at starts on nodes
// that are busy, which do not ask for more, and not at nodes that are asked for
// or gone, which have been counted.
func (m *planner) follow(w *World, a *plan.Action) bool {
	switch a.Kind {
	case plan.StartSandboxes:
		return m.every || w.nodes[indexOf(a.Node)].running == 0
	case plan.ScaleNodes, plan.ReleaseNode:
		return m.every
	case plan.UndrainSandbox, plan.DrainSandbox, plan.DestroySandbox, plan.FailWaiting, plan.CordonNode, plan.UncordonNode:
	}
	return true
}

// still tells whether the plan holds where sandboxes only become ready. What
// there is too much of is drained as soon as it is ready.
func (m *planner) still() bool {
	for i := range m.s.Pools {
		if !m.s.Pools[i].SurplusSince.IsZero() {
			return false
		}
	}
	return !m.every
}

// wake is when to decide again if nothing happens: when a decision could
// differ, but no sooner than in a second, which is how often the control loop
// ticks; and after actions that may lead to more, as soon as it looks at what
// they did.
func (m *planner) wake(now int64) int64 {
	wake := int64(Never)
	if next := m.decider.Next(); !next.IsZero() {
		wake = max(now+second, next.UnixMilli())
	}
	if m.again {
		wake = now + gap
	}
	if m.timed() {
		wake = min(wake, m.floorAt+floorsEvery)
	}
	return wake
}

// timed tells that the fleet has floors by the calendar.
func (m *planner) timed() bool { return m.c.Floors != nil }

// spends tells that the fleet has a budget, of which more is spent as time
// passes.
func (m *planner) spends() bool {
	b := &m.c.Policy.Budget
	return b.PerHour > 0 || b.PerDay > 0 || b.PerMonth > 0
}

func clock(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// observe brings the observation up to date, but for the outlook.
func (m *planner) observe(now int64, at time.Time, w *World) {
	m.o.Queues[0].AsOf = at
	for i := range w.Pools {
		m.observePool(now, at, w, i)
	}
	m.observeNodes(now, w)
	if m.timed() && now-m.floorAt >= floorsEvery {
		m.o.Floors, m.floorAt = m.c.Floors(at), now
	}
	if m.spends() {
		m.o.Spend = m.spend.charge(now, w.alive, m.c.Policy.Budget.NodeHour)
	}
}

func (m *planner) observePool(now int64, at time.Time, w *World, i int) {
	p, v := &w.Pools[i], &m.pools[i]
	o, d := &m.o.Pools[v.at], &m.o.Queues[0].Pools[v.at]
	d.Backlog, d.InFlight, d.Arrived, d.Oldest = p.queue.n, p.Running, p.Arrived, time.Time{}
	if p.queue.n > 0 {
		d.Oldest = clock(p.queue.front())
	}
	v.weekly.Observe(at, p.Arrived-v.arrived)
	v.arrived = p.Arrived
	o.Ready, o.Starting, o.Running = p.Ready, p.Starting, p.Running
	o.Finished = p.Finished
	m.measureLead(at, w, p, v, o)
	if hours := m.hours(now, o); v.hours != hours {
		v.hours = hours
		o.Seasonal = v.weekly.Floor(at, o.Lead.P95+m.review(), m.quantile())
	}
	m.nameIdle(w, p, v, o)
	m.nameDraining(w, v, o)
}

// hours tells apart the hours that the stock of a pool is for.
func (m *planner) hours(now int64, o *plan.Pool) int64 {
	return now/hour + (now+(o.Lead.P95+m.review()).Milliseconds())/hour
}

func (m *planner) review() time.Duration { return m.c.Policy.Review }
func (m *planner) quantile() float64     { return m.c.Policy.Quantile }

// measureLead takes in the lead times of the starts since the last look.
func (m *planner) measureLead(at time.Time, w *World, p *Pool, v *poolView, o *plan.Pool) {
	if p.Failed > o.Failed {
		o.Failed, o.Failure = p.Failed, "the simulated start failed"
	}
	if p.Started == o.Started && o.Lead.P95 > 0 {
		return
	}
	fresh := min(p.Started-o.Started, 64)
	if w.m.ColdStart.Kind != "constant" || v.started < 64 {
		for range fresh {
			v.leads.Add(at, time.Duration(w.lastLead)*time.Millisecond)
		}
		o.Lead = v.leads.Quantiles(at, time.Hour, m.c.Policy.PriorLead)
	}
	v.started += fresh
	o.Started, o.Proven = p.Started, p.Started > 0
	if fresh > 0 {
		o.Failure = ""
	}
}

// nameDraining lists drained sandboxes, the youngest first.
func (m *planner) nameDraining(w *World, v *poolView, o *plan.Pool) {
	o.Draining = o.Draining[:0]
	if len(v.draining) == 0 {
		return
	}
	v.draining = slices.DeleteFunc(v.draining, func(d drained) bool {
		return w.boxes[d.box].gen != d.gen || w.boxes[d.box].state != boxDraining
	})
	for _, d := range slices.Backward(v.draining) {
		b := &w.boxes[d.box]
		o.Draining = append(o.Draining, plan.Idle{ID: m.boxID(d.box), Node: m.nodeID(b.node), Created: clock(b.created), Since: clock(b.since)})
	}
}

func (m *planner) nodeID(i int32) fleet.NodeID {
	for int(i) >= len(m.nodeIDs) {
		m.nodeIDs = append(m.nodeIDs, fleet.NodeID(fmt.Sprintf("n%08d", len(m.nodeIDs))))
	}
	return m.nodeIDs[i]
}

func (m *planner) boxID(i int32) fleet.SandboxID {
	for int(i) >= len(m.boxIDs) {
		m.boxIDs = append(m.boxIDs, fleet.SandboxID(fmt.Sprintf("s%08d", len(m.boxIDs))))
	}
	return m.boxIDs[i]
}

// indexOf reads the index back from a name.
func indexOf[T ~string](name T) int32 {
	if name == "" {
		return -1
	}
	n := int32(0)
	for _, c := range []byte(name[1:]) {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int32(c-'0')
	}
	return n
}

// apply does what the plan says, at once and without failing: what the
// control loop does to sandboxes and nodes.
func (m *planner) apply(w *World, a *plan.Action) {
	switch a.Kind {
	case plan.StartSandboxes:
		for range a.N {
			w.Start(m.poolOf(a.Pool), indexOf(a.Node))
		}
	case plan.DrainSandbox:
		i := indexOf(a.Sandbox)
		w.Drain(i)
		b := &w.boxes[i]
		v := &m.pools[b.pool]
		v.draining = append(v.draining, drained{i, b.gen})
	case plan.UndrainSandbox:
		w.Undrain(indexOf(a.Sandbox))
	case plan.DestroySandbox:
		w.Destroy(indexOf(a.Sandbox))
	case plan.ScaleNodes:
		w.Launch(a.N - w.alive)
	case plan.CordonNode:
		w.Cordon(indexOf(a.Node), true)
	case plan.UncordonNode:
		w.Cordon(indexOf(a.Node), false)
	case plan.ReleaseNode:
		w.Release(indexOf(a.Node))
	case plan.FailWaiting: // the trace's tasks are all possible
	}
}

func (m *planner) poolOf(key fleet.PoolKey) int32 {
	if len(m.pools) == 1 {
		return 0
	}
	for i := range m.pools {
		if m.o.Pools[m.pools[i].at].Key == key {
			return int32(i)
		}
	}
	return 0
}
