package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// mortal is a store as a process sees it that is killed at its n-th write: the
// write is done or not, its answer is lost, and nothing gets through any more.
type mortal struct {
	fleet.Store

	mu   sync.Mutex
	left int
	late bool // the fatal write is still done
	dead chan struct{}
}

var errKilled = errors.New("killed")

// write runs f unless the process is dead, and kills it when its time has come.
func (m *mortal) write(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left <= 0 {
		return errKilled
	}
	m.left--
	if m.left > 0 {
		return f()
	}
	close(m.dead)
	if m.late {
		_ = f()
	}
	return errKilled
}

func value[T any](m *mortal, f func() (T, error)) (out T, err error) {
	err = m.write(func() (err error) { out, err = f(); return err })
	return out, err
}

func (m *mortal) Change(ctx context.Context, id fleet.TaskID, fence int64, c fleet.Change) error {
	return m.write(func() error { return m.Store.Change(ctx, id, fence, c) })
}
func (m *mortal) Settle(ctx context.Context, id fleet.TaskID, fence int64, s fleet.Settlement) (fleet.Task, error) {
	return value(m, func() (fleet.Task, error) { return m.Store.Settle(ctx, id, fence, s) })
}
func (m *mortal) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	return value(m, func() (fleet.Task, error) { return m.Store.Retry(ctx, id, fence, due, why) })
}
func (m *mortal) Cancel(ctx context.Context, id fleet.TaskID, by string, now time.Time) (fleet.Task, error) {
	return value(m, func() (fleet.Task, error) { return m.Store.Cancel(ctx, id, by, now) })
}
func (m *mortal) PutSandbox(ctx context.Context, s fleet.Sandbox) error {
	return m.write(func() error { return m.Store.PutSandbox(ctx, s) })
}
func (m *mortal) SwapSandbox(ctx context.Context, s fleet.Sandbox, state fleet.SandboxState, owner string) error {
	return m.write(func() error { return m.Store.SwapSandbox(ctx, s, state, owner) })
}
func (m *mortal) ClaimSandbox(ctx context.Context, l fleet.Lease, c fleet.Claim) (fleet.Task, error) {
	return value(m, func() (fleet.Task, error) { return m.Store.ClaimSandbox(ctx, l, c) })
}
func (m *mortal) AppendDecision(ctx context.Context, d fleet.DecisionRecord, policy []byte) (int64, error) {
	return value(m, func() (int64, error) { return m.Store.AppendDecision(ctx, d, policy) })
}
func (m *mortal) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	return value(m, func() ([]fleet.Event, error) { return m.Store.AppendEvents(ctx, ev) })
}
func (m *mortal) PutSetting(ctx context.Context, key string, v []byte) error {
	return m.write(func() error { return m.Store.PutSetting(ctx, key, v) })
}

type mortalQueue struct {
	fleet.Queue
	m *mortal
}

func (q mortalQueue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	return value(q.m, func() ([]fleet.Delivery, error) { return q.Queue.Lease(ctx, r) })
}
func (q mortalQueue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	return value(q.m, func() (fleet.Lease, error) { return q.Queue.Extend(ctx, l, d) })
}
func (q mortalQueue) Nack(ctx context.Context, l fleet.Lease, d time.Duration, why string) error {
	return q.m.write(func() error { return q.Queue.Nack(ctx, l, d, why) })
}

// settlements counts completions by what the store accepted.
type settlements struct {
	fleet.Store
	mu   sync.Mutex
	seen map[fleet.TaskID]int
}

func (s *settlements) Settle(ctx context.Context, id fleet.TaskID, fence int64, st fleet.Settlement) (fleet.Task, error) {
	t, err := s.Store.Settle(ctx, id, fence, st)
	if err == nil {
		s.mu.Lock()
		s.seen[id]++
		s.mu.Unlock()
	}
	return t, err
}

// TestKilledAHundredTimes kills the control plane at a random write a hundred
// times under load: no accepted task is lost, none completes twice, nothing is
// left behind.
func TestKilledAHundredTimes(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	w := newWorld(t, fake.Options{
		Lead:   lead(400 * time.Millisecond),
		Script: busy(3 * time.Second),
	})
	w.spec.Policy.Min, w.spec.Policy.Max = 3, 40
	count := &settlements{Store: w.store, seen: map[fleet.TaskID]int{}}
	var ids []fleet.TaskID
	for range 100 {
		m := &mortal{Store: count, left: 1 + r.IntN(150), late: r.IntN(2) == 0, dead: make(chan struct{})}
		w.upOn(m, mortalQueue{w.store.Queue(), m})
		for range 3 {
			for _, x := range w.submit(r.IntN(6)) {
				ids = append(ids, x.ID)
			}
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		}
		if r.IntN(3) == 0 && len(ids) > 0 {
			_, _ = w.engine.Cancel(context.Background(), ids[r.IntN(len(ids))], "chaos")
		}
		if specs := w.boxes.Specs(); len(specs) > 0 && r.IntN(4) == 0 {
			w.boxes.Kill(specs[r.IntN(len(specs))].ID, fleet.ReasonNodeLost)
		}
		select {
		case <-m.dead:
		case <-time.After(2 * time.Second):
			m.mu.Lock()
			m.left = 0 // its time had not come: killed between two writes
			m.mu.Unlock()
		}
		w.kill()
	}
	w.upOn(count, w.store.Queue())
	sleep(30 * time.Minute)
	checkChaos(t, w, count, ids)
	w.end()
}

func checkChaos(t *testing.T, w *world, count *settlements, ids []fleet.TaskID) {
	t.Helper()
	states := map[fleet.TaskState]int{}
	for _, id := range ids {
		x := w.task(id)
		states[x.State]++
		if !x.State.Final() {
			t.Errorf("task %s is still %s (attempt %d, sandbox %s)", id, x.State, x.Attempt, x.Sandbox)
		}
		if count.seen[id] > 1 {
			t.Errorf("task %s was completed %d times", id, count.seen[id])
		}
	}
	if states[fleet.TaskSucceeded] < len(ids)*8/10 {
		t.Errorf("states %v", states)
	}
	boxes, err := w.store.Sandboxes(context.Background(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[fleet.SandboxID]bool{}
	for _, b := range boxes {
		if b.State == fleet.SandboxReady || b.State == fleet.SandboxStarting {
			recorded[b.Spec.ID] = true
		} else if b.State != fleet.SandboxGone {
			t.Errorf("sandbox %s is on record as %s for ever", b.Spec.ID, b.State)
		}
	}
	for _, s := range w.boxes.Specs() {
		if !recorded[s.ID] {
			t.Errorf("sandbox %s leaked", s.ID)
		}
	}
	if n := len(w.boxes.Specs()); n != len(recorded) || n > 10 {
		t.Errorf("%d sandboxes live, %d on record, floor 3", n, len(recorded))
	}
	t.Logf("%d tasks: %v; %+v", len(ids), states, w.boxes.Counts())
}

var _ dispatch.Observer = observer{}
