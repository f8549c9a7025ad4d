package evidence

import (
	"cmp"
	"context"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	page      = 5000
	mostTasks = 200_000
	// mostLate bounds the tasks whose cause is looked up.
	mostLate = 200
)

// bounds are those of the distribution, in seconds; the promise is one more.
var bounds = []float64{0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300}

// reaction reads the waits of tasks.
func (g *gathering) reaction(ctx context.Context) error {
	r := &g.out.Reaction
	promise := g.o.Fleet().Within()
	r.ScaleOut = g.view.ScaleOut
	r.PromiseSeconds, r.Buckets, r.Breaches = promise.Seconds(), []fleet.EvidenceBucket{}, []fleet.EvidenceLate{}
	var waits []float64
	f := fleet.TaskFilter{Since: g.out.Since, Limit: page}
	for read := 0; ; {
		list, err := g.o.Store.Tasks(ctx, f)
		if err != nil {
			return err
		}
		for i := range list {
			if w, ok := g.wait(&list[i], promise); ok {
				waits = append(waits, w)
			}
		}
		if read += len(list); len(list) < page {
			break
		}
		if read >= mostTasks {
			g.note("the newest %d tasks are looked at; there were more", read)
			break
		}
		f.Before = list[len(list)-1].ID
	}
	g.spread(waits)
	return g.causes(ctx)
}

// wait is how long a task waited; false for one that has not for long and may
// start yet, or was given up before its time.
func (g *gathering) wait(t *fleet.Task, promise time.Duration) (float64, bool) {
	g.names[t.ID] = t.Spec.Name
	due := t.DueAt
	if due.IsZero() {
		due = t.SubmittedAt
	}
	if !g.within(due) {
		return 0, false
	}
	end := t.StartedAt
	if end.IsZero() {
		end = t.EndedAt
	}
	if end.IsZero() || end.After(g.out.Until) {
		end = g.out.Until
	}
	wait := max(0, end.Sub(due))
	if t.StartedAt.IsZero() && wait <= promise {
		return 0, false
	}
	if wait > promise {
		g.out.Reaction.Breaches = append(g.out.Reaction.Breaches, fleet.EvidenceLate{
			Task: t.ID, Name: t.Spec.Name, Due: due.UTC(), Wait: wait.Seconds(), Started: !t.StartedAt.IsZero(), Cause: t.Result.Message,
		})
	}
	return wait.Seconds(), true
}

// spread is the distribution.
func (g *gathering) spread(waits []float64) {
	r := &g.out.Reaction
	if r.Tasks = len(waits); r.Tasks == 0 {
		return
	}
	slices.Sort(waits)
	at := func(q float64) float64 { return waits[int(q*float64(len(waits)-1)+0.5)] }
	r.P50, r.P95, r.P99, r.Max = at(0.5), at(0.95), at(0.99), at(1)
	r.Within = 1 - float64(len(r.Breaches))/float64(r.Tasks)
	edges := append(slices.Clone(bounds), r.PromiseSeconds)
	slices.Sort(edges)
	before := 0
	for _, edge := range slices.Compact(edges) {
		n, _ := slices.BinarySearchFunc(waits, edge, func(w, e float64) int {
			if w <= e {
				return -1
			}
			return 1
		})
		r.Buckets = append(r.Buckets, fleet.EvidenceBucket{UpTo: edge, Tasks: n - before})
		before = n
	}
	r.Buckets = append(r.Buckets, fleet.EvidenceBucket{Tasks: len(waits) - before})
}

// causes asks why the tasks that waited longest did.
func (g *gathering) causes(ctx context.Context) error {
	r := &g.out.Reaction
	slices.SortStableFunc(r.Breaches, func(a, b fleet.EvidenceLate) int {
		return cmp.Compare(b.Wait, a.Wait)
	})
	if n := len(r.Breaches) - mostLate; n > 0 {
		r.Breaches, r.MoreLate = r.Breaches[:mostLate], n
	}
	for i := range r.Breaches {
		b := &r.Breaches[i]
		x, err := g.o.Explain(ctx, b.Task)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			b.Cause = x.Summary
		case b.Cause == "":
			b.Cause = "not known: " + err.Error()
		}
	}
	return nil
}
