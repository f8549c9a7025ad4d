package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Op names a method for Inject.
type Op string

// The operations that can be made to fail.
const (
	OpCreate  Op = "create"
	OpClaim   Op = "claim"
	OpStop    Op = "stop"
	OpExec    Op = "exec"
	OpUsage   Op = "usage"
	OpDestroy Op = "destroy"
	OpList    Op = "list"
	OpAdopt   Op = "adopt"
	OpRelease Op = "release"
)

// Options shape a fake. The zero value creates sandboxes at once and runs
// tasks that print one line and succeed.
type Options struct {
	// Lead is the time from Create to ready; nil means none.
	Lead func(fleet.SandboxSpec) time.Duration
	// CreateErr, when it returns an error, fails that Create after its lead
	// time; nil means none fails.
	CreateErr func(fleet.SandboxSpec) error
	// Script is the task; nil is Succeed.
	Script Script
	// Exec answers Exec; nil prints the command and returns 0.
	Exec func(ctx context.Context, spec fleet.SandboxSpec, r fleet.ExecRequest) (int, error)
	// Usage answers Usage; nil derives plausible figures from the age.
	Usage func(spec fleet.SandboxSpec, age time.Duration) fleet.Usage
	// Isolation is what Create reports; zero means that of RuntimeFake.
	Isolation fleet.Isolation
	// MaxLive bounds sandboxes that exist at once; Create beyond it is
	// ErrFull. 0: no bound.
	MaxLive int
}

// Sandboxes is a fake fleet.Sandboxes; use New.
type Sandboxes struct {
	w      *world
	exits  chan fleet.SandboxExit
	closed chan struct{}
	once   sync.Once
	pumps  sync.WaitGroup
}

var (
	_ fleet.Sandboxes = (*Sandboxes)(nil)
	_ fleet.Releaser  = (*Sandboxes)(nil)
)

// world is the machine: it outlives the adapters opened on it.
type world struct {
	o      Options
	mu     sync.Mutex
	boxes  map[fleet.SandboxID]*box
	inject map[Op][]error
	owner  *Sandboxes // the newest adapter, which hears of exits nobody else would
	stats  Counts
}

// Counts is what ever happened in a fake.
type Counts struct {
	Creates   int // calls of Create that began a sandbox
	Created   int // that became ready
	Failed    int // that did not
	Claims    int // accepted, re-attachments excluded
	Destroyed int // sandboxes removed by Destroy
	Live      int // sandboxes now, starting ones included
	MaxLive   int // the most at once
}

// New returns a fake on a new world.
func New(o Options) *Sandboxes {
	if o.Script == nil {
		o.Script = Succeed
	}
	w := &world{o: o, boxes: map[fleet.SandboxID]*box{}, inject: map[Op][]error{}}
	return w.open()
}

func (w *world) open() *Sandboxes {
	s := &Sandboxes{w: w, exits: make(chan fleet.SandboxExit, 1024), closed: make(chan struct{})}
	w.mu.Lock()
	w.owner = s
	w.mu.Unlock()
	return s
}

// Reopen closes the adapter and returns another on the same world, as after a
// restart of the control plane: sandboxes and tasks have gone on meanwhile and
// must be adopted.
func (s *Sandboxes) Reopen() *Sandboxes {
	_ = s.Close()
	return s.w.open()
}

// Beside returns another adapter on the same world while this one stays open,
// as another consumer of the fleet would have it. Each drives the sandboxes that
// it created or adopted; see Release.
func (s *Sandboxes) Beside() *Sandboxes { return s.w.open() }

// Inject makes the next times calls of op fail with err.
func (s *Sandboxes) Inject(op Op, err error, times int) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.inject[op] = append(s.w.inject[op], slices.Repeat([]error{err}, times)...)
}

// SetLead changes the lead time of sandboxes created from now on.
func (s *Sandboxes) SetLead(lead func(fleet.SandboxSpec) time.Duration) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.o.Lead = lead
}

// SetScript changes the task that later claims run.
func (s *Sandboxes) SetScript(script Script) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.o.Script = script
}

// Counts returns what happened so far.
func (s *Sandboxes) Counts() Counts {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	c := s.w.stats
	c.Live = len(s.w.boxes)
	return c
}

// Specs returns the specs of the sandboxes that exist, by id.
func (s *Sandboxes) Specs() []fleet.SandboxSpec {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	var out []fleet.SandboxSpec
	for _, id := range slices.Sorted(maps.Keys(s.w.boxes)) {
		out = append(out, s.w.boxes[id].spec)
	}
	return out
}

// Kill ends a sandbox by itself, as an out-of-memory kill or a lost node
// would: the task's sink hears Lost and Exited delivers the id.
func (s *Sandboxes) Kill(id fleet.SandboxID, reason fleet.TaskReason) {
	w := s.w
	w.mu.Lock()
	b := w.boxes[id]
	w.mu.Unlock()
	if b == nil {
		return
	}
	err := &fleet.ReasonError{Reason: reason, Err: errors.New("sandbox ended by itself")}
	switch b.end(err) {
	case stateStarting, stateEnded: // Create reports it, or it was announced
		return
	}
	w.announce(b, fleet.SandboxExit{ID: id, At: time.Now(), Reason: reason, Err: err})
}

// announce tells who holds the sandbox; after a restart the newest adapter,
// where none has adopted it.
func (w *world) announce(b *box, e fleet.SandboxExit) {
	holder, released := b.heldBy()
	if released {
		return
	}
	if holder == nil || holder.isClosed() {
		w.mu.Lock()
		holder = w.owner
		w.mu.Unlock()
	}
	holder.announce(e)
}

func (s *Sandboxes) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *Sandboxes) announce(e fleet.SandboxExit) {
	select {
	case <-s.closed:
		return
	default:
	}
	select {
	case s.exits <- e:
	default:
		s.pumps.Go(func() {
			select {
			case s.exits <- e:
			case <-s.closed:
			}
		})
	}
}

// enter refuses calls after Close and delivers injected errors.
func (s *Sandboxes) enter(ctx context.Context, op Op) error {
	select {
	case <-s.closed:
		return fmt.Errorf("%s: sandboxes are closed: %w", op, fleet.ErrUnavailable)
	default:
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if q := s.w.inject[op]; len(q) > 0 {
		s.w.inject[op] = q[1:]
		return fmt.Errorf("%s: %w", op, q[0])
	}
	return nil
}

// find returns the sandbox if it exists, has not ended and is not another's.
func (s *Sandboxes) find(id fleet.SandboxID) (*box, error) {
	s.w.mu.Lock()
	b := s.w.boxes[id]
	s.w.mu.Unlock()
	if b == nil || !b.alive() || !b.drivenBy(s) {
		return nil, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return b, nil
}

// Exited implements fleet.Sandboxes.
func (s *Sandboxes) Exited() <-chan fleet.SandboxExit { return s.exits }

// Close implements fleet.Sandboxes.
func (s *Sandboxes) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.pumps.Wait()
	return nil
}
