package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	open   func() Subject
	sub    Subject
	shares map[fleet.TenantID]fleet.Share
	most   int

	tasks     []*modelTask // in order of submission
	byID      map[fleet.TaskID]*modelTask
	keys      map[string]*modelTask
	leases    []fleet.Lease // every lease ever given
	sandboxes map[fleet.SandboxID]fleet.SandboxState
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
			"cancel": m.cancel, "expire": m.expire, "sleep": m.sleep, "prune": m.prune, "": m.check,
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

func (m *machine) submit(rt *rapid.T) {
	m.reap()
	var in []fleet.Task
	for range rapid.IntRange(1, 3).Draw(rt, "tasks") {
		s := fleet.TaskSpec{
			Tenant:   rapid.SampledFrom([]fleet.TenantID{"a", "b", "c"}).Draw(rt, "tenant"),
			Pool:     rapid.SampledFrom([]fleet.PoolKey{"p", "q"}).Draw(rt, "pool"),
			Priority: rapid.IntRange(-1, 1).Draw(rt, "priority"),
		}
		s.Timeouts.Queue = time.Duration(rapid.SampledFrom([]int{0, 40, 400}).Draw(rt, "queue timeout")) * time.Second
		if d := rapid.SampledFrom([]int{0, 0, 0, 20, 50}).Draw(rt, "delay"); d > 0 {
			s.NotBefore = m.now().Add(time.Duration(d) * time.Second)
		}
		if k := rapid.IntRange(0, 9).Draw(rt, "key"); k < 3 {
			// A key stands for one content, so that a repeat is a repeat.
			s = fleet.TaskSpec{Tenant: "a", Pool: "p", IdempotencyKey: fmt.Sprint("k", k)}
		}
		in = append(in, fleet.Task{Spec: s})
	}
	out, err := m.sub.Store.Submit(m.ctx, in)
	fresh, keys := 0, map[string]bool{}
	for _, t := range in {
		k := t.Spec.IdempotencyKey
		if k == "" || m.keys[k] == nil && !keys[k] {
			fresh++
		}
		keys[k] = true
	}
	if fresh > 0 && m.waiting()+fresh > m.most {
		if !errors.Is(err, fleet.ErrFull) {
			rt.Fatalf("submit beyond the bound: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatalf("submit: %v", err)
	}
	for _, t := range out {
		m.add(rt, t)
	}
}

func (m *machine) add(rt *rapid.T, t fleet.Task) {
	if k := t.Spec.IdempotencyKey; k != "" {
		if known := m.keys[k]; known != nil {
			if known.id != t.ID {
				rt.Fatalf("key %s made task %s beside %s", k, t.ID, known.id)
			}
			return
		}
	}
	if m.byID[t.ID] != nil {
		rt.Fatalf("task %s twice", t.ID)
	}
	n := &modelTask{id: t.ID, spec: t.Spec, order: len(m.tasks), state: fleet.TaskQueued, due: t.DueAt}
	if q := t.Spec.Timeouts.Queue; q > 0 {
		n.deadline = n.due.Add(q)
	}
	m.tasks = append(m.tasks, n)
	m.byID[n.id] = n
	if k := t.Spec.IdempotencyKey; k != "" {
		m.keys[k] = n
	}
	m.arrived++
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

func (m *machine) lease(rt *rapid.T) {
	m.reap()
	slots := map[fleet.PoolKey]int{"p": rapid.IntRange(0, 3).Draw(rt, "p"), "q": rapid.IntRange(0, 3).Draw(rt, "q")}
	got, err := m.sub.Queue.Lease(m.ctx, fleet.LeaseRequest{Slots: maps.Clone(slots), Visibility: visibility})
	if err != nil {
		rt.Fatalf("lease: %v", err)
	}
	for i, d := range got {
		want := m.next(slots)
		if want == nil || want.id != d.Task.ID {
			rt.Fatalf("leased %s at place %d, want %+v", d.Task.ID, i, want)
		}
		if d.Lease.Fence <= want.fence || d.Lease.Attempt != want.attempt+1 || d.Task.Fence != d.Lease.Fence {
			rt.Fatalf("lease %+v after fence %d and attempt %d", d.Lease, want.fence, want.attempt)
		}
		want.leased, want.until, want.fence, want.attempt = true, m.now().Add(visibility), d.Lease.Fence, d.Lease.Attempt
		slots[want.spec.Pool]--
		m.leases = append(m.leases, d.Lease)
	}
	if want := m.next(slots); want != nil {
		rt.Fatalf("did not lease %+v", want)
	}
}

func (m *machine) claim(rt *rapid.T) {
	l := m.some(rt)
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(m.now()), Pool: "p"}, State: fleet.SandboxReady}
	if err := m.sub.Store.PutSandbox(m.ctx, sb); err != nil {
		rt.Fatalf("put sandbox: %v", err)
	}
	m.sandboxes[sb.Spec.ID] = fleet.SandboxReady
	t := m.held(l)
	_, err := m.sub.Store.ClaimSandbox(m.ctx, sb.Spec.ID, l, fleet.LaunchWarm, m.now())
	if t != nil && t.state.Active() {
		if !errors.Is(err, fleet.ErrConflict) {
			rt.Fatalf("second claim: %v", err)
		}
		return
	}
	m.expect(rt, "claim", t != nil, l, err)
	if t != nil {
		t.state, t.sandbox = fleet.TaskClaimed, sb.Spec.ID
		m.sandboxes[sb.Spec.ID] = fleet.SandboxClaimed
	}
}

func (m *machine) change(rt *rapid.T) {
	l := m.some(rt)
	t := m.held(l)
	ok := t != nil && t.state.Active()
	to := rapid.SampledFrom([]fleet.TaskState{fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting}).Draw(rt, "to")
	m.expect(rt, "change", ok, l, m.sub.Store.Change(m.ctx, l.Task, l.Fence, fleet.Change{State: to}))
	if ok && slices.Index(fleet.TaskStates, to) > slices.Index(fleet.TaskStates, t.state) {
		t.state = to
	}
}

// free is what becomes of the sandbox of a task that left it.
func (m *machine) free(t *modelTask) {
	if t.sandbox != "" {
		m.sandboxes[t.sandbox] = fleet.SandboxDraining
	}
}

func (m *machine) end(t *modelTask, state fleet.TaskState, dead bool) {
	m.free(t)
	t.state, t.leased, t.dead, t.ended = state, false, dead, m.now()
	t.settled++
}

func (m *machine) settle(rt *rapid.T) {
	l := m.some(rt)
	t := m.held(l)
	state := rapid.SampledFrom([]fleet.TaskState{fleet.TaskSucceeded, fleet.TaskFailed, fleet.TaskLost}).Draw(rt, "state")
	_, err := m.sub.Store.Settle(m.ctx, l.Task, l.Fence, fleet.Settlement{State: state, EndedAt: m.now()})
	m.expect(rt, "settle", t != nil, l, err)
	if t != nil {
		m.end(t, state, state == fleet.TaskLost)
	}
}

// back returns a task to the queue.
func (m *machine) back(t *modelTask, due time.Time) {
	if t.cancel {
		m.end(t, fleet.TaskCancelled, false)
		return
	}
	m.free(t)
	if t.state.Active() {
		t.deadline = time.Time{}
		if q := t.spec.Timeouts.Queue; q > 0 {
			t.deadline = due.Add(q)
		}
	}
	t.state, t.leased, t.due, t.sandbox = fleet.TaskQueued, false, due, ""
}

func (m *machine) delay(rt *rapid.T) time.Duration {
	return time.Duration(rapid.SampledFrom([]int{0, 0, 15, 45}).Draw(rt, "delay")) * time.Second
}

func (m *machine) retry(rt *rapid.T) {
	l, due := m.some(rt), m.now().Add(m.delay(rt))
	t := m.held(l)
	active := t != nil && t.state.Active()
	if t != nil && !active {
		return // Nack is for those
	}
	_, err := m.sub.Store.Retry(m.ctx, l.Task, l.Fence, due, "lost")
	m.expect(rt, "retry", t != nil, l, err)
	if t != nil {
		m.back(t, due)
	}
}

func (m *machine) nack(rt *rapid.T) {
	l, d := m.some(rt), m.delay(rt)
	t := m.held(l)
	m.expect(rt, "nack", t != nil, l, m.sub.Queue.Nack(m.ctx, l, d, "not now"))
	if t != nil {
		m.back(t, m.now().Add(d))
	}
}

func (m *machine) extend(rt *rapid.T) {
	l := m.some(rt)
	t := m.held(l)
	_, err := m.sub.Queue.Extend(m.ctx, l, visibility)
	m.expect(rt, "extend", t != nil, l, err)
	if t != nil {
		t.until = m.now().Add(visibility)
	}
}

func (m *machine) ack(rt *rapid.T) {
	l := m.some(rt)
	t := m.byID[l.Task]
	err := m.sub.Queue.Ack(m.ctx, l)
	switch {
	case m.held(l) != nil:
		if !errors.Is(err, fleet.ErrInvalid) {
			rt.Fatalf("ack of what is not settled: %v", err)
		}
	default:
		m.expect(rt, "ack", t != nil && t.state.Final() && t.fence == l.Fence, l, err)
	}
}

func (m *machine) deadLetter(rt *rapid.T) {
	l := m.some(rt)
	t := m.held(l)
	m.expect(rt, "dead-letter", t != nil, l, m.sub.Queue.DeadLetter(m.ctx, l, "poison"))
	if t != nil {
		m.end(t, fleet.TaskFailed, true)
	}
}

func (m *machine) cancel(rt *rapid.T) {
	if len(m.tasks) == 0 {
		rt.Skip("no task yet")
	}
	t := rapid.SampledFrom(m.tasks).Draw(rt, "task")
	got, err := m.sub.Store.Cancel(m.ctx, t.id, "me", m.now())
	if err != nil {
		rt.Fatalf("cancel: %v", err)
	}
	switch {
	case t.state == fleet.TaskQueued:
		m.end(t, fleet.TaskCancelled, false)
	case t.state.Active():
		t.cancel = true
	}
	if got.State != t.state {
		rt.Fatalf("cancelled into %s, want %s", got.State, t.state)
	}
}

func (m *machine) expire(rt *rapid.T) {
	m.reap()
	var want []fleet.TaskID
	for _, t := range m.tasks {
		if t.state == fleet.TaskQueued && !t.leased && !t.deadline.IsZero() && !t.deadline.After(m.now()) {
			want = append(want, t.id)
			m.end(t, fleet.TaskTimedOut, false)
		}
	}
	out, err := m.sub.Store.ExpireQueued(m.ctx, m.now(), 100)
	got := ids(out)
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("expired %v, want %v; %v", got, want, err)
	}
}

func (m *machine) prune(rt *rapid.T) {
	before := m.now().Add(-time.Minute)
	out, err := m.sub.Store.Prune(m.ctx, before, 100)
	if err != nil {
		rt.Fatalf("prune: %v", err)
	}
	n := 0
	m.tasks = slices.DeleteFunc(m.tasks, func(t *modelTask) bool {
		if !t.state.Final() || !t.ended.Before(before) {
			return false
		}
		n++
		delete(m.byID, t.id)
		delete(m.keys, t.spec.IdempotencyKey)
		return true
	})
	if n != len(out) {
		rt.Fatalf("pruned %d, want %d", len(out), n)
	}
}

func (m *machine) sleep(rt *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 40).Draw(rt, "seconds")) * time.Second)
}

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
		got, err := m.sub.Store.Task(m.ctx, t.id)
		if err != nil {
			rt.Fatalf("task %s is lost: %v", t.id, err)
		}
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
		if b.State != m.sandboxes[b.Spec.ID] {
			rt.Fatalf("sandbox %s is %s, want %s", b.Spec.ID, b.State, m.sandboxes[b.Spec.ID])
		}
	}
}
