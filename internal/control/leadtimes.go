package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

const (
	// mostStages bounds the samples of one stage; the newest are kept.
	mostStages = 256
	// mostReactions bounds those that are remembered.
	mostReactions = 24
	// reactionEnds is how long a reaction waits for a task in its sandbox.
	reactionEnds = 10 * time.Second
)

// stageKey is one stage of one template.
type stageKey struct {
	stage    fleet.Stage
	template string
}

// stages are the newest durations of each stage, and the reactions of which
// they are parts: the one place where it is measured how long scaling out
// takes. The view of lead times, that of the fleet, the evidence and the meter
// are all told from it. The engine's lock guards them.
type stages struct {
	meter fleet.Meter
	of    map[stageKey][]forecast.LeadSample
	looks map[fleet.PoolKey]*stock
	open  map[fleet.PoolKey]*fleet.Reaction
	past  []fleet.Reaction // oldest first
}

// stock is what the looks until now saw of a pool's sandboxes beside its tasks.
type stock struct {
	short  bool      // more tasks than sandboxes
	doubt  time.Time // since when they are short, where what waits was seen before with sandboxes enough
	enough time.Time // the last look that saw enough of them
	lacked time.Time // the last one that did not
}

// due is since when a task waits for a sandbox that is not there; zero: none
// does, or no other than before. Those that waited already when sandboxes were
// short go on waiting, also after a moment in which all that waited were on
// lease. And the queue is read before the sandboxes: one look alone cannot tell
// a task that has just found its sandbox from one that has lost it.
func (k *stock) due(short bool, oldest, now time.Time) (due time.Time) {
	switch {
	case !short:
		k.doubt, k.enough = time.Time{}, now
	case !k.doubt.IsZero():
		due, k.doubt = k.doubt, time.Time{}
	case k.short || oldest.IsZero() || !oldest.After(k.lacked):
	case !oldest.Before(k.enough):
		due = oldest
	default:
		k.doubt = now
	}
	if k.short = short; short {
		k.lacked = now
	}
	return due
}

// note keeps a duration; a negative one, of a clock that was set back, is left
// out.
func (s *stages) note(stage fleet.Stage, pool fleet.PoolKey, at time.Time, took time.Duration) {
	if took < 0 {
		return
	}
	name, _ := templateOf(pool)
	k := stageKey{stage, name}
	if s.of == nil {
		s.of = map[stageKey][]forecast.LeadSample{}
	}
	list := s.of[k]
	if len(list) >= mostStages {
		list = slices.Delete(list, 0, len(list)-mostStages+1)
	}
	s.of[k] = append(list, forecast.LeadSample{At: at, Lead: took})
}

// saw takes note of pools in which tasks have begun to wait for a sandbox that
// is not there, once for all that wait before there are enough again, and
// forgets where nobody waits any more and nothing came of it.
func (s *stages) saw(snap *snapshot, applied time.Time) {
	if snap.err != "" {
		return // what could not be read says nothing
	}
	if s.looks == nil {
		s.looks, s.open = map[fleet.PoolKey]*stock{}, map[fleet.PoolKey]*fleet.Reaction{}
	}
	for i := range snap.o.Pools {
		p := &snap.o.Pools[i]
		d := demandIn(&snap.stats, p.Key)
		r := s.open[p.Key]
		look := s.looks[p.Key]
		if look == nil {
			look = &stock{}
			s.looks[p.Key] = look
		}
		short := d.Backlog-d.Held > p.Ready
		due := look.due(short, d.Oldest, snap.at)
		switch {
		case r == nil && !due.IsZero(): // those that go on waiting are of the same
			s.open[p.Key] = &fleet.Reaction{Pool: p.Key, Due: due, Seen: snap.at, Applied: applied}
			s.note(fleet.StageDetect, p.Key, applied, snap.at.Sub(due))
			s.note(fleet.StageDecide, p.Key, applied, applied.Sub(snap.at))
			s.meter.Reacted(fleet.ReactDetect, max(0, snap.at.Sub(due)))
			s.meter.Reacted(fleet.ReactDecide, max(0, applied.Sub(snap.at)))
		case r != nil && !short && d.Backlog == 0 && p.Starting == 0 && (r.Ready.IsZero() || applied.Sub(r.Ready) > reactionEnds):
			delete(s.open, p.Key) // they found one that became free, or were cancelled
		}
	}
}

// ready takes the stages of a start that ended well.
func (s *stages) ready(box *fleet.Sandbox, st fleet.StartStages, known bool, now time.Time) {
	if known {
		s.note(fleet.StageImage, box.Spec.Pool, now, st.Image)
		s.note(fleet.StageTurn, box.Spec.Pool, now, st.Turn)
		s.note(fleet.StageStart, box.Spec.Pool, now, st.Start)
		if len(box.Spec.Prepare) > 0 {
			s.note(fleet.StagePrepare, box.Spec.Pool, now, st.Prepare)
		}
	}
	if r := s.open[box.Spec.Pool]; r != nil && r.Ready.IsZero() {
		r.Asked, r.Ready, r.Start = box.CreatedAt, now, st
		s.meter.Reacted(fleet.ReactSupply, max(0, now.Sub(r.Applied)))
		s.meter.Reacted(fleet.ReactTotal, max(0, now.Sub(r.Due)))
	}
}

// ran ends a reaction: the first task runs in what was started for it.
func (s *stages) ran(pool fleet.PoolKey, launch fleet.Launch, now time.Time) {
	r := s.open[pool]
	if r == nil || r.Ready.IsZero() || launch == fleet.LaunchWarm {
		return
	}
	delete(s.open, pool)
	r.Ran = now
	s.note(fleet.StageReact, pool, now, now.Sub(r.Due))
	if len(s.past) >= mostReactions {
		s.past = slices.Delete(s.past, 0, len(s.past)-mostReactions+1)
	}
	s.past = append(s.past, *r)
}

// staged asks the sandboxes where the time of a start went, and keeps it.
func (e *Engine) staged(box *fleet.Sandbox, now time.Time) {
	var st fleet.StartStages
	known := false
	if of, ok := e.c.Sandboxes.(fleet.Stager); ok {
		st, known = of.Stages(box.Spec.ID)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stages.ready(box, st, known, now)
}

// saw keeps what a decision that was applied says of the reaction.
func (e *Engine) saw(s *snapshot) {
	now := e.c.Clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stages.saw(s, now)
}

// LeadTimes is how long each stage of a reaction took lately.
func (e *Engine) LeadTimes(context.Context) (fleet.LeadTimes, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := fleet.LeadTimes{At: e.c.Clock(), Since: e.started, Stages: []fleet.StageLead{}, Reactions: []fleet.Reaction{}}
	all := map[stageKey][]forecast.LeadSample{}
	add := func(k stageKey, list []forecast.LeadSample) {
		if len(list) == 0 {
			return
		}
		all[k] = append(all[k], list...)
		if k.template != "" {
			k.template = ""
			all[k] = append(all[k], list...)
		}
	}
	for k, list := range e.stages.of {
		add(k, list)
	}
	for key, m := range e.pools {
		name, _ := templateOf(key)
		add(stageKey{fleet.StageSandbox, name}, m.Leads.Samples)
	}
	add(stageKey{stage: fleet.StageNode}, e.layer.Boots.Samples)
	for k, list := range all {
		out.Stages = append(out.Stages, stageLead(k, list))
	}
	slices.SortFunc(out.Stages, func(a, b fleet.StageLead) int {
		return cmp.Or(cmp.Compare(a.Template, b.Template), cmp.Compare(a.Stage, b.Stage))
	})
	for _, r := range e.stages.open {
		out.Reactions = append(out.Reactions, *r)
	}
	slices.SortFunc(out.Reactions, func(a, b fleet.Reaction) int { return cmp.Or(b.Due.Compare(a.Due), cmp.Compare(a.Pool, b.Pool)) })
	for _, r := range slices.Backward(e.stages.past) {
		out.Reactions = append(out.Reactions, r)
	}
	return out, nil
}

// scaleOut is how long whole reactions took.
func (s *stages) scaleOut() fleet.ScaleOut {
	var all []forecast.LeadSample
	for k, list := range s.of {
		if k.stage == fleet.StageReact {
			all = append(all, list...)
		}
	}
	if len(all) == 0 {
		return fleet.ScaleOut{}
	}
	l := stageLead(stageKey{stage: fleet.StageReact}, all)
	return fleet.ScaleOut{Samples: l.Samples, P50Seconds: l.P50.Seconds(), P95Seconds: l.P95.Seconds(), MaxSeconds: l.Max.Seconds(), Newest: l.Newest}
}

func stageLead(k stageKey, list []forecast.LeadSample) fleet.StageLead {
	out := fleet.StageLead{Stage: k.stage, Template: k.template, Samples: len(list)}
	d := make([]time.Duration, len(list))
	for i, s := range list {
		d[i] = s.Lead
		out.Max = max(out.Max, s.Lead)
		if s.At.After(out.Newest) {
			out.Newest = s.At
		}
	}
	out.P50, out.P95, out.P99 = forecast.Percentile(d, 50), forecast.Percentile(d, 95), forecast.Percentile(d, 99)
	return out
}
