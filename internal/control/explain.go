package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// ExplainTask says in one sentence why a task waited as long as it did, and
// lists what happened meanwhile.
func (e *Engine) ExplainTask(ctx context.Context, id fleet.TaskID) (fleet.Explanation, error) {
	t, err := e.c.Store.Task(ctx, id)
	if err != nil {
		return fleet.Explanation{}, err
	}
	own, err := e.c.Store.Events(ctx, fleet.EventFilter{Task: id, Limit: 1000})
	if err != nil {
		return fleet.Explanation{}, fmt.Errorf("read the events of task %s: %w", id, err)
	}
	around, err := e.around(ctx, &t)
	if err != nil {
		return fleet.Explanation{}, err
	}
	x := fleet.Explanation{Task: &t, Steps: merge(own, around)}
	for _, ev := range x.Steps {
		if ev.Decision > 0 && x.Decision == nil {
			if d, err := e.c.Store.Decision(ctx, ev.Decision); err == nil {
				x.Decision = &d
			}
		}
	}
	x.Summary = e.summary(&t, around)
	return x, nil
}

// around finds what happened to the task's pool while it waited.
func (e *Engine) around(ctx context.Context, t *fleet.Task) ([]fleet.Event, error) {
	until := e.c.Clock()
	if !t.ClaimedAt.IsZero() {
		until = t.ClaimedAt
	} else if !t.EndedAt.IsZero() {
		until = t.EndedAt
	}
	all, err := e.c.Store.Events(ctx, fleet.EventFilter{Since: t.DueAt, Layer: "sandboxes", Limit: 1000})
	if err != nil {
		return nil, fmt.Errorf("read the events of pool %s: %w", t.Spec.Pool, err)
	}
	out, err := e.troubleAt(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, ev := range all {
		if ev.Pool == t.Spec.Pool && !ev.At.After(until) {
			out = append(out, ev)
		}
	}
	return out, nil
}

// troubleAt is what bound the task's pool when it became due: a trouble is said
// once, when it begins, which may be long before.
func (e *Engine) troubleAt(ctx context.Context, t *fleet.Task) ([]fleet.Event, error) {
	kinds := []string{"recovered"}
	for _, kind := range eventKinds {
		kinds = append(kinds, kind)
	}
	found, err := e.c.Store.Events(ctx, fleet.EventFilter{Since: t.DueAt.Add(-24 * time.Hour), Layer: "sandboxes", Kinds: kinds, Limit: 1000, Last: true})
	if err != nil {
		return nil, fmt.Errorf("read the troubles of pool %s: %w", t.Spec.Pool, err)
	}
	var last []fleet.Event
	for i, ev := range found {
		if ev.Pool != t.Spec.Pool || !ev.At.Before(t.DueAt) {
			continue
		}
		last = nil
		if ev.Kind != "recovered" {
			last = found[i : i+1 : i+1]
		}
	}
	return last, nil
}

// merge orders two lists of events by their sequence.
func merge(a, b []fleet.Event) []fleet.Event {
	out := make([]fleet.Event, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].Seq < b[0].Seq {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}

func (e *Engine) summary(t *fleet.Task, around []fleet.Event) string {
	now := e.c.Clock()
	switch {
	case t.State == fleet.TaskQueued && t.DueAt.After(now):
		s := "not due before " + clockTime(t.DueAt)
		if t.Result.Message != "" {
			s += ": " + t.Result.Message
		}
		return s
	case t.State == fleet.TaskQueued:
		return fmt.Sprintf("waiting for %s: %s", round(now.Sub(t.DueAt)), e.poolNow(t))
	case t.ClaimedAt.IsZero():
		return strings.TrimSuffix(fmt.Sprintf("%s without having started: %s", t.State, t.Result.Message), ": ")
	}
	wait := t.ClaimedAt.Sub(t.DueAt)
	if !t.StartedAt.IsZero() {
		wait = t.StartedAt.Sub(t.DueAt)
	}
	s := fmt.Sprintf("waited %s: ", round(wait))
	if t.Launch == fleet.LaunchWarm {
		return s + "a warm sandbox was ready" + outcome(t)
	}
	return s + coldCause(t, around) + outcome(t)
}

// coldCause says what a cold start waited for, from the pool's events.
func coldCause(t *fleet.Task, around []fleet.Event) string {
	var parts []string
	for _, ev := range around {
		n := ev.Numbers
		if ev.At.Before(t.DueAt) { // see troubleAt
			parts = append(parts, fmt.Sprintf("%s since %s: %s", strings.ReplaceAll(ev.Kind, "_", " "), clockTime(ev.At), ev.Reason))
			continue
		}
		switch ev.Kind {
		case "scale_out", "cap_binds", "budget_binds", "breaker_open", "signals_missing":
			if len(parts) == 0 {
				what := "pool empty"
				if n["ready"] > 0 {
					what = fmt.Sprintf("%d ready taken by others", int(n["ready"]))
				}
				parts = append(parts, fmt.Sprintf("%s at %s, %d starting, lead time %s", what, clockTime(ev.At),
					int(n["starting"])+max(0, ev.To-ev.From), round(time.Duration(n["leadSeconds"]*float64(time.Second)))))
			}
			if ev.Kind != "scale_out" {
				parts = append(parts, strings.ReplaceAll(ev.Kind, "_", " ")+": "+ev.Reason)
			}
		case "sandbox_failed":
			parts = append(parts, "a start failed at "+clockTime(ev.At))
		}
		if len(parts) >= 4 {
			break
		}
	}
	if len(parts) == 0 {
		return "no sandbox of pool " + string(t.Spec.Pool) + " was ready; those starting were waited for"
	}
	return strings.Join(parts, "; ")
}

// poolNow says what holds a task up that still waits.
func (e *Engine) poolNow(t *fleet.Task) string {
	if e.c.Purse != nil {
		if why := e.c.Purse.Held(t.Spec.Tenant); why != "" {
			return why
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.last.p.Pools {
		if p := &e.last.p.Pools[i]; p.Pool == t.Spec.Pool {
			s := p.Reason.Sentence()
			policy := &e.spec.Policy
			if b := e.last.p.Project(t.DueAt, p, &e.last.o, policy); b != nil {
				s += "; " + b.OfTask(e.c.Clock(), policy.Objective)
			}
			return s
		}
	}
	return "its pool " + string(t.Spec.Pool) + " has not been looked at yet"
}

// outcome adds how the task ended.
func outcome(t *fleet.Task) string {
	s := ""
	if t.Attempt > 1 {
		s = fmt.Sprintf("; attempt %d", t.Attempt)
	}
	if t.State.Final() {
		s += "; " + string(t.State)
		if t.Result.Message != "" {
			s += ": " + t.Result.Message
		}
	}
	return s
}

func round(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
