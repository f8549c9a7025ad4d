package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// script is a small world whose nodes the planner brings and returns. Its
// output is like that of scenario, with a plot of the nodes and the bill.
type script struct {
	name    string
	start   time.Time
	length  time.Duration
	pools   []string // sorted
	policy  func(*Policy)
	service time.Duration
	arrive  func(at time.Duration, pool int) int
	boot    func(at time.Duration) time.Duration // of a node asked for at at
	stock   func(at time.Duration) bool          // nil: there are always nodes
	floors  []Floor
}

// machine is a node of the world, box a sandbox.
type machine struct {
	id        fleet.NodeID
	state     fleet.NodeState
	requested time.Duration
	until     time.Duration // boots until
}

type box struct {
	id      fleet.SandboxID
	pool    int
	node    fleet.NodeID
	state   Kind // StartSandboxes, UndrainSandbox (ready), ScaleNodes (busy) or DrainSandbox
	created time.Duration
	since   time.Duration
	until   time.Duration
}

const (
	isStarting = StartSandboxes
	isReady    = UndrainSandbox
	isBusy     = ScaleNodes
	isDraining = DrainSandbox
)

// clusterWorld is the state of a script; one step is a second.
type clusterWorld struct {
	c        script
	p        Policy
	s        State
	nodes    []machine
	boxes    []box
	queues   [][]time.Duration
	arrived  []int64
	finished []int64
	started  []int64
	booted   int64
	failed   int64
	begun    int64
	late     int64
	next     int
	leads    forecast.Leads
	ranks    forecast.Ranks
	lives    forecast.Lifetimes
	waits    []time.Duration
	costs    []int64 // micro-USD by second
	billed   time.Duration
	plot     [][]int
	told     map[string]time.Duration
	last     map[string]string
	story    bytes.Buffer
}

const coldStart = 2 * time.Second

func newClusterWorld(c script) *clusterWorld {
	n := len(c.pools)
	m := &clusterWorld{c: c, queues: make([][]time.Duration, n), arrived: make([]int64, n), finished: make([]int64, n), started: make([]int64, n),
		told: map[string]time.Duration{}, last: map[string]string{}}
	m.p = scalable(func(p *Policy) {
		p.Budget.NodeHour = 400_000
		p.Templates = map[string]TemplatePolicy{}
		for _, name := range c.pools {
			p.Templates[name] = TemplatePolicy{}
		}
		p.First = c.pools[0]
		if c.policy != nil {
			c.policy(p)
		}
	})
	return m
}

func (m *clusterWorld) now(at time.Duration) time.Time { return m.c.start.Add(at) }

func (m *clusterWorld) step(at time.Duration) {
	m.settle(at)
	for i := range m.c.pools {
		for range m.c.arrive(at, i) {
			m.queues[i] = append(m.queues[i], at)
			m.arrived[i]++
		}
	}
	m.dispatch(at)
	o := m.observe(at)
	p, s := Decide(m.now(at), o, m.p, m.s)
	m.s = s
	for _, a := range p.Actions {
		m.apply(a, at)
	}
	m.tell(p, at)
	m.dispatch(at)
	m.account()
}

// settle ends what is due: boots, starts, and tasks with their sandboxes.
func (m *clusterWorld) settle(at time.Duration) {
	m.nodes = slices.DeleteFunc(m.nodes, func(n machine) bool {
		return n.state == fleet.NodeBooting && n.until <= at && m.c.stock != nil && !m.c.stock(at) && m.fail()
	})
	for i := range m.nodes {
		if n := &m.nodes[i]; n.state == fleet.NodeBooting && n.until <= at {
			n.state = fleet.NodeReady
			m.booted++
			m.leads.Add(m.now(at), at-n.requested)
		}
	}
	m.boxes = slices.DeleteFunc(m.boxes, func(b box) bool {
		if b.state == isBusy && b.until <= at {
			m.finished[b.pool]++
			m.lives.Done(m.now(at), at-b.since)
			return true
		}
		return false
	})
	for i := range m.boxes {
		if b := &m.boxes[i]; b.state == isStarting && b.until <= at {
			b.state, b.since = isReady, at
			m.started[b.pool]++
		}
	}
}

func (m *clusterWorld) fail() bool { m.failed++; return true }

// dispatch gives waiting tasks to ready sandboxes, on the preferred node first.
func (m *clusterWorld) dispatch(at time.Duration) {
	for i := range m.queues {
		for len(m.queues[i]) > 0 {
			best := m.preferred(i, at)
			if best < 0 {
				break
			}
			wait := at - m.queues[i][0]
			m.queues[i] = m.queues[i][1:]
			m.waits = append(m.waits, wait)
			m.begun++
			if wait > m.p.Objective {
				m.late++
			}
			b := &m.boxes[best]
			b.state, b.since, b.until = isBusy, at, at+m.c.service
		}
	}
}

// preferred is the ready box of a pool on the node to fill first; -1: none.
func (m *clusterWorld) preferred(pool int, at time.Duration) int {
	best, most := -1, -1.0
	worth := map[fleet.NodeID]float64{}
	for k := range m.boxes {
		b := &m.boxes[k]
		if b.pool != pool || b.state != isReady {
			continue
		}
		v, known := worth[b.node]
		if !known {
			n := m.view(m.node(b.node), at)
			v = Prefer(&n)
			worth[b.node] = v
		}
		if v > most {
			best, most = k, v
		}
	}
	return best
}

func (m *clusterWorld) node(id fleet.NodeID) *machine {
	i := slices.IndexFunc(m.nodes, func(n machine) bool { return n.id == id })
	return &m.nodes[i]
}

// view is a node as the planner sees it.
func (m *clusterWorld) view(n *machine, at time.Duration) Node {
	v := Node{ID: n.id, State: n.state, Slots: m.p.Nodes.Slots, Capacity: m.p.Nodes.Size, Since: m.now(n.requested), Requested: m.now(n.requested)}
	for i := range m.boxes {
		b := &m.boxes[i]
		if b.node != n.id {
			continue
		}
		v.Used++
		switch b.state {
		case isBusy:
			v.Running++
			v.Residual = max(v.Residual, m.lives.Residual(at-b.since))
		case isStarting:
			v.Starting++
		}
	}
	v.UsedSize = Size{1000 * int64(v.Used), int64(v.Used) << 30, int64(v.Used) << 20}
	return v
}

func (m *clusterWorld) observe(at time.Duration) Observation {
	now := m.now(at)
	q := Queue{Name: "q", AsOf: now}
	o := Observation{Floors: m.c.floors, NodesStarted: m.booted, NodesFailed: m.failed, Begun: m.begun, Late: m.late,
		NodeLead: m.leads.Quantiles(now, time.Hour, fleet.Lead{})}
	if m.failed > 0 {
		o.NodeFailure = "no capacity in zone a"
	}
	var arrived, finished int64
	for i := range m.c.pools {
		p, d := m.pool(i)
		o.Pools, q.Pools = append(o.Pools, p), append(q.Pools, d)
		arrived, finished = arrived+m.arrived[i], finished+m.finished[i]
	}
	for i := range m.nodes {
		o.Nodes = append(o.Nodes, m.view(&m.nodes[i], at))
	}
	lead := m.p.Nodes.BootLead
	if o.NodeLead.P95 > 0 {
		lead = o.NodeLead.P95
	}
	o.Outlook = &forecast.Outlook{}
	m.ranks.Observe(now, arrived, finished, lead)
	m.ranks.Outlook(now, lead, o.Outlook)
	full := int(now.Sub(now.Truncate(time.Hour)) / time.Second)
	for i := max(0, len(m.costs)-full); i < len(m.costs); i++ { // since the full hour
		o.Spend.HourMicroUSD += m.costs[i]
	}
	o.Queues = []Queue{q}
	return o
}

func (m *clusterWorld) pool(i int) (Pool, Demand) {
	key := fleet.PoolKey(m.c.pools[i])
	p := Pool{Key: key, Template: string(key), Revision: "r1", Size: Size{1000, 1 << 30, 1 << 20}, Proven: true,
		Lead: fleet.Lead{P50: coldStart, P95: coldStart, P99: coldStart, Samples: 1}, Started: m.started[i], Finished: m.finished[i]}
	for k := range m.boxes {
		b := &m.boxes[k]
		if b.pool != i {
			continue
		}
		x := Idle{ID: b.id, Node: b.node, Created: m.now(b.created), Since: m.now(b.since)}
		switch b.state {
		case isStarting:
			p.Starting++
		case isReady:
			p.Ready++
			p.Idle = append(p.Idle, x)
		case isBusy:
			p.Running++
		case isDraining:
			p.Draining = append(p.Draining, x)
		}
	}
	slices.SortStableFunc(p.Draining, func(a, b Idle) int { return b.Since.Compare(a.Since) })
	d := Demand{Pool: key, Backlog: len(m.queues[i]), InFlight: p.Running, Arrived: m.arrived[i]}
	if d.Backlog > 0 {
		d.Oldest = m.now(m.queues[i][0])
	}
	return p, d
}

func (m *clusterWorld) apply(a Action, at time.Duration) {
	state := func(s Kind) {
		k := slices.IndexFunc(m.boxes, func(b box) bool { return b.id == a.Sandbox })
		m.boxes[k].state, m.boxes[k].since = s, at
	}
	switch a.Kind {
	case StartSandboxes:
		for range a.N {
			m.next++
			m.boxes = append(m.boxes, box{id: fleet.SandboxID(fmt.Sprintf("s%05d", m.next)), pool: slices.Index(m.c.pools, string(a.Pool)),
				node: a.Node, state: isStarting, created: at, since: at, until: at + coldStart})
		}
	case DrainSandbox:
		state(isDraining)
	case UndrainSandbox:
		state(isReady)
	case DestroySandbox:
		m.boxes = slices.DeleteFunc(m.boxes, func(b box) bool { return b.id == a.Sandbox })
	case ScaleNodes:
		for len(m.nodes) < a.N {
			m.next++
			m.nodes = append(m.nodes, machine{id: fleet.NodeID(fmt.Sprintf("n%05d", m.next)), state: fleet.NodeBooting, requested: at, until: at + m.c.boot(at)})
		}
	case CordonNode:
		m.node(a.Node).state = fleet.NodeCordoned
	case UncordonNode:
		m.node(a.Node).state = fleet.NodeReady
	case ReleaseNode:
		n := m.node(a.Node)
		m.billed += max(0, m.p.Nodes.MinBill-(at-n.requested)) // the rest of the minimum
		m.nodes = slices.DeleteFunc(m.nodes, func(n machine) bool { return n.id == a.Node })
	}
}

// account bills a second and plots it.
func (m *clusterWorld) account() {
	ready, demand, booting := 0, 0, 0
	for _, q := range m.queues {
		demand += len(q)
	}
	for i := range m.boxes {
		switch m.boxes[i].state {
		case isReady:
			ready++
		case isBusy:
			demand++
		}
	}
	for i := range m.nodes {
		if m.nodes[i].state == fleet.NodeBooting {
			booting++
		}
	}
	m.billed += time.Duration(len(m.nodes)) * time.Second
	m.costs = append(m.costs, int64(len(m.nodes))*m.p.Budget.NodeHour/3600)
	m.plot = append(m.plot, []int{ready, len(m.boxes), demand, len(m.nodes) - booting, booting})
}

// tell writes what is new of the layer and of each pool; the same kind of news
// only now and then.
func (m *clusterWorld) tell(p Plan, at time.Duration) {
	m.news(at, "nodes", "", p.Actions, &p.Nodes.Reason)
	for i := range p.Pools {
		m.news(at, string(p.Pools[i].Pool), p.Pools[i].Pool, p.Actions, &p.Pools[i].Reason)
	}
}

func (m *clusterWorld) news(at time.Duration, who string, pool fleet.PoolKey, actions []Action, r *Reason) {
	var acts []string
	for _, k := range []Kind{ScaleNodes, UncordonNode, CordonNode, ReleaseNode, StartSandboxes, UndrainSandbox, DrainSandbox} {
		for _, a := range actions {
			if a.Kind == k && a.Pool == pool && !slices.Contains(acts, string(k)) {
				acts = append(acts, string(k))
			}
		}
	}
	doing := strings.Join(acts, "+")
	key := fmt.Sprint(who, r.Cause, r.Bound, doing)
	told, ok := m.told[key]
	// Pools are quiet: their daily business is told by the scenarios of one host.
	quiet := r.Bound == BoundNone && (pool != "" || doing == "" && at > 0)
	if (!ok || at-told >= max(5*time.Minute, m.c.length/15)) && key != m.last[who] && !quiet {
		fmt.Fprintf(&m.story, "%8s  %-7s %-8s %s\n", at, who, doing, r.Sentence())
		m.told[key] = at
	}
	m.last[who] = key
}

func (m *clusterWorld) report() string {
	waiting := 0
	for _, q := range m.queues {
		waiting += len(q)
	}
	slices.Sort(m.waits)
	boxes, nodes := make([][]int, len(m.plot)), make([][]int, len(m.plot))
	for i, p := range m.plot {
		boxes[i], nodes[i] = p[:3], p[3:]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\ntasks %d, started %d, still waiting %d, longest wait %s, over the objective of %s %d, node-seconds %d, booted %d, failed %d\n\n",
		m.c.name, len(m.waits)+waiting, len(m.waits), waiting, slices.MaxFunc(append(m.waits, 0), cmp.Compare[time.Duration]), m.p.Objective, m.late,
		int(m.billed.Seconds()), m.booted, m.failed)
	fmt.Fprintf(&b, "* demand   # supply   r ready, most in each of %s\n%s", m.c.length/chartWidth, chart(16, "r#*", boxes))
	fmt.Fprintf(&b, "n nodes in service   b booting\n%s\n%s", chart(8, "nb", nodes), m.story.String())
	return b.String()
}
