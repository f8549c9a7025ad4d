package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

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
	owner := rapid.SampledFrom([]string{"", "x"}).Draw(rt, "owner")
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(m.now()), Pool: "p"}, State: fleet.SandboxReady, Owner: owner}
	if err := m.sub.Store.PutSandbox(m.ctx, sb); err != nil {
		rt.Fatalf("put sandbox: %v", err)
	}
	m.sandboxes[sb.Spec.ID], m.owners[sb.Spec.ID] = fleet.SandboxReady, owner
	claimer := rapid.SampledFrom([]string{owner, owner, owner, "y"}).Draw(rt, "claimer")
	t := m.held(l)
	_, err := m.sub.Store.ClaimSandbox(m.ctx, l, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: m.now(), Owner: claimer})
	if t != nil && (t.state.Active() || claimer != owner) {
		if !errors.Is(err, fleet.ErrConflict) {
			rt.Fatalf("second or foreign claim: %v", err)
		}
		return
	}
	m.expect(rt, "claim", t != nil, l, err)
	if t != nil {
		t.state, t.sandbox = fleet.TaskClaimed, sb.Spec.ID
		m.sandboxes[sb.Spec.ID] = fleet.SandboxClaimed
	}
}

// inside is the task that runs in a sandbox.
func (m *machine) inside(id fleet.SandboxID) *modelTask {
	for _, t := range m.tasks {
		if t.sandbox == id && t.state.Active() {
			return t
		}
	}
	return nil
}

func (m *machine) takeOver(rt *rapid.T) {
	if len(m.sandboxes) == 0 {
		rt.Skip("no sandbox yet")
	}
	all := slices.Sorted(maps.Keys(m.sandboxes))
	id := all[len(all)-1-rapid.IntRange(0, min(len(all)-1, 8)).Draw(rt, "sandbox, back")]
	owner := m.owners[id]
	from := rapid.SampledFrom([]string{owner, owner, owner, "nobody"}).Draw(rt, "from")
	to := rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "to")
	got, task, err := m.sub.Store.TakeOver(m.ctx, id, from, to)
	if from != owner {
		if !errors.Is(err, fleet.ErrConflict) {
			rt.Fatalf("taken over from %q, who is not %q: %v", from, owner, err)
		}
		return
	}
	if err != nil || got.Owner != to {
		rt.Fatalf("take over: %+v, %v", got, err)
	}
	m.owners[id] = to
	t := m.inside(id)
	if t == nil {
		if task.ID != "" {
			rt.Fatalf("taken over with %+v, want no task", task)
		}
		return
	}
	t.fence++
	if task.ID != t.id || task.Fence != t.fence || task.Attempt != t.attempt || got.Fence != t.fence || got.HeldFence() >= t.fence {
		rt.Fatalf("taken over: %+v with %+v, want fence %d", got, task, t.fence)
	}
	m.leases = append(m.leases, fleet.Lease{Task: t.id, Attempt: t.attempt, Fence: t.fence})
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
