package whatif

import (
	"context"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sim/trace"
)

// MaxTasks bounds a history; of more the newest count.
const MaxTasks = 100_000

// page is how many tasks are read at once.
const page = 5000

// Task is what a history keeps of a task.
type Task struct {
	Arrival  time.Time
	Wait     time.Duration // arrival to the first instruction
	Duration time.Duration // from there to its end
	Template int32         // index into History.Templates
	Own      bool          // its limits are its own, not the template's
	Limits   fleet.Resources
	Usage    fleet.Usage // as it was in the end; zero where nothing was measured
	Reason   fleet.TaskReason
	State    fleet.TaskState
	Attempt  int
	Node     fleet.NodeID
}

// History is what a fleet did in a stretch of time.
type History struct {
	Since, Until time.Time // as asked
	Templates    []string
	Tasks        []Task // by arrival
	LeftOut      int    // never started, or not over
	Truncated    bool   // there were more than MaxTasks
}

// Read reads the tasks that arrived in [since, until).
func Read(ctx context.Context, tasks fleet.Tasks, since, until time.Time) (*History, error) {
	h := &History{Since: since, Until: until}
	f := fleet.TaskFilter{Since: since, Limit: page}
	for {
		list, err := tasks.Tasks(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("read the history: %w", err)
		}
		for i := range list {
			h.take(&list[i])
		}
		if len(list) < page {
			break
		}
		if len(h.Tasks) >= MaxTasks {
			h.Truncated = true
			break
		}
		f.Before = list[len(list)-1].ID
	}
	h.Bound()
	return h, nil
}

// take adds a task that ran and is over.
func (h *History) take(t *fleet.Task) {
	due := t.DueAt
	if due.IsZero() {
		due = t.SubmittedAt
	}
	switch {
	case !h.Until.IsZero() && !due.Before(h.Until), due.Before(h.Since):
		return
	case !t.State.Final() || t.StartedAt.IsZero() || t.EndedAt.Before(t.StartedAt):
		h.LeftOut++
		return
	}
	h.Add(t.Spec.Template, Task{
		Arrival: due, Wait: max(0, t.StartedAt.Sub(due)), Duration: t.EndedAt.Sub(t.StartedAt),
		Own: string(t.Spec.Pool) != t.Spec.Template, Limits: t.Spec.Resources, Usage: t.Result.Usage,
		Reason: t.Result.Reason, State: t.State, Attempt: t.Attempt, Node: t.Node,
	})
}

// Add adds a task of a template; Bound has to follow once all are there.
func (h *History) Add(template string, t Task) {
	at := slices.Index(h.Templates, template)
	if at < 0 {
		at = len(h.Templates)
		h.Templates = append(h.Templates, template)
	}
	t.Template = int32(at) //nolint:gosec // a fleet has at most 1,000 templates
	h.Tasks = append(h.Tasks, t)
}

// Bound orders the tasks by arrival, the newest MaxTasks of them.
func (h *History) Bound() {
	slices.SortStableFunc(h.Tasks, func(a, b Task) int { return a.Arrival.Compare(b.Arrival) })
	if n := len(h.Tasks) - MaxTasks; n > 0 {
		h.Tasks, h.Truncated = h.Tasks[n:], true
	}
}

// rows are the tasks as a trace.
func (h *History) rows() trace.Rows {
	out := make(trace.Rows, len(h.Tasks))
	for i := range h.Tasks {
		t := &h.Tasks[i]
		out[i] = trace.Row{Arrival: trace.Millis(t.Arrival), Duration: t.Duration.Milliseconds(), Class: t.Template}
	}
	return out
}

// measured are the waits on record of the tasks from a time on.
func (h *History) measured(from time.Time, objective time.Duration) fleet.WhatIfMeasured {
	var waits []time.Duration
	within := 0
	for i := range h.Tasks {
		if t := &h.Tasks[i]; !t.Arrival.Before(from) {
			waits = append(waits, t.Wait)
			if t.Wait <= objective {
				within++
			}
		}
	}
	if len(waits) == 0 {
		return fleet.WhatIfMeasured{}
	}
	slices.Sort(waits)
	at := func(q float64) float64 { return waits[int(q*float64(len(waits)-1)+0.5)].Seconds() }
	return fleet.WhatIfMeasured{WaitP50: at(0.5), WaitP95: at(0.95), WaitP99: at(0.99), Within: float64(within) / float64(len(waits))}
}
