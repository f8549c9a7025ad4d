package whatif

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// Rules say how a fleet becomes what the loop and the ledger work with.
type Rules struct {
	Spec   func(*v1alpha1.Fleet) (control.Spec, error)
	Tariff func(*v1alpha1.Fleet) (cost.Tariff, error)
}

// Lab simulates cases on one history.
type Lab struct {
	History *History
	Seen    Seen
	Rules   Rules
	Now     time.Time // prices are those of then

	open time.Time // from when on tasks count
}

// Case is one simulated fleet.
type Case struct {
	Fleet  *v1alpha1.Fleet // with its defaults
	Policy string          // empty: muster
	// Kind and Shape are those of its nodes; nil: what is seen.
	Kind  *fleet.NodeKind
	Shape *Shape
	// NodeFailures is how often a node is lost, per node-hour.
	NodeFailures float64
	// From, when set, is when counting begins, in place of after the warm-up.
	From time.Time
}

// Target is the share of tasks that should start within the objective.
const Target = 0.99

// ErrNothing says that a history has no task that counts.
var ErrNothing = fmt.Errorf("no task has run and finished in this time: %w", fleet.ErrNotFound)

// NewLab checks that there is a history to try things on.
func NewLab(h *History, s Seen, r Rules, now time.Time) (*Lab, error) {
	if len(h.Tasks) == 0 {
		return nil, ErrNothing
	}
	first := h.Tasks[0].Arrival
	l := &Lab{History: h, Seen: s, Rules: r, Now: now, open: first}
	if h.Until.IsZero() {
		h.Until = now
	}
	// The simulated planner begins with nothing learned: a tenth of the tasks,
	// but no more than a week, is for that.
	if n := len(h.Tasks) / 10; n > 0 {
		l.open = h.Tasks[n].Arrival
		if week := first.Add(7 * 24 * time.Hour); l.open.After(week) {
			l.open = week
		}
	}
	return l, nil
}

// Open is when counting begins.
func (l *Lab) Open() time.Time { return l.open }

// Days is how much time is counted.
func (l *Lab) Days() float64 { return l.History.Until.Sub(l.open).Hours() / 24 }

// Middle is where the later half of the counted tasks begins.
func (l *Lab) Middle() time.Time {
	t := l.History.Tasks
	first := sort.Search(len(t), func(i int) bool { return !t[i].Arrival.Before(l.open) })
	return t[first+(len(t)-first)/2].Arrival
}

// Run simulates a case; it ends early with ctx.
func (l *Lab) Run(ctx context.Context, c Case) (fleet.WhatIfOutcome, error) {
	conf, p, err := l.config(ctx, &c)
	if err != nil {
		return fleet.WhatIfOutcome{}, err
	}
	if c.Policy == "" {
		c.Policy = "muster"
	}
	survey, err := sim.Look(conf)
	if err != nil {
		return fleet.WhatIfOutcome{}, simulated(ctx, err)
	}
	r, err := sim.Simulate(conf, survey, c.Policy)
	if err != nil {
		return fleet.WhatIfOutcome{}, simulated(ctx, err)
	}
	return outcome(&r, conf, p), nil
}

func simulated(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sim.ErrNoTask):
		return ErrNothing
	}
	return fmt.Errorf("simulate: %w", err)
}

// world is what the model is of.
type world struct {
	fixed   int   // nodes that are always there; 0: they come and go
	perHour int64 // micro-USD
}

// fixed is how many nodes are there whatever the planner wants: this machine,
// or those of a cluster that the fleet brings none to.
func (l *Lab) fixed(f *v1alpha1.Fleet) int {
	n := &f.Spec.Nodes
	k := n.Kubernetes
	switch {
	case n.Provider == v1alpha1.ProviderHost:
		return 1
	case n.Provider == v1alpha1.ProviderKubernetes && (k == nil || len(k.NodeSelector) == 0 || k.Headroom == v1alpha1.HeadroomNone):
		return max(1, l.Seen.Total)
	}
	return 0
}

// config is a case as the simulator takes it.
func (l *Lab) config(ctx context.Context, c *Case) (*sim.Config, world, error) {
	var w world
	spec, err := l.Rules.Spec(c.Fleet)
	if err != nil {
		return nil, w, err
	}
	tariff, err := l.Rules.Tariff(c.Fleet)
	if err != nil {
		return nil, w, err
	}
	kind, shape := l.Seen.Kind, l.Seen.Shape
	if c.Kind != nil {
		kind = *c.Kind
	}
	if c.Shape != nil {
		shape = *c.Shape
	}
	n := &c.Fleet.Spec.Nodes
	w.fixed = l.fixed(c.Fleet)
	prices, minBill := tariff.For(kind, l.Now)
	w.perHour = int64(prices.PerHour(l.Now))

	m := sim.Defaults()
	m.Boot, _ = l.boot(c.Fleet)
	m.ColdStart, _ = l.cold()
	m.NodeHour, m.MinBill, m.MaxNodes, m.NodeFailures = w.perHour, minBill, n.Max, c.NodeFailures
	m.Slots = l.slots(c.Fleet, spec.Templates, shape)
	p := policy(&spec)
	p.Nodes.Min, p.Budget.NodeHour = n.Min, w.perHour
	if w.fixed > 0 {
		m.Boot, m.MinBill, m.MaxNodes, p.Nodes.Min = sim.Constant(0), 0, w.fixed, w.fixed
	}
	conf := &sim.Config{
		Trace: bounded{ctx, l.History.rows()}, From: l.open, To: l.History.Until, Model: m,
		Muster: sim.Muster{Policy: p.WithDefaults()}, Pools: l.History.Templates,
	}
	if !c.From.IsZero() {
		conf.From = c.From
	}
	if !conf.From.Before(conf.To) {
		return nil, w, ErrNothing
	}
	if len(spec.Floors) > 0 {
		conf.Muster.Floors = spec.FloorsAt
	}
	if err := conf.Model.Check(); err != nil {
		return nil, w, fmt.Errorf("simulate: %w", err)
	}
	return conf, w, nil
}

// policy is a fleet's, with what its templates say.
func policy(s *control.Spec) plan.Policy {
	p := s.Policy
	p.Templates = map[string]plan.TemplatePolicy{}
	for i, t := range s.Templates {
		if i == 0 {
			p.First = t.Name
		}
		p.Templates[t.Name] = plan.TemplatePolicy{Min: t.Min, MaxAge: t.MaxAge}
	}
	return p
}

// boot is how long a node takes, and how often that was measured.
func (l *Lab) boot(f *v1alpha1.Fleet) (sim.Lead, int) {
	if l.Seen.BootSamples > 0 {
		return sim.Constant(l.Seen.Boot), l.Seen.BootSamples
	}
	if d, err := time.ParseDuration(f.Spec.Nodes.Boot); err == nil && d > 0 {
		return sim.Constant(d), 0
	}
	return sim.Constant(sim.DefaultBoot), 0
}

func (l *Lab) cold() (sim.Lead, int) {
	if l.Seen.ColdSamples > 0 {
		return sim.Constant(max(time.Millisecond, l.Seen.Cold.Round(time.Millisecond))), l.Seen.ColdSamples
	}
	return sim.Constant(sim.DefaultColdStart), 0
}

// slots is how many sandboxes a node holds: of the mean size of what ran, each
// task counting for as long as it took.
func (l *Lab) slots(f *v1alpha1.Fleet, templates []fleet.Template, s Shape) int {
	if n := f.Spec.Nodes.Slots; n > 0 {
		s.Slots = n
	}
	if s.Slots == 0 {
		s.Slots = sim.DefaultSlots
	}
	cpu, memory := l.MeanSize(templates)
	return s.slots(cpu, memory)
}

// MeanSize is the size of what ran, were the templates these: thousandths of a
// processor and bytes, each task counting for as long as it took.
func (l *Lab) MeanSize(templates []fleet.Template) (milliCPU, memory float64) {
	limits := make([]fleet.Resources, len(l.History.Templates))
	for i, name := range l.History.Templates {
		limits[i] = templates[0].Resources
		for k := range templates {
			if templates[k].Name == name {
				limits[i] = templates[k].Resources
			}
		}
	}
	var cpu, total float64
	for i := range l.History.Tasks {
		t := &l.History.Tasks[i]
		r := &limits[t.Template]
		if t.Own {
			r = &t.Limits
		}
		d := max(1, t.Duration.Seconds())
		cpu, memory, total = cpu+d*float64(r.MilliCPU), memory+d*float64(r.MemoryBytes), total+d
	}
	return cpu / total, memory / total
}

// outcome is a result in money and waits.
func outcome(r *sim.Result, c *sim.Config, w world) fleet.WhatIfOutcome {
	hours := c.To.Sub(c.From).Hours()
	o := fleet.WhatIfOutcome{
		Policy: r.Policy, Tasks: r.Tasks, NodeHours: r.NodeSeconds / 3600, WaitP50: r.WaitP50, WaitP95: r.WaitP95, WaitP99: r.WaitP99,
		Within: 1 - r.Late, Meets: 1-r.Late >= Target, Lost: r.Lost, Launches: r.Launches, PeakNodes: r.PeakNodes, Slots: c.Model.Slots,
	}
	if w.fixed > 0 {
		o.NodeHours, o.Launches, o.PeakNodes = hours*float64(w.fixed), 0, w.fixed
	}
	o.MicroUSD = int64(o.NodeHours * float64(w.perHour))
	o.MonthMicroUSD = int64(float64(o.MicroUSD) / hours * monthHours)
	return o
}

// monthHours are those of the 30 days that amounts are told for.
const monthHours = 30 * 24

// bounded is a trace that ends with a context.
type bounded struct {
	ctx  context.Context
	rows trace.Rows
}

// Open implements trace.Source.
func (b bounded) Open() (trace.Stream, error) {
	in, err := b.rows.Open()
	return boundedStream{b.ctx, in}, err
}

type boundedStream struct {
	ctx context.Context
	trace.Stream
}

// Next implements trace.Stream.
func (s boundedStream) Next() (trace.Row, error) {
	if err := s.ctx.Err(); err != nil {
		return trace.Row{}, err
	}
	return s.Stream.Next()
}
