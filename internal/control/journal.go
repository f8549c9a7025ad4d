package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// heartbeat is how often a decision that changes nothing is journaled.
const heartbeat = time.Minute

// settingState is where the planner's state is kept between processes.
const settingState = "planner.state"

// said is what the journal was last told of a pool.
type said struct {
	cause plan.Cause
	bound plan.Bound
}

// journal writes the decision before it is applied. Decisions that do nothing
// and say nothing new are written once a minute only; each record holds the
// state before it and the policy, so that any of them can be made again by
// itself.
func (e *Engine) journal(ctx context.Context, s *snapshot, under *plan.Policy, before, after *plan.State) (int64, error) {
	now := s.at
	news := s.p.Changed() || e.news(&s.p)
	e.mu.Lock()
	last, seq := e.lastJournal, e.last.seq
	e.mu.Unlock()
	if !news && now.Sub(last) < heartbeat && !now.Before(last) {
		return seq, nil
	}
	rec := fleet.DecisionRecord{At: now, Changed: news, Version: plan.Version}
	var policy []byte
	for _, part := range []struct {
		to   *[]byte
		from any
	}{{&rec.Observation, s.o}, {&rec.Plan, s.p}, {&rec.State, before}, {&policy, under}} {
		b, err := json.Marshal(part.from)
		if err != nil {
			return 0, fmt.Errorf("encode a decision: %w", err)
		}
		*part.to = b
	}
	seq, err := e.c.Store.AppendDecision(ctx, rec, policy)
	if err != nil {
		return 0, fmt.Errorf("journal a decision: %w", err)
	}
	b, err := json.Marshal(after)
	if err != nil {
		return 0, fmt.Errorf("encode the planner's state: %w", err)
	}
	if err := e.c.Store.PutSetting(ctx, settingState, b); err != nil {
		return 0, fmt.Errorf("keep the planner's state: %w", err)
	}
	e.mu.Lock()
	e.lastJournal = now
	e.mu.Unlock()
	return seq, nil
}

// wall is a time as the journal gives it back: without the reading of the
// monotonic clock and in UTC. What is decided from must be what is journaled:
// the two clocks of a machine differ by nanoseconds, and a zone shows in the
// plan's own times.
func wall(t time.Time) time.Time { return t.Round(0).UTC() }

// asJournaled does so for every time of an observation.
func asJournaled(o *plan.Observation) {
	to := func(t *time.Time) { *t = wall(*t) }
	for i := range o.Queues {
		q := &o.Queues[i]
		to(&q.AsOf)
		for k := range q.Pools {
			to(&q.Pools[k].Oldest)
		}
	}
	for i := range o.Pools {
		for _, list := range [][]plan.Idle{o.Pools[i].Idle, o.Pools[i].Draining} {
			for k := range list {
				to(&list[k].Created)
				to(&list[k].Since)
			}
		}
	}
	for i := range o.Nodes {
		to(&o.Nodes[i].Since)
		to(&o.Nodes[i].Requested)
	}
	if o.Outlook != nil {
		to(&o.Outlook.Next)
	}
	for i := range o.Floors {
		to(&o.Floors[i].From)
		to(&o.Floors[i].Until)
	}
}

// news reports whether a pool's reason is another than the journal was told.
func (e *Engine) news(p *plan.Plan) bool {
	for i := range p.Pools {
		t := &p.Pools[i]
		if e.said[t.Pool] != (said{t.Reason.Cause, t.Reason.Bound}) && notable(t.Reason.Cause, e.said[t.Pool].cause) {
			return true
		}
	}
	return false
}

// notable tells reasons worth an event of their own from the coming and going
// of everyday ones: troubles, and their end.
func notable(c, before plan.Cause) bool { return troubled(c) || troubled(before) }

func troubled(c plan.Cause) bool {
	switch c {
	case plan.CauseStale, plan.CauseBreaker, plan.CauseProbe, plan.CauseCapacity, plan.CauseBudget,
		plan.CauseNoTemplate, plan.CauseGiveUp, plan.CauseBurst:
		return true
	}
	return false
}

// eventKinds names events for reasons that come without an action.
var eventKinds = map[plan.Cause]string{
	plan.CauseStale: "signals_missing", plan.CauseBreaker: "breaker_open", plan.CauseProbe: "breaker_probe",
	plan.CauseCapacity: "cap_binds", plan.CauseBudget: "budget_binds", plan.CauseNoTemplate: "no_template",
	plan.CauseGiveUp: "gave_up", plan.CauseBurst: "burst",
}

// announce writes an event for every pool that is changed, and for every
// trouble that begins or ends.
func (e *Engine) announce(ctx context.Context, s *snapshot) {
	var out []fleet.Event
	counts := tally(s.p.Actions)
	for i := range s.p.Pools {
		t := &s.p.Pools[i]
		o := &s.o.Pools[i]
		ev := fleet.Event{
			At: s.at, Layer: "sandboxes", Pool: t.Pool, From: o.Ready + o.Starting + o.Running, Decision: s.seq,
			Reason: t.Reason.Sentence(), Bound: string(t.Reason.Bound), Numbers: t.Reason.Numbers.Map(),
		}
		c := counts[t.Pool]
		say := func(kind string, change int) {
			ev.Kind, ev.To = kind, ev.From+change
			out = append(out, ev)
		}
		if c.start > 0 {
			say("scale_out", c.start)
		}
		if c.undrain > 0 {
			say("undrain", c.undrain)
		}
		if c.drain > 0 {
			say("scale_in", -c.drain)
		}
		before := e.said[t.Pool]
		now := said{t.Reason.Cause, t.Reason.Bound}
		if now != before && notable(now.cause, before.cause) {
			kind := eventKinds[now.cause]
			if kind == "" {
				kind = "recovered"
			}
			if c == (tallied{}) || kind != "recovered" {
				say(kind, 0)
			}
		}
		e.said[t.Pool] = now
	}
	for i := range s.p.Actions {
		if a := &s.p.Actions[i]; a.Pool == "" {
			out = append(out, fleet.Event{At: s.at, Kind: "node_" + string(a.Kind), Layer: "nodes", Node: a.Node,
				From: s.p.Nodes.Ready + s.p.Nodes.Booting, To: s.p.Nodes.Desired, Decision: s.seq,
				Reason: a.Reason.Sentence(), Bound: string(a.Reason.Bound), Numbers: a.Reason.Numbers.Map()})
		}
	}
	e.record(ctx, out...)
}

type tallied struct{ start, drain, undrain int }

func tally(actions []plan.Action) map[fleet.PoolKey]tallied {
	out := map[fleet.PoolKey]tallied{}
	for i := range actions {
		a := &actions[i]
		c := out[a.Pool]
		switch a.Kind {
		case plan.StartSandboxes:
			c.start += a.N
		case plan.DrainSandbox:
			c.drain++
		case plan.UndrainSandbox:
			c.undrain++
		}
		out[a.Pool] = c
	}
	return out
}

// record appends events; a journal that cannot be written holds nothing up.
func (e *Engine) record(ctx context.Context, ev ...fleet.Event) {
	if len(ev) == 0 {
		return
	}
	for i := range ev {
		if ev[i].At.IsZero() {
			ev[i].At = e.c.Clock()
		}
	}
	_, _ = e.events.AppendEvents(ctx, ev) // logs its own troubles
}
