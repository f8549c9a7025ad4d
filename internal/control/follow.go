package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// settingShadow is where the comparison is kept.
const settingShadow = "control.shadow"

// overlay shows a fleet that others work for as the planner knows one: what
// others hold of the queue runs in our sandboxes, the oldest first, and none of
// those is one to part with. Only the copy is changed.
func overlay(boxes []fleet.Sandbox, stats *fleet.QueueStats, now time.Time) {
	slices.SortFunc(boxes, func(a, b fleet.Sandbox) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Spec.ID, b.Spec.ID))
	})
	for i := range stats.Pools {
		p := &stats.Pools[i]
		busy := p.InFlight
		for j := range boxes {
			if busy == 0 {
				break
			}
			if b := &boxes[j]; b.Spec.Pool == p.Pool && b.State == fleet.SandboxReady {
				b.State, b.ClaimedAt = fleet.SandboxClaimed, now
				busy--
			}
		}
	}
}

// completed counts what others have worked off: what has come and is neither
// waiting nor in work.
func (l *layer) completed(s *fleet.QueueStats) {
	l.finished = max(l.finished, s.Arrived-int64(s.Backlog+s.Delayed+s.InFlight))
}

// shadow compares, hour by hour, what the decisions would have cost with what
// the workers that there were have cost. Task-seconds of waiting are a queue's
// length over time, so that over many tasks their mean is the mean wait
// (Little, "A Proof for the Queuing Formula L = λW", 1961).
type shadow struct {
	Hours []fleet.ShadowHour `json:"hours"` // oldest first
	last  fleet.ShadowHour   // rates as of at, per second
	at    time.Time
	seen  int64 // arrivals
	known bool
}

// shadowHours bounds what is kept: five weeks.
const shadowHours = 35 * 24

// measure adds what has passed since the last decision. workers is how many
// there are; known is false where that cannot be told.
func (s *shadow) measure(now time.Time, snap *snapshot, workers int, known bool) {
	dt := now.Sub(s.at).Seconds()
	if !s.at.IsZero() && dt > 0 && dt < 30 && snap.err == "" {
		h := s.hour(now)
		h.Seconds += dt
		h.Sandboxes += s.last.Sandboxes * dt
		h.Nodes += s.last.Nodes * dt
		h.Waiting += s.last.Waiting * dt
		h.ActualWaiting += s.last.ActualWaiting * dt
		if s.last.Known > 0 {
			h.Known += dt
			h.KnownSandboxes += s.last.Sandboxes * dt
			h.Workers += s.last.Workers * dt
		}
		if n := snap.stats.Arrived - s.seen; s.known && n > 0 {
			h.Arrived += n
		}
	}
	s.at, s.seen, s.known = now, snap.stats.Arrived, snap.err == ""
	// What is ready to work, and what has to wait for it, if the demand were the
	// one that was seen.
	var ready int
	s.last = fleet.ShadowHour{}
	for i := range snap.o.Pools {
		p := &snap.o.Pools[i]
		ready += p.Ready + p.Running
		s.last.Sandboxes += float64(p.Ready + p.Running + p.Starting + len(p.Draining))
	}
	s.last.Nodes = float64(len(snap.nodes))
	s.last.Waiting = float64(max(0, snap.stats.Backlog+snap.stats.InFlight-ready))
	s.last.ActualWaiting = float64(snap.stats.Backlog)
	if known {
		s.last.Known, s.last.Workers = 1, float64(workers)
	}
}

// hour is the one that now is in.
func (s *shadow) hour(now time.Time) *fleet.ShadowHour {
	from := now.UTC().Truncate(time.Hour)
	if n := len(s.Hours); n == 0 || !s.Hours[n-1].From.Equal(from) {
		s.Hours = append(s.Hours, fleet.ShadowHour{From: from})
		if extra := len(s.Hours) - shadowHours; extra > 0 {
			s.Hours = slices.Delete(s.Hours, 0, extra)
		}
	}
	return &s.Hours[len(s.Hours)-1]
}

// Shadow is the comparison since a time, with its sums; ErrNotFound where the
// fleet runs its tasks itself.
func (e *Engine) Shadow(_ context.Context, since time.Time) (fleet.Shadow, error) {
	if !e.c.Follow {
		return fleet.Shadow{}, fmt.Errorf("this fleet runs its tasks itself (spec.mode: run), so there is nothing to compare: %w", fleet.ErrNotFound)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	out := fleet.Shadow{Slots: e.slotsOfNode(), NodeHourMicroUSD: e.spec.Policy.Budget.NodeHour, Hours: []fleet.ShadowHour{}}
	for _, h := range e.shadow.Hours {
		if h.From.Add(time.Hour).After(since) {
			out.Hours = append(out.Hours, h)
			out.Sum.Add(h)
		}
	}
	return out, nil
}

func (e *Engine) slotsOfNode() int { return max(1, e.spec.Policy.Nodes.Slots) }

// saveShadow keeps the comparison.
func (e *Engine) saveShadow(ctx context.Context) error {
	if !e.c.Follow {
		return nil
	}
	e.mu.Lock()
	b, err := json.Marshal(&e.shadow)
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode the comparison: %w", err)
	}
	if err := e.c.Store.PutSetting(ctx, settingShadow, b); err != nil {
		return fmt.Errorf("keep the comparison: %w", err)
	}
	return nil
}

// Evaluate observes and decides once. Nothing is journaled, nothing is done.
func (e *Engine) Evaluate(ctx context.Context) (fleet.Evaluation, error) {
	e.mu.Lock()
	spec := e.spec
	e.mu.Unlock()
	now := wall(e.c.Clock())
	snap := e.observe(ctx, now, &spec)
	p, _ := e.decider.Decide(now, &snap.o, &spec.Policy, e.state)
	snap.p = *p
	e.mu.Lock()
	e.last = snap
	e.mu.Unlock()
	v, err := e.View(ctx)
	out := fleet.Evaluation{View: v, Actions: []string{}}
	for i := range snap.p.Actions {
		a := &snap.p.Actions[i]
		out.Actions = append(out.Actions, fmt.Sprintf("%s%s: %s", a.Kind, countOf(a.N), a.Reason.Sentence()))
	}
	return out, err
}

func countOf(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" %d", n)
}
