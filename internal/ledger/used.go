package ledger

import (
	"context"
	"maps"
	"slices"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// used is what a task that ended used of the node it was on last, as measured;
// known is false where it was not.
//
// It is the bill of the node while the sandbox was held, times the mean of the
// parts that the task had of the node's processor time and of its memory over
// that time: what sharing by use and not by allocation would charge.
func (s *Service) used(r *fleet.Sandbox, t *fleet.Task) (m cost.Micro, known bool) {
	u, l := &t.Result.Usage, s.lifeOf(r)
	if u.At.IsZero() || l == nil || r.ClaimedAt.IsZero() {
		return 0, false
	}
	end := t.EndedAt
	if !r.GoneAt.IsZero() && r.GoneAt.Before(end) {
		end = r.GoneAt
	}
	held := end.Sub(r.ClaimedAt)
	if held <= 0 || l.Node.Usable.MilliCPU <= 0 || l.Node.Usable.MemoryBytes <= 0 {
		return 0, false
	}
	cpu := u.CPU.Seconds() * 1000 / float64(l.Node.Usable.MilliCPU) / held.Seconds()
	memory := float64(u.MemoryByteSeconds) / float64(l.Node.Usable.MemoryBytes) / held.Seconds()
	bill := l.Node.Bill(end) - l.Node.Bill(later(r.ClaimedAt, s.m.state.Began))
	return cost.Micro(float64(max(0, bill)) * (min(1, max(0, cpu)) + min(1, max(0, memory))) / 2), true
}

// lifeOf is the node that a sandbox is on; nil where it is not known any more.
func (s *Service) lifeOf(r *fleet.Sandbox) *life {
	for _, l := range s.m.state.Lives {
		if id := r.Spec.Node; l.Node.ID == r.Isolation.Node || l.Node.ID == id || l.Boot != "" && l.Boot == id {
			return l
		}
	}
	return nil
}

// measure adds what a task that ended used and what its agent reported.
func (s *Service) measure(books [2]*cost.Book, k cost.Key, r *fleet.Sandbox, t *fleet.Task) {
	used, known := s.used(r, t)
	charged := cost.Micro(s.m.tasks[t.ID].MicroUSD)
	for _, b := range books {
		if known {
			b.Use(k, used, charged)
		}
		if m := t.Result.Model; m != nil {
			b.Reported(k, *m)
		}
	}
}

// describe adds to tasks of a report what is on their records.
// Of those that are not kept any more there is nothing to add.
func (s *Service) describe(ctx context.Context, groups []fleet.CostGroup) error {
	at := map[fleet.TaskID]int{}
	for i := range groups {
		at[fleet.TaskID(groups[i].Name)] = i
	}
	for part := range slices.Chunk(slices.Collect(maps.Keys(at)), 10_000) {
		tasks, err := s.o.Store.Tasks(ctx, fleet.TaskFilter{IDs: part, Limit: len(part)})
		if err != nil {
			return err
		}
		for i := range tasks {
			groups[at[tasks[i].ID]].Model = tasks[i].Result.Model
		}
	}
	return nil
}
