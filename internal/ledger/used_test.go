package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
)

// What a task used and what its agent reported stand beside what it was charged
// by allocation, for the split it belongs to; the bill has neither.
func TestUsedAndReported(t *testing.T) {
	w := newWorld(t)
	w.node("a") // 8 processors and 32 GiB for 1000 micro-USD a second
	w.to(10 * time.Second)
	model := fleet.ModelUse{Reports: 1, Priced: 1, MicroUSD: 250_000, InputTokens: 10, CacheReadTokens: 5000, OutputTokens: 70}
	run := func(id string, labels map[string]string, u fleet.Usage, m *fleet.ModelUse) fleet.TaskID {
		d := w.task(labels)
		b := w.box(id, d.Lease.Task, d.Lease.Fence) // half the node
		w.to(w.now.Sub(epoch) + 100*time.Second)
		b.State, b.GoneAt = fleet.SandboxGone, w.now
		w.put(b)
		if u.CPU > 0 {
			u.At = w.now
		}
		if _, err := w.store.Settle(t.Context(), d.Lease.Task, d.Lease.Fence, fleet.Settlement{
			State: fleet.TaskSucceeded, EndedAt: w.now, Result: fleet.Result{Usage: u, Model: m},
		}); err != nil {
			t.Fatal(err)
		}
		w.to(w.now.Sub(epoch) + 20*time.Second)
		return d.Lease.Task
	}
	// 80 of 800 processor-seconds, and 8 of 32 GiB all the time: (0.1+0.25)/2.
	first := run("s1", map[string]string{"team": "pay"}, fleet.Usage{CPU: 80 * time.Second, MemoryByteSeconds: 100 * 8 * gib}, &model)
	run("s2", map[string]string{"team": "web"}, fleet.Usage{}, nil) // not measured
	r := w.report(fleet.CostQuery{By: "team"})
	if r.UsedMicroUSD != 17_500 || r.MeasuredMicroUSD != 50_000 || r.TaskMicroUSD != 100_000 {
		t.Errorf("used %d of %d, of %d; want 17500 of 50000, of 100000", r.UsedMicroUSD, r.MeasuredMicroUSD, r.TaskMicroUSD)
	}
	if diff := cmp.Diff(model, r.Model); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, g := range r.Groups {
		switch g.Name {
		case "pay":
			if g.UsedMicroUSD != 17_500 || g.MeasuredMicroUSD != 50_000 || !cmp.Equal(g.Model, &model) {
				t.Errorf("%+v", g)
			}
		default:
			if g.UsedMicroUSD != 0 || g.Model != nil {
				t.Errorf("%+v", g)
			}
		}
	}
	by := w.report(fleet.CostQuery{By: "task"})
	for _, g := range by.Groups {
		if has := g.Name == string(first); has != (g.Model != nil) {
			t.Errorf("%+v", g)
		}
	}
	books(t, w.store.Store) // hours and days agree
	w.restart()
	w.step(0)
	w.to(w.now.Sub(epoch) + 20*time.Second)
	if again := w.report(fleet.CostQuery{}); again.UsedMicroUSD != 17_500 || again.Model != model {
		t.Errorf("after a restart %+v", again)
	}
}

// A task is counted also when its node was gone before its sandbox was, and
// none is left.
func TestLastTaskOfTheLastNode(t *testing.T) {
	w := newWorld(t)
	w.node("a")
	w.to(10 * time.Second)
	d := w.task(nil)
	b := w.box("s1", d.Lease.Task, d.Lease.Fence)
	w.to(60 * time.Second)
	if _, err := w.store.Settle(t.Context(), d.Lease.Task, d.Lease.Fence, fleet.Settlement{State: fleet.TaskFailed, EndedAt: w.now}); err != nil {
		t.Fatal(err)
	}
	b.State = fleet.SandboxDraining
	w.put(b)
	w.nodes = nil
	w.to(90 * time.Second)
	b.State, b.GoneAt = fleet.SandboxGone, w.now
	w.put(b)
	w.to(150 * time.Second)
	if r := w.report(fleet.CostQuery{}); r.Settled != 1 || r.MicroUSD == 0 {
		t.Errorf("%d tasks settled, %d charged", r.Settled, r.MicroUSD)
	}
}
