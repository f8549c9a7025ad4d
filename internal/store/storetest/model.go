package storetest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

// modelTask is what must be true of one task, kept apart from any store.
type modelTask struct {
	id       fleet.TaskID
	spec     fleet.TaskSpec
	order    int
	state    fleet.TaskState
	attempt  int
	fence    int64
	due      time.Time
	deadline time.Time
	leased   bool
	until    time.Time
	sandbox  fleet.SandboxID
	cancel   bool
	dead     bool
	ended    time.Time
	settled  int // completions, ever
}

// machine drives a store and the model side by side.
type machine struct {
	ctx    context.Context
	sub    Subject
	shares map[fleet.TenantID]fleet.Share
	most   int

	tasks     []*modelTask // in order of submission
	byID      map[fleet.TaskID]*modelTask
	keys      map[string]*modelTask
	leases    []fleet.Lease // every lease ever given
	sandboxes map[fleet.SandboxID]fleet.SandboxState
	owners    map[fleet.SandboxID]string
	arrived   int64
}

// checkModel runs random histories against a model: nothing is lost, nothing
// is settled twice, fences grow, order and caps and counts are exact.
func checkModel(t *testing.T, open Factory) {
	opt := Options{
		Tenants:    map[fleet.TenantID]fleet.Share{"a": {Weight: 2}, "b": {Weight: 1, MaxRunning: 2}, "c": {Weight: 0.5}},
		MaxBacklog: 12,
	}
	rapid.Check(noDeadline{t}, func(rt *rapid.T) {
		m := &machine{
			ctx: t.Context(), shares: opt.Tenants, most: opt.MaxBacklog,
			byID: map[fleet.TaskID]*modelTask{}, keys: map[string]*modelTask{}, sandboxes: map[fleet.SandboxID]fleet.SandboxState{},
			owners: map[fleet.SandboxID]string{},
		}
		m.sub = open(t, opt)
		defer func() {
			if err := m.sub.Store.Close(); err != nil {
				rt.Error(err)
			}
		}()
		actions := map[string]func(*rapid.T){
			"submit": m.submit, "lease": m.lease, "lease again": m.lease, "claim": m.claim, "claim again": m.claim, "change": m.change,
			"settle": m.settle, "retry": m.retry, "nack": m.nack, "extend": m.extend, "ack": m.ack, "dead-letter": m.deadLetter,
			"take over": m.takeOver, "cancel": m.cancel, "expire": m.expire, "sleep": m.sleep, "prune": m.prune, "": m.check,
		}
		if m.sub.Reopen != nil {
			actions["reopen"] = func(*rapid.T) { m.reopen(t) }
		}
		rt.Repeat(actions)
	})
}

// noDeadline hides T.Deadline, which must not be asked for in a bubble.
type noDeadline struct{ testing.TB }

func (m *machine) now() time.Time { return time.Now().UTC() }

// held returns the model's task when the lease is good.
func (m *machine) held(l fleet.Lease) *modelTask {
	t := m.byID[l.Task]
	if t == nil || t.fence != l.Fence || t.state.Final() || !t.leased || t.state == fleet.TaskQueued && !t.until.After(m.now()) {
		return nil
	}
	return t
}

// reap is what time does to leases.
func (m *machine) reap() {
	for _, t := range m.tasks {
		if t.state == fleet.TaskQueued && t.leased && !t.until.After(m.now()) {
			t.leased = false
		}
	}
}

func (m *machine) waiting() int {
	n := 0
	for _, t := range m.tasks {
		if t.state == fleet.TaskQueued && !t.leased {
			n++
		}
	}
	return n
}

// some draws a lease of the past, most often one of the newest.
func (m *machine) some(rt *rapid.T) fleet.Lease {
	if len(m.leases) == 0 {
		rt.Skip("no lease yet")
	}
	back := rapid.IntRange(0, min(len(m.leases)-1, 8)).Draw(rt, "lease, back")
	return m.leases[len(m.leases)-1-back]
}

// expect checks an error: nil when ok, else ErrFenced (or ErrNotFound where
// the task was pruned).
func (m *machine) expect(rt *rapid.T, what string, ok bool, l fleet.Lease, err error) {
	switch {
	case ok && err != nil:
		rt.Fatalf("%s: %v", what, err)
	case !ok && m.byID[l.Task] == nil && errors.Is(err, fleet.ErrNotFound):
	case !ok && !errors.Is(err, fleet.ErrFenced):
		rt.Fatalf("%s with a lost lease: %v, want ErrFenced", what, err)
	}
}

// next is the task that must be leased next.
func (m *machine) next(slots map[fleet.PoolKey]int) *modelTask {
	running := map[fleet.TenantID]int{}
	for _, t := range m.tasks {
		if t.leased {
			running[t.spec.Tenant]++
		}
	}
	var fit []*modelTask
	for _, t := range m.tasks {
		most := m.shares[t.spec.Tenant].MaxRunning
		if t.state == fleet.TaskQueued && !t.leased && !t.due.After(m.now()) && slots[t.spec.Pool] > 0 && (most == 0 || running[t.spec.Tenant] < most) {
			fit = append(fit, t)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	load := func(t *modelTask) float64 { return float64(running[t.spec.Tenant]) / m.shares[t.spec.Tenant].Weight }
	return slices.MinFunc(fit, func(a, b *modelTask) int {
		return cmp.Or(cmp.Compare(b.spec.Priority, a.spec.Priority), cmp.Compare(load(a), load(b)), a.due.Compare(b.due), cmp.Compare(a.order, b.order))
	})
}

// free is what becomes of the sandbox of a task that left it.
// back returns a task to the queue.
func (m *machine) reopen(t testing.TB) {
	m.sub = m.sub.Reopen(t)
	for _, x := range m.tasks {
		if x.state == fleet.TaskQueued {
			x.leased = false
		}
	}
}

// check compares the whole store with the model.
func (m *machine) check(rt *rapid.T) {
	m.reap()
	st, err := m.sub.Queue.Stats(m.ctx)
	if err != nil {
		rt.Fatalf("stats: %v", err)
	}
	stored, err := m.sub.Store.Tasks(m.ctx, fleet.TaskFilter{Limit: 10_000})
	if err != nil || len(stored) != len(m.tasks) {
		rt.Fatalf("%d tasks are stored, want %d; %v", len(stored), len(m.tasks), err)
	}
	byID := map[fleet.TaskID]fleet.Task{}
	for _, t := range stored {
		byID[t.ID] = t
	}
	want := fleet.QueueStats{AsOf: st.AsOf, Arrived: m.arrived}
	for _, t := range m.tasks {
		switch {
		case t.state.Final():
			if t.dead {
				want.Dead++
			}
		case t.leased:
			want.InFlight++
		case t.due.After(m.now()):
			want.Delayed++
		default:
			want.Backlog++
			if want.Oldest.IsZero() || t.due.Before(want.Oldest) {
				want.Oldest = t.due
			}
		}
		if t.settled > 1 {
			rt.Fatalf("task %s was settled %d times", t.id, t.settled)
		}
		got := byID[t.id]
		if got.State != t.state || got.Fence != t.fence || got.Attempt != t.attempt || got.Cancel != (t.cancel || t.state == fleet.TaskCancelled) || !got.DueAt.Equal(t.due) {
			rt.Fatalf("task: got %+v, want %+v", got, t)
		}
	}
	pools := st.Pools
	st.Pools = nil
	if diff := gocmp.Diff(want, st); diff != "" {
		rt.Fatalf("stats (-want +got):\n%s", diff)
	}
	var sum fleet.PoolDemand
	for _, p := range pools {
		sum.Backlog += p.Backlog
		sum.Delayed += p.Delayed
		sum.InFlight += p.InFlight
		sum.Arrived += p.Arrived
	}
	if sum != (fleet.PoolDemand{Backlog: st.Backlog, Delayed: st.Delayed, InFlight: st.InFlight, Arrived: st.Arrived}) {
		rt.Fatalf("pools add up to %+v, all is %+v", sum, st)
	}
	boxes, err := m.sub.Store.Sandboxes(m.ctx, time.Time{})
	if err != nil || len(boxes) != len(m.sandboxes) {
		rt.Fatalf("%d sandboxes, want %d; %v", len(boxes), len(m.sandboxes), err)
	}
	for _, b := range boxes {
		if b.State != m.sandboxes[b.Spec.ID] || b.Owner != m.owners[b.Spec.ID] {
			rt.Fatalf("sandbox %s is %s of %q, want %s of %q", b.Spec.ID, b.State, b.Owner, m.sandboxes[b.Spec.ID], m.owners[b.Spec.ID])
		}
		if t := m.inside(b.Spec.ID); t != nil && b.Fence != t.fence {
			rt.Fatalf("sandbox %s has fence %d, its task %d", b.Spec.ID, b.Fence, t.fence)
		}
	}
}
