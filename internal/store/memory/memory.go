package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Options shape a Store.
type Options struct {
	Tenants    map[fleet.TenantID]fleet.Share
	MaxBacklog int // waiting tasks at most; 0: no bound
	// Clock is time.Now unless set. Timers always run on the time package.
	Clock func() time.Time
}

// Store is a fleet.Store in memory; see Queue for its fleet.Queue.
type Store struct {
	opt  Options
	wake chan struct{}

	mu        sync.Mutex
	closed    bool
	timer     *time.Timer
	tasks     map[fleet.TaskID]*entry
	keys      map[key]fleet.TaskID
	arrived   map[fleet.PoolKey]int64
	order     int64
	sandboxes map[fleet.SandboxID]fleet.Sandbox
	decisions []fleet.DecisionRecord
	policies  map[string][]byte // by digest
	events    []fleet.Event
	watchers  map[chan struct{}]struct{} // of events
	// boxWatchers are told of records of sandboxes.
	boxWatchers map[chan struct{}]struct{}
	consumers   map[string]consumer
	schedules   map[string]fleet.Schedule
	settings    map[string][]byte
	messages    map[fleet.TaskID]fleet.HeldMessage
	ledger      ledger
	revisions   []fleet.Revision
	faults      map[string]*fault
}

// entry is one task with what the queue knows about it.
type entry struct {
	task     fleet.Task
	order    int64     // of submission
	leased   bool      // held by a consumer, sandbox claimed or not
	until    time.Time // end of the lease; of no meaning once a sandbox is claimed
	deadline time.Time // of waiting, by timeouts.queue; zero: none
	digest   string
	hook     hook
}

// hook is where the delivery of a task's webhook stands.
type hook int

const (
	hookNone hook = iota
	hookPending
	hookDone
)

// key identifies an idempotent submission.
type key struct {
	tenant fleet.TenantID
	key    string
}

type fault struct {
	err  error
	once bool
}

// New returns an empty store.
func New(o Options) *Store {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Store{
		opt: o, wake: make(chan struct{}, 1),
		tasks: map[fleet.TaskID]*entry{}, keys: map[key]fleet.TaskID{},
		arrived: map[fleet.PoolKey]int64{}, sandboxes: map[fleet.SandboxID]fleet.Sandbox{},
		watchers: map[chan struct{}]struct{}{}, boxWatchers: map[chan struct{}]struct{}{}, consumers: map[string]consumer{}, schedules: map[string]fleet.Schedule{},
		settings: map[string][]byte{}, policies: map[string][]byte{}, messages: map[fleet.TaskID]fleet.HeldMessage{}, faults: map[string]*fault{},
	}
}

// Fail makes every call of the named method fail with err before it does
// anything, until Fail(op, nil).
func (s *Store) Fail(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.faults, op)
		return
	}
	s.faults[op] = &fault{err: err}
}

// FailOnce makes the next call of the named method fail with err.
func (s *Store) FailOnce(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[op] = &fault{err: err, once: true}
}

// SetTenants changes shares and caps from the next lease on.
func (s *Store) SetTenants(t map[fleet.TenantID]fleet.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opt.Tenants = t
	s.notify()
}

// begin enters a method: it takes the lock, and returns with it held unless
// it fails.
func (s *Store) begin(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	s.mu.Lock()
	var err error
	if s.closed {
		err = fmt.Errorf("store is closed: %w", fleet.ErrUnavailable)
	} else if f := s.faults[op]; f != nil {
		err = f.err
		if f.once {
			delete(s.faults, op)
		}
	}
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Ping reports whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.begin(ctx, "Ping"); err != nil {
		return err
	}
	s.mu.Unlock()
	return nil
}

// Close stops the timer; later calls fail with ErrUnavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return nil
}

func (s *Store) now() time.Time { return lifecycle.Clean(s.opt.Clock()) }

// held returns the entry when fence owns the task now.
func (s *Store) held(id fleet.TaskID, fence int64) (*entry, error) {
	e := s.tasks[id]
	if e == nil {
		return nil, fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
	}
	t := e.task
	lost := t.State == fleet.TaskQueued && (!e.leased || !e.until.After(s.now()))
	if t.Fence != fence || t.State.Final() || lost {
		return nil, fmt.Errorf("task %s (%s, fence %d) with fence %d: %w", id, t.State, t.Fence, fence, fleet.ErrFenced)
	}
	return e, nil
}

// write stores a task that has changed hands: off the lease, its sandbox
// freed, its webhook due when it is final.
func (s *Store) write(e *entry, t fleet.Task) fleet.Task {
	if sb, ok := s.sandboxes[e.task.Sandbox]; ok &&
		sb.State == fleet.SandboxClaimed && sb.Task == t.ID && sb.Fence == t.Fence {
		s.put(lifecycle.Freed(sb))
	}
	e.task, e.leased = lifecycle.CloneTask(t), false
	if t.State.Final() && t.Spec.Webhook != "" && e.hook == hookNone {
		e.hook = hookPending
	}
	s.notify()
	return lifecycle.CloneTask(t)
}
