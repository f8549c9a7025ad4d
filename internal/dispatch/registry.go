package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Registry knows every sandbox that is not gone and keeps the store in step:
// a state is written to the store before it is visible here. It is safe for
// concurrent use.
type Registry struct {
	store fleet.SandboxRecords

	mu      sync.Mutex
	boxes   map[fleet.SandboxID]*entry
	watches map[chan struct{}]struct{}
}

type entry struct {
	box      fleet.Sandbox
	reserved bool // a task is about to claim it, or it is about to be drained
}

// NewRegistry returns an empty registry over the store.
func NewRegistry(store fleet.SandboxRecords) *Registry {
	return &Registry{store: store, boxes: map[fleet.SandboxID]*entry{}, watches: map[chan struct{}]struct{}{}}
}

// Watch delivers a value after a state changed; values may be merged.
func (r *Registry) Watch() (wake <-chan struct{}, release func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	r.watches[c] = struct{}{}
	r.mu.Unlock()
	return c, func() {
		r.mu.Lock()
		delete(r.watches, c)
		r.mu.Unlock()
	}
}

func (r *Registry) notify() {
	for c := range r.watches {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Put writes a sandbox to the store, then makes it visible. A gone or failed
// sandbox is forgotten here.
func (r *Registry) Put(ctx context.Context, s fleet.Sandbox) error {
	if err := r.store.PutSandbox(ctx, s); err != nil {
		return fmt.Errorf("record sandbox %s as %s: %w", s.Spec.ID, s.State, err)
	}
	r.set(s)
	return nil
}

// set makes a sandbox visible that the store knows already.
func (r *Registry) set(s fleet.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.notify()
	if s.State == fleet.SandboxGone {
		delete(r.boxes, s.Spec.ID)
		return
	}
	r.boxes[s.Spec.ID] = &entry{box: s}
}

// Forget drops a sandbox from memory when even the store cannot be written.
func (r *Registry) Forget(id fleet.SandboxID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.boxes, id)
	r.notify()
}

// Get returns a sandbox that is not gone.
func (r *Registry) Get(id fleet.SandboxID) (fleet.Sandbox, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.boxes[id]
	if !ok {
		return fleet.Sandbox{}, false
	}
	return e.box, true
}

// Slots counts the sandboxes of each pool that a task can claim now.
func (r *Registry) Slots() map[fleet.PoolKey]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out map[fleet.PoolKey]int
	for _, e := range r.boxes {
		if e.box.State == fleet.SandboxReady && !e.reserved {
			if out == nil {
				out = map[fleet.PoolKey]int{}
			}
			out[e.box.Spec.Pool]++
		}
	}
	return out
}

// take reserves the ready sandbox of the pool that has waited longest, so
// that stock does not grow stale.
func (r *Registry) take(pool fleet.PoolKey) (fleet.Sandbox, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var best *entry
	for _, e := range r.boxes {
		if e.box.State != fleet.SandboxReady || e.reserved || e.box.Spec.Pool != pool {
			continue
		}
		if best == nil || older(e.box, best.box) {
			best = e
		}
	}
	if best == nil {
		return fleet.Sandbox{}, false
	}
	best.reserved = true
	return best.box, true
}

func older(a, b fleet.Sandbox) bool {
	return cmp.Or(a.ReadyAt.Compare(b.ReadyAt), cmp.Compare(a.Spec.ID, b.Spec.ID)) < 0
}

// release gives a reserved sandbox back.
func (r *Registry) release(id fleet.SandboxID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.boxes[id]; e != nil {
		e.reserved = false
		r.notify()
	}
}

// claimed shows what ClaimSandbox has written.
func (r *Registry) claimed(id fleet.SandboxID, t fleet.Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.boxes[id]; e != nil {
		e.reserved = false
		e.box.State, e.box.Task, e.box.Fence, e.box.ClaimedAt = fleet.SandboxClaimed, t.ID, t.Fence, t.ClaimedAt
		r.notify()
	}
}

// Drain takes a ready sandbox out of dispatch; false when it is not ready any
// more (a task was faster), and then it must be left alone.
func (r *Registry) Drain(ctx context.Context, id fleet.SandboxID, why string) (bool, error) {
	return r.move(ctx, id, fleet.SandboxReady, fleet.SandboxDraining, why)
}

// Undrain puts a draining sandbox that never had a task back into its pool.
func (r *Registry) Undrain(ctx context.Context, id fleet.SandboxID, why string) (bool, error) {
	return r.move(ctx, id, fleet.SandboxDraining, fleet.SandboxReady, why)
}

func (r *Registry) move(ctx context.Context, id fleet.SandboxID, from, to fleet.SandboxState, why string) (bool, error) {
	r.mu.Lock()
	e := r.boxes[id]
	if e == nil || e.reserved || e.box.State != from || e.box.Task != "" {
		r.mu.Unlock()
		return false, nil
	}
	e.reserved = true
	next := e.box
	r.mu.Unlock()
	next.State, next.Message = to, why
	err := r.store.PutSandbox(ctx, next)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.reserved = false
	if err != nil {
		return false, fmt.Errorf("record sandbox %s as %s: %w", id, to, err)
	}
	e.box = next
	r.notify()
	return true, nil
}

// Snapshot returns every sandbox that is not gone, by id.
func (r *Registry) Snapshot() []fleet.Sandbox {
	r.mu.Lock()
	out := make([]fleet.Sandbox, 0, len(r.boxes))
	for _, e := range r.boxes {
		out = append(out, e.box)
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b fleet.Sandbox) int { return cmp.Compare(a.Spec.ID, b.Spec.ID) })
	return out
}

// End destroys a sandbox and records it as gone; it is used for every end of
// a life, so that nothing is forgotten when a step fails: the record stays
// until Destroy succeeded.
func (r *Registry) End(ctx context.Context, boxes fleet.Sandboxes, id fleet.SandboxID, now time.Time, why string) error {
	s, ok := r.Get(id)
	if ok && s.State != fleet.SandboxDraining && s.State != fleet.SandboxFailed {
		s.State, s.Message = fleet.SandboxDraining, why
		r.set(s)
	}
	if u, err := boxes.Usage(ctx, id); err == nil {
		s.Usage = u
	}
	if err := boxes.Destroy(ctx, id); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	if !ok {
		return nil
	}
	s.State, s.Message, s.GoneAt = fleet.SandboxGone, why, now
	return r.Put(ctx, s)
}
