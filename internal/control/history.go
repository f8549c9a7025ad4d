package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/plan"
)

const (
	// settingHistory is where what is sealed of the fleet's history is kept, and
	// with a slash and a name behind it that of a template; it is written once
	// an hour. The hour being filled is small and kept apart, for all of them,
	// each minute.
	settingHistory = "control.history"
	settingOpen    = "control.history.open"
	keepEvery      = time.Minute
	// maxHistories bounds the templates that have a history of their own; the
	// fleet's total is always there.
	maxHistories = 32
)

// histories are what is remembered of the load: of the fleet under "", and of
// each of the first templates under its name. The engine's lock guards them.
type histories struct {
	of    map[string]*forecast.History
	saved map[string]int              // revision that is in the store
	sums  map[string]forecast.Reading // a buffer
	open  map[string][]byte           // of an earlier process, until taken
	read  bool                        // open was read
}

func historyKey(name string) string {
	if name == "" {
		return settingHistory
	}
	return settingHistory + "/" + name
}

// learn feeds what was read to the hour-of-week profiles and the histories;
// without a reading it is told that nobody looked.
func (g *gather) learn(ctx context.Context, stats *fleet.QueueStats, fresh bool) {
	local := g.now.In(g.spec.zone())
	for i := range stats.Pools {
		d := &stats.Pools[i]
		if _, variant := templateOf(d.Pool); variant {
			continue
		}
		m := g.e.memory(d.Pool)
		switch {
		case !fresh || !m.watched:
			m.Weekly.Miss(local)
		case d.Arrived > m.Arrived:
			m.Weekly.Observe(local, d.Arrived-m.Arrived)
		default:
			m.Weekly.Observe(local, 0)
		}
		m.Arrived, m.watched = d.Arrived, fresh
	}
	if !fresh {
		return // a history tells a gap by the clock
	}
	g.e.histories.observe(ctx, g, stats)
}

func (s *histories) observe(ctx context.Context, g *gather, stats *fleet.QueueStats) {
	if s.sums == nil {
		s.sums = map[string]forecast.Reading{}
	}
	clear(s.sums)
	s.sums[""] = forecast.Reading{Arrived: stats.Arrived, Demand: stats.Backlog + stats.InFlight}
	for i := range g.spec.Templates[:min(len(g.spec.Templates), maxHistories)] {
		s.sums[g.spec.Templates[i].Name] = forecast.Reading{}
	}
	for i := range stats.Pools {
		d := &stats.Pools[i]
		name, _ := templateOf(d.Pool)
		if r, ours := s.sums[name]; ours {
			s.sums[name] = forecast.Reading{Arrived: r.Arrived + d.Arrived, Demand: r.Demand + d.Backlog + d.InFlight}
		}
	}
	for name, r := range s.sums {
		if h := s.history(ctx, g.e, name); h != nil {
			h.Observe(g.now, r)
		}
	}
	for name := range s.of { // templates that are gone; the store remembers them
		if _, ours := s.sums[name]; !ours {
			delete(s.of, name)
			delete(s.saved, name)
		}
	}
}

// history returns a history, reading what an earlier process kept when it is
// first asked for; nil while that cannot be read, so that it is not written
// over.
func (s *histories) history(ctx context.Context, e *Engine, name string) *forecast.History {
	if h := s.of[name]; h != nil {
		return h
	}
	if !s.read {
		b, err := e.c.Store.Setting(ctx, settingOpen)
		if err != nil {
			return nil
		}
		if len(b) > 0 {
			if err := json.Unmarshal(b, &s.open); err != nil {
				e.c.Logger.Warn("the last hour of the history cannot be read; it counts as unknown", "error", err)
			}
		}
		s.read = true
	}
	past, err := e.c.Store.Setting(ctx, historyKey(name))
	if err != nil {
		return nil
	}
	h, err := forecast.Decode(past, s.open[name])
	if err != nil {
		e.c.Logger.Warn("the history of an earlier process cannot be read; beginning anew", "template", name, "error", err)
		h = &forecast.History{}
	}
	delete(s.open, name)
	if s.of == nil {
		s.of, s.saved = map[string]*forecast.History{}, map[string]int{}
	}
	s.of[name] = h
	return h
}

// waited takes the wait of a task.
func (s *histories) waited(at time.Time, pool fleet.PoolKey, wait time.Duration) {
	name, _ := templateOf(pool)
	for _, n := range []string{"", name} {
		if h := s.of[n]; h != nil {
			h.Waited(at, wait)
		}
	}
}

// keepHistory writes the hours being filled, and what was sealed since the
// last time. What was sealed goes first: a crash between the two is an hour
// told twice, which is noticed, and not one lost. With last, waits of the
// present hour are kept too.
func (e *Engine) keepHistory(ctx context.Context, last bool) error {
	past, revisions, open := map[string][]byte{}, map[string]int{}, map[string][]byte{}
	e.mu.Lock()
	for name, h := range e.histories.of {
		open[name] = h.EncodeOpen()
		if r := h.Revision(); last || r != e.histories.saved[name] {
			past[name], revisions[name] = h.EncodePast(), r
		}
	}
	e.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	for name, b := range past {
		if err := e.c.Store.PutSetting(ctx, historyKey(name), b); err != nil {
			return fmt.Errorf("keep the history: %w", err)
		}
		e.mu.Lock()
		if e.histories.of[name] != nil {
			e.histories.saved[name] = revisions[name]
		}
		e.mu.Unlock()
	}
	b, err := json.Marshal(open)
	if err == nil {
		err = e.c.Store.PutSetting(ctx, settingOpen, b)
	}
	if err != nil {
		return fmt.Errorf("keep the last hour of the history: %w", err)
	}
	return nil
}

// Forecast is what the fleet, or one template, expects of its load. An unknown
// template is fleet.ErrNotFound.
func (e *Engine) Forecast(_ context.Context, q fleet.ForecastQuery) (fleet.Forecast, error) {
	e.mu.Lock()
	now, spec := e.c.Clock(), e.spec
	if _, known := spec.template(q.Template); q.Template != "" && !known {
		e.mu.Unlock()
		return fleet.Forecast{}, fmt.Errorf("there is no template %q: %w", q.Template, fleet.ErrNotFound)
	}
	h := &forecast.History{}
	if kept := e.histories.of[q.Template]; kept != nil {
		h = kept.Clone()
	}
	pool := fleet.PoolKey(q.Template)
	if pool == "" {
		pool = fleet.PoolKey(spec.Policy.First)
	}
	ask := spec.Question(q, now)
	if m := e.pools[pool]; m != nil {
		ask.Lead = m.Leads.Quantiles(now, leadWindow, spec.Policy.PriorLead).P95
	}
	if len(e.last.nodes) > 0 && e.last.nodes[0].Slots > 0 {
		ask.Slots = e.last.nodes[0].Slots
	}
	e.mu.Unlock()
	f := h.Report(ask)
	f.Template = q.Template
	return f, nil
}

// Question is what a forecast is asked under a specification: its prices, and
// what it keeps warm already.
func (s *Spec) Question(q fleet.ForecastQuery, now time.Time) forecast.Question {
	p := s.Policy.WithDefaults()
	return forecast.Question{
		Now: now, Horizon: q.Horizon, Zone: q.Zone, Backtest: q.Backtest, Lead: p.PriorLead.P95,
		NodeHour: p.Budget.NodeHour, Slots: p.Nodes.Slots,
		Have: func(at time.Time) int { return s.warmAt(q.Template, at, p) },
	}
}

// warmAt is what minima and calendar keep warm at a time, of a template or, for
// "", of all.
func (s *Spec) warmAt(template string, at time.Time, p plan.Policy) int {
	total := 0
	for i, t := range s.Templates {
		if template != "" && t.Name != template {
			continue
		}
		warm := t.Min
		if i == 0 {
			warm = max(warm, p.Min)
		}
		for _, f := range s.Floors {
			if f.Template != t.Name && (f.Template != "" || i > 0) {
				continue
			}
			if _, open := f.Rule.Active(at, f.For); open {
				warm = max(warm, f.Min)
			}
		}
		total += warm
	}
	return total
}

// zone is the one whose hours the profiles of the week follow: that of the
// first floor.
func (s *Spec) zone() *time.Location {
	if len(s.Floors) > 0 {
		return s.Floors[0].Rule.Zone()
	}
	return time.UTC
}
