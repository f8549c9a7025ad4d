package lifecycle

import (
	"slices"

	"muster.dev/muster/internal/fleet"
)

// MatchesTask reports whether a filter selects a task.
func MatchesTask(f fleet.TaskFilter, t fleet.Task) bool {
	if len(f.IDs) > 0 && !slices.Contains(f.IDs, t.ID) {
		return false
	}
	if len(f.States) > 0 && !slices.Contains(f.States, t.State) {
		return false
	}
	if f.Pool != "" && f.Pool != t.Spec.Pool {
		return false
	}
	if !f.Since.IsZero() && t.SubmittedAt.Before(f.Since) {
		return false
	}
	if f.Before != "" && t.ID >= f.Before {
		return false
	}
	for k, v := range f.Labels {
		if got, ok := t.Spec.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// MatchesEvent reports whether a filter selects an event.
func MatchesEvent(f fleet.EventFilter, e fleet.Event) bool {
	switch {
	case e.Seq <= f.After,
		!f.Since.IsZero() && e.At.Before(f.Since),
		len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind),
		f.Layer != "" && f.Layer != e.Layer,
		f.Task != "" && f.Task != e.Task,
		f.Sandbox != "" && f.Sandbox != e.Sandbox:
		return false
	}
	return true
}

// MatchesDecision reports whether a filter selects a decision.
func MatchesDecision(f fleet.DecisionFilter, d fleet.DecisionRecord) bool {
	switch {
	case d.Seq <= f.After,
		!f.Since.IsZero() && d.At.Before(f.Since),
		!f.Until.IsZero() && d.At.After(f.Until),
		f.Changed && !d.Changed:
		return false
	}
	return true
}
