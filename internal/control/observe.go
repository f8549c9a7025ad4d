package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

// leadWindow is how far back lead times are looked at.
const leadWindow = time.Hour

// poolMemory is what the engine measured of one pool.
type poolMemory struct {
	Leads    forecast.Leads  `json:"leads"`
	Weekly   forecast.Weekly `json:"weekly"`
	Arrived  int64           `json:"arrived"`
	Proven   string          `json:"proven"` // revision that has started once
	template fleet.Template  // of a variant
	base     string          // revision of the template it was made from
	watched  bool            // the last reading was good
	started  int64
	failed   int64
	finished int64
	failure  string
	reason   fleet.TaskReason
	// emptySince is since when no sandbox has been ready; zero while one is.
	emptySince time.Time
}

// memory returns the memory of a pool; the lock must be held.
func (e *Engine) memory(key fleet.PoolKey) *poolMemory {
	m := e.pools[key]
	if m == nil {
		m = &poolMemory{}
		e.pools[key] = m
	}
	return m
}

// observe reads the world. Sandboxes are read before the queue: a task that
// finishes in between is then seen as a little too much supply, never as too
// little.
func (e *Engine) observe(ctx context.Context, now time.Time, spec *Spec) snapshot {
	e.boxes = e.registry.AppendTo(e.boxes[:0])
	boxes := e.boxes
	s := snapshot{at: now, asOf: now}
	readings := e.readings(ctx)
	nodes, nodesErr := e.c.Nodes.List(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.queues(&s, readings)
	if e.c.Follow {
		overlay(boxes, &s.stats, now)
		e.layer.completed(&s.stats)
	}
	if nodesErr != nil {
		nodes, s.o.NodesError = e.last.nodes, nodesErr.Error()
	}
	s.nodes = nodes
	g := gather{e: e, now: now, spec: spec, pools: map[fleet.PoolKey]*plan.Pool{}, nodes: map[fleet.NodeID]*plan.Node{}, templates: map[fleet.PoolKey]fleet.Template{}}
	g.all(ctx, boxes, &s.stats, nodes)
	g.learn(ctx, &s.stats, err == nil)
	s.o.Pools, s.o.Nodes = g.poolList(), g.nodeList()
	s.o.Floors = floorsAt(now, spec)
	if spec.elastic() {
		e.layer.measure(&s, &spec.Policy, e.c.Nodes)
	}
	s.o.Spend = e.spent(now)
	s.o.Sort()
	if e.c.Follow {
		workers, known := 0, false
		if e.c.Workers != nil {
			workers, known = e.c.Workers()
		}
		e.shadow.measure(now, &s, workers, known)
	}
	return s
}

// readings reads the queue, or each of those it is made of.
func (e *Engine) readings(ctx context.Context) []fleet.QueueReading {
	if q, ok := e.c.Queue.(fleet.Compound); ok {
		return q.Readings(ctx)
	}
	stats, err := e.c.Queue.Stats(ctx)
	return []fleet.QueueReading{{Name: "embedded", Stats: stats, Err: err}}
}

// queues fills in what was read of the queues. Of one that could not be read
// the last good reading goes on being counted, and the planner is told. The
// error is that of all those that failed; the lock must be held.
func (e *Engine) queues(s *snapshot, readings []fleet.QueueReading) error {
	if e.read == nil {
		e.read = map[string]fleet.QueueStats{}
	}
	var failed []error
	for i := range readings {
		r := &readings[i]
		q := plan.Queue{Name: r.Name}
		if r.Err == nil {
			e.read[r.Name] = r.Stats
		} else {
			failed = append(failed, fmt.Errorf("%s: %w", r.Name, r.Err))
			q.Error = r.Err.Error()
			r.Stats, r.Err = e.read[r.Name], nil
		}
		q.AsOf, q.Pools = r.Stats.AsOf, demands(&r.Stats)
		s.o.Queues = append(s.o.Queues, q)
	}
	s.stats, _ = fleet.SumReadings(readings) // none is an error any more
	s.queue = readings
	s.asOf = s.stats.AsOf
	if err := errors.Join(failed...); err != nil {
		s.err = strings.ReplaceAll(err.Error(), "\n", "; ")
		return err
	}
	return nil
}

func demands(s *fleet.QueueStats) []plan.Demand {
	out := make([]plan.Demand, len(s.Pools))
	for i, p := range s.Pools {
		out[i] = plan.Demand{Pool: p.Pool, Backlog: p.Backlog, Delayed: p.Delayed, InFlight: p.InFlight, Oldest: p.Oldest, Arrived: p.Arrived, Held: p.Held, Priority: p.Priority}
	}
	return out
}

// floorsAt evaluates the calendar: windows that are open, or open within the
// hour, so that the planner can begin them one lead time early.
func floorsAt(now time.Time, spec *Spec) []plan.Floor {
	const ahead = time.Hour
	var out []plan.Floor
	for _, f := range spec.Floors {
		t := f.Template
		if t == "" {
			t = spec.Policy.First
		}
		add := func(from time.Time) {
			out = append(out, plan.Floor{
				Template: t, Name: f.Rule.String() + " " + f.Rule.Zone().String(),
				From: from, Until: from.Add(f.For), Min: f.Min,
			})
		}
		if w, open := f.Rule.Active(now, f.For); open {
			add(w.Start)
		}
		if next := f.Rule.Next(now); !next.IsZero() && next.Sub(now) <= ahead {
			add(next)
		}
	}
	return out
}

// gather adds sandboxes and demand up by pool and node; the engine's lock is
// held meanwhile.
type gather struct {
	e     *Engine
	now   time.Time
	spec  *Spec
	pools map[fleet.PoolKey]*plan.Pool
	nodes map[fleet.NodeID]*plan.Node
	// templates are those the pools are made from now.
	templates map[fleet.PoolKey]fleet.Template
}

// fits tells whether a sandbox is confined as its template asks for now.
func fits(s *fleet.SandboxSpec, t *fleet.Template) bool {
	return s.Runtime == t.Runtime && s.Network.Mode == t.Network.Mode && slices.Equal(s.Network.Allow, t.Network.Allow) &&
		slices.Equal(s.Network.AllowPrivate, t.Network.AllowPrivate) && slices.Equal(s.Mounts, t.Mounts)
}

func (g *gather) all(ctx context.Context, boxes []fleet.Sandbox, stats *fleet.QueueStats, nodes []fleet.Node) {
	for _, n := range nodes {
		g.nodes[n.ID] = &plan.Node{
			ID: n.ID, State: n.State, Slots: n.Slots, Since: n.RequestedAt, Requested: n.RequestedAt,
			Capacity: plan.Size{MilliCPU: n.MilliCPU, MemoryBytes: n.MemoryBytes, DiskBytes: n.DiskBytes},
		}
	}
	for _, t := range g.spec.Templates {
		g.pool(ctx, fleet.PoolKey(t.Name), nil)
	}
	for i := range stats.Pools {
		d := &stats.Pools[i]
		if d.Backlog+d.InFlight > 0 {
			g.pool(ctx, d.Pool, nil)
		}
	}
	for i := range boxes {
		g.box(ctx, &boxes[i])
	}
	for _, p := range g.pools {
		m := g.e.memory(p.Key)
		switch {
		case p.Ready > 0:
			m.emptySince = time.Time{}
		case m.emptySince.IsZero():
			m.emptySince = g.now
		}
	}
}

// pool returns the aggregate of a pool, making it when it is seen first; like
// is a sandbox of it, where there is one.
func (g *gather) pool(ctx context.Context, key fleet.PoolKey, like *fleet.Sandbox) *plan.Pool {
	if p := g.pools[key]; p != nil {
		return p
	}
	name, variant := templateOf(key)
	t, known := g.spec.template(name)
	m := g.e.memory(key)
	if variant && known {
		t, known = g.variant(ctx, key, t, m)
	}
	if !known && like != nil {
		t = fleet.Template{Name: name, Revision: like.Spec.Revision, Resources: like.Spec.Resources}
	}
	p := &plan.Pool{
		Key: key, Template: name, Unknown: !known, Revision: t.Revision, Size: sizeOf(t.Resources),
		Lead:    m.Leads.Quantiles(g.now, leadWindow, g.spec.Policy.PriorLead),
		Started: m.started, Failed: m.failed, Finished: m.finished,
		Proven: m.Proven != "" && m.Proven == t.Revision, Failure: m.failure, FailureReason: m.reason,
	}
	if !variant {
		p.Seasonal = m.Weekly.Floor(g.now.In(g.spec.zone()), p.Lead.P95+g.spec.Policy.Review, g.spec.Policy.Quantile)
	}
	g.pools[key] = p
	if known {
		g.templates[key] = t
	}
	return p
}

// variant finds the template of a variant from a task that waits for it; it is
// kept while its base template does not change.
func (g *gather) variant(ctx context.Context, key fleet.PoolKey, base fleet.Template, m *poolMemory) (fleet.Template, bool) {
	if m.template.Name != "" && m.base == base.Revision {
		return m.template, true
	}
	found, err := g.e.c.Store.Tasks(ctx, fleet.TaskFilter{Pool: key, States: []fleet.TaskState{fleet.TaskQueued}, Limit: 1})
	if err != nil || len(found) == 0 {
		return m.template, m.template.Name != ""
	}
	m.template = g.e.c.Variant(base, found[0].Spec)
	m.base = base.Revision
	return m.template, true
}

// thinDisk is how far disk limits may exceed what is free: writable layers are
// sparse files, and few agents fill theirs.
const thinDisk = 16

// sizeOf is what a sandbox takes of a node. A node reports the disk that is
// free now, so that what existing sandboxes wrote is counted already; a new one
// wants the thin share of its limit free.
func sizeOf(r fleet.Resources) plan.Size {
	return plan.Size{MilliCPU: r.MilliCPU, MemoryBytes: r.MemoryBytes, DiskBytes: r.DiskBytes / thinDisk}
}

func (g *gather) box(ctx context.Context, s *fleet.Sandbox) {
	p := g.pool(ctx, s.Spec.Pool, s)
	if n := g.nodes[s.Spec.Node]; n != nil {
		n.Used++
		n.UsedSize.MilliCPU += s.Spec.Resources.MilliCPU
		n.UsedSize.MemoryBytes += s.Spec.Resources.MemoryBytes
		switch s.State {
		case fleet.SandboxClaimed:
			n.Running++
			if g.spec.elastic() {
				n.Residual = max(n.Residual, g.e.layer.Lives.Residual(g.now.Sub(s.ClaimedAt)))
			}
		case fleet.SandboxStarting:
			n.Starting++
		}
	}
	idle := plan.Idle{ID: s.Spec.ID, Node: s.Spec.Node, Created: s.CreatedAt, Since: s.ReadyAt, Stale: s.Spec.Revision != p.Revision}
	if idle.Stale && !p.Unknown {
		t, known := g.templates[s.Spec.Pool]
		idle.Unfit = known && !fits(&s.Spec, &t)
	}
	switch s.State {
	case fleet.SandboxStarting:
		p.Starting++
	case fleet.SandboxReady:
		p.Ready++
		p.Idle = append(p.Idle, idle)
	case fleet.SandboxClaimed:
		p.Running++
	case fleet.SandboxDraining:
		at, ours := g.e.drawn[s.Spec.ID]
		if !ours || g.e.ending[s.Spec.ID] {
			p.Releasing++
			return
		}
		idle.Since = at
		p.Draining = append(p.Draining, idle)
	default:
		p.Releasing++
	}
}

func (g *gather) poolList() []plan.Pool {
	out := make([]plan.Pool, 0, len(g.pools))
	for _, p := range g.pools {
		slices.SortFunc(p.Idle, func(a, b plan.Idle) int {
			if a.Stale != b.Stale {
				if a.Stale {
					return -1
				}
				return 1
			}
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
		})
		slices.SortFunc(p.Draining, func(a, b plan.Idle) int {
			return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.ID, b.ID))
		})
		p.Idle = p.Idle[:min(len(p.Idle), plan.MaxIdle)]
		out = append(out, *p)
	}
	return out
}

func (g *gather) nodeList() []plan.Node {
	out := make([]plan.Node, 0, len(g.nodes))
	for _, n := range g.nodes {
		out = append(out, *n)
	}
	return out
}
