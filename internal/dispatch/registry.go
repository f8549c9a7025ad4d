package dispatch

import (
	"cmp"
	"context"
	"errors"
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
	store  fleet.SandboxRecords
	shared fleet.SharedRecords // the same, where other processes write them, too; else nil

	mu      sync.Mutex
	boxes   map[fleet.SandboxID]*entry
	pools   map[fleet.PoolKey]*stock
	watches map[chan struct{}]struct{}
	prefer  map[fleet.NodeID]float64 // see Prefer; nil: one node
}

type entry struct {
	box      fleet.Sandbox
	reserved bool // a task is about to claim it, or it is about to be drained
	shelved  bool // it stands in its pool's stock
}

// free tells whether a task can claim the sandbox now.
func (e *entry) free() bool { return e.box.State == fleet.SandboxReady && !e.reserved }

// stock is the free sandboxes of one pool: counting it and taking from it costs the
// same however large the fleet is.
type stock struct {
	free  int
	order []*entry // about by time of ready; those no longer free are dropped when met
}

// alter changes an entry and keeps its pool's stock in step; the lock is held.
func (r *Registry) alter(e *entry, f func()) {
	was := e.free()
	f()
	is := e.free()
	if was == is {
		return
	}
	p := r.pools[e.box.Spec.Pool]
	if p == nil {
		p = &stock{}
		r.pools[e.box.Spec.Pool] = p
	}
	if !is {
		p.free--
		return
	}
	p.free++
	if !e.shelved {
		e.shelved = true
		p.order = append(p.order, e)
	}
}

// drop forgets an entry; the lock is held.
func (r *Registry) drop(id fleet.SandboxID) {
	if e := r.boxes[id]; e != nil {
		r.alter(e, func() { e.box.State = fleet.SandboxGone })
		delete(r.boxes, id)
	}
}

// NewRegistry returns an empty registry over the store.
func NewRegistry(store fleet.SandboxRecords) *Registry {
	return &Registry{store: store, boxes: map[fleet.SandboxID]*entry{}, pools: map[fleet.PoolKey]*stock{}, watches: map[chan struct{}]struct{}{}}
}

// NewSharedRegistry returns an empty registry over records that other
// processes write, too: what is written here is a compare-and-swap on the
// record's owner and, where that matters, its state.
func NewSharedRegistry(store fleet.SharedRecords) *Registry {
	r := NewRegistry(store)
	r.shared = store
	return r
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
// sandbox is forgotten here. Shared records: ErrConflict when it is another's
// by now, or, where it became ready, was ordered to end.
func (r *Registry) Put(ctx context.Context, s fleet.Sandbox) error {
	var from fleet.SandboxState // any
	if s.State == fleet.SandboxReady {
		from = fleet.SandboxStarting
	}
	if err := r.write(ctx, s, from); err != nil {
		return fmt.Errorf("record sandbox %s as %s: %w", s.Spec.ID, s.State, err)
	}
	r.set(s)
	return nil
}

// write puts a sandbox into the store; shared records are new, or in the state
// from (empty: any but gone) and of the same owner.
func (r *Registry) write(ctx context.Context, s fleet.Sandbox, from fleet.SandboxState) error {
	if r.shared == nil || s.State == fleet.SandboxStarting {
		return r.store.PutSandbox(ctx, s)
	}
	return r.shared.SwapSandbox(ctx, s, from, s.Owner)
}

// Mirror shows a shared record as the store has it, written by whomever. What
// is being written here just now is left alone; a later look will see it.
func (r *Registry) Mirror(s fleet.Sandbox) {
	r.mu.Lock()
	e := r.boxes[s.Spec.ID]
	busy := e != nil && e.reserved
	r.mu.Unlock()
	if !busy {
		r.set(s)
	}
}

// owns reads whether a sandbox is still what it is here, by its owner. Where
// that cannot be read it is.
func (r *Registry) owns(ctx context.Context, id fleet.SandboxID) bool {
	if r.shared == nil {
		return true
	}
	here, ok := r.Get(id)
	if !ok {
		return false
	}
	s, err := r.store.Sandbox(ctx, id)
	return err != nil && !errors.Is(err, fleet.ErrNotFound) || err == nil && s.Owner == here.Owner
}

// refresh shows a shared record anew after a write of ours was refused.
func (r *Registry) refresh(ctx context.Context, id fleet.SandboxID) {
	if r.shared == nil {
		return
	}
	here, ok := r.Get(id)
	switch s, err := r.store.Sandbox(ctx, id); {
	case errors.Is(err, fleet.ErrNotFound), err == nil && ok && s.Owner != here.Owner:
		r.Forget(id)
	case err == nil && ok:
		r.set(s)
	}
}

// set makes a sandbox visible that the store knows already.
func (r *Registry) set(s fleet.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.notify()
	if s.State == fleet.SandboxGone {
		r.drop(s.Spec.ID)
		return
	}
	e := r.boxes[s.Spec.ID]
	if e == nil {
		e = &entry{}
		e.box.Spec.Pool = s.Spec.Pool
		r.boxes[s.Spec.ID] = e
	}
	r.alter(e, func() { e.box, e.reserved = s, false })
}

// hold makes a sandbox visible that nobody may claim or drain before release.
func (r *Registry) hold(s fleet.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &entry{reserved: true, box: s}
	r.drop(s.Spec.ID)
	r.boxes[s.Spec.ID] = e
	r.notify()
}

// poke wakes those who watch.
func (r *Registry) poke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify()
}

// Forget drops a sandbox from memory when even the store cannot be written.
func (r *Registry) Forget(id fleet.SandboxID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(id)
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
	for key, p := range r.pools {
		if p.free > 0 {
			if out == nil {
				out = map[fleet.PoolKey]int{}
			}
			out[key] = p.free
		}
	}
	return out
}

// Prefer sets on which nodes sandboxes are claimed first, the highest first,
// so that nodes fill and empty together.
func (r *Registry) Prefer(nodes map[fleet.NodeID]float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prefer = nodes
}

// choice bounds how many ready sandboxes of a pool are looked at for one claim.
const choice = 256

// take reserves a ready sandbox of the pool: of those that have waited
// longest, so that stock does not grow stale, one on the node preferred.
func (r *Registry) take(pool fleet.PoolKey) (fleet.Sandbox, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pools[pool]
	if p == nil || p.free == 0 {
		return fleet.Sandbox{}, false
	}
	most := 1
	if len(r.prefer) > 1 {
		most = choice
	}
	// What is not free any more is dropped; the rest moves up to the end of what
	// was looked at.
	var one [1]*entry
	seen := one[:0]
	best, i := 0, 0
	for ; i < len(p.order) && len(seen) < most; i++ {
		e := p.order[i]
		if !e.free() {
			e.shelved = false
			continue
		}
		if seen = append(seen, e); r.prefer[e.box.Spec.Node] > r.prefer[seen[best].box.Spec.Node] {
			best = len(seen) - 1
		}
	}
	if len(seen) == 0 {
		p.order = nil
		return fleet.Sandbox{}, false
	}
	e := seen[best]
	seen = slices.Delete(seen, best, best+1)
	p.order = p.order[i-len(seen):]
	copy(p.order, seen)
	e.shelved = false
	r.alter(e, func() { e.reserved = true })
	return e.box, true
}

// release gives a reserved sandbox back.
func (r *Registry) release(id fleet.SandboxID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.boxes[id]; e != nil {
		r.alter(e, func() { e.reserved = false })
		r.notify()
	}
}

// claimed shows what ClaimSandbox has written.
func (r *Registry) claimed(id fleet.SandboxID, t fleet.Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.boxes[id]; e != nil {
		r.alter(e, func() {
			e.reserved = false
			e.box.State, e.box.Task, e.box.Fence, e.box.ClaimedAt = fleet.SandboxClaimed, t.ID, t.Fence, t.ClaimedAt
		})
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
	r.alter(e, func() { e.reserved = true })
	next := e.box
	r.mu.Unlock()
	next.State, next.Message = to, why
	err := r.write(ctx, next, from)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.shared != nil && errors.Is(err, fleet.ErrConflict) {
		r.alter(e, func() { e.reserved = false })
		return false, nil // a task, or another owner, was faster; the next look shows it
	}
	if err != nil {
		r.alter(e, func() { e.reserved = false })
		return false, fmt.Errorf("record sandbox %s as %s: %w", id, to, err)
	}
	if r.boxes[id] != e || e.box.State != from {
		return false, nil // it is being ended meanwhile
	}
	r.alter(e, func() { e.reserved, e.box = false, next })
	r.notify()
	return true, nil
}

// AppendTo appends every sandbox that is not gone, in any order; a caller that
// looks often keeps its buffer.
func (r *Registry) AppendTo(out []fleet.Sandbox) []fleet.Sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.boxes {
		out = append(out, e.box)
	}
	return out
}

// Snapshot returns every sandbox that is not gone, by id.
func (r *Registry) Snapshot() []fleet.Sandbox {
	out := r.AppendTo(nil)
	slices.SortFunc(out, func(a, b fleet.Sandbox) int { return cmp.Compare(a.Spec.ID, b.Spec.ID) })
	return out
}

// Order asks the owner of a sandbox to end it; it is idempotent. False when a
// task is in it, or it is over.
func (r *Registry) Order(ctx context.Context, id fleet.SandboxID, why string) (bool, error) {
	s, ok := r.Get(id)
	if !ok || s.Order != "" || s.State == fleet.SandboxClaimed {
		return ok && s.Order != "", nil
	}
	from := s.State
	s.State, s.Order, s.Message = fleet.SandboxDraining, why, why
	switch err := r.write(ctx, s, from); {
	case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("order the end of sandbox %s: %w", id, err)
	}
	r.Mirror(s)
	return true, nil
}

// End destroys a sandbox and records it as gone; it is used for every end of
// a life, so that nothing is forgotten when a step fails: the record stays
// until Destroy succeeded. A shared one that is another's by now is let go.
func (r *Registry) End(ctx context.Context, boxes fleet.Sandboxes, id fleet.SandboxID, now time.Time, why string) error {
	s, ok := r.Get(id)
	if !r.owns(ctx, id) {
		r.Forget(id)
		return letGo(ctx, boxes, id)
	}
	if ok && s.State != fleet.SandboxDraining && s.State != fleet.SandboxFailed {
		s.State, s.Message = fleet.SandboxDraining, why
		r.set(s)
	}
	if u, err := boxes.Usage(ctx, id); err == nil {
		s.Usage = u
		s.Usage.MilliCPUNow = 0
	}
	if err := boxes.Destroy(ctx, id); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	if !ok {
		return nil
	}
	s.State, s.Message, s.GoneAt = fleet.SandboxGone, why, now
	err := r.Put(ctx, s)
	if r.shared != nil && errors.Is(err, fleet.ErrConflict) {
		r.Forget(id) // recorded by another, or another's; its owner finds it gone
		return nil
	}
	return err
}

// letGo gives a sandbox up without touching it.
func letGo(ctx context.Context, boxes fleet.Sandboxes, id fleet.SandboxID) error {
	if l, ok := boxes.(fleet.Releaser); ok {
		return l.Release(ctx, id)
	}
	return nil
}
