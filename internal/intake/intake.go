package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Config is what a Queue works with; every field is needed unless said.
type Config struct {
	Name     string // of the outside queue in the fleet; part of what the store keeps
	Source   fleet.Source
	Embedded fleet.Queue
	Tasks    fleet.Tasks
	Messages fleet.Messages
	Journal  fleet.Journal
	// Decode makes a task of a message. An error that wraps fleet.ErrInvalid
	// sends the message to the dead letters with its text; after any other the
	// message goes back to the queue.
	Decode func(fleet.Message) (fleet.Task, error)
	// Pool is the pool that messages are taken to be for until some were read.
	Pool fleet.PoolKey
	// Visibility is how long a message is leased without being extended; default
	// 1 min. It is extended three times in that span.
	Visibility time.Duration
	// MaxDeliveries is how often a message may be delivered without becoming a
	// task before it is set aside; default 5.
	MaxDeliveries int
	// DeadLetterFailed sets messages aside whose task did not succeed, in place
	// of acknowledging them; those cancelled are acknowledged all the same.
	DeadLetterFailed bool
	Logger           *slog.Logger     // default: discard
	Clock            func() time.Time // default: time.Now
}

// Queue implements fleet.Compound: the embedded queue and the outside one.
type Queue struct {
	Config
	traits fleet.SignalTraits
	wake   chan struct{}
	fetch  chan struct{} // something may be there to be taken
	read   chan struct{} // read the signals soon
	settle chan struct{} // a task became final

	io sync.Mutex // readings and takings come one after another

	mu     sync.Mutex
	held   map[fleet.TaskID]*held
	byName map[string][]*held
	// unleased are tasks made from messages that wait for a sandbox.
	unleased map[fleet.TaskID]bool
	// early are tasks that were leased, or are over (then not nil), before their
	// submission returned: a task may start while it is being written to disk.
	early   map[fleet.TaskID]*fleet.Task
	want    int       // sandboxes that are free beyond what is queued
	wantAt  time.Time // as of
	reading fleet.QueueReading
	raw     fleet.SignalStats
	guess   estimate
	mix     mix
	arrived map[fleet.PoolKey]int64 // as last told; never falls
	tookBy  map[fleet.PoolKey]int64 // messages that became tasks
	// received and settled count messages taken, less those given back, and
	// those settled for good.
	received, settled int64
}

// held is a message that became a task.
type held struct {
	task     fleet.TaskID
	name     string
	msg      fleet.Message
	attached bool // we have its lease, as far as we know
	final    bool
	success  bool // with final: acknowledge rather than set aside
	why      string
	retry    time.Time // when to try again to settle
	since    time.Time // final and detached since
}

// New returns a Queue; Run does its work.
func New(c Config) (*Queue, error) {
	if c.Source == nil || c.Embedded == nil || c.Tasks == nil || c.Messages == nil || c.Journal == nil || c.Decode == nil || c.Name == "" {
		return nil, errors.New("intake: name, source, embedded queue, tasks, messages, journal and decode are needed")
	}
	if c.Visibility <= 0 {
		c.Visibility = time.Minute
	}
	if c.MaxDeliveries <= 0 {
		c.MaxDeliveries = 5
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	q := &Queue{
		Config: c, traits: c.Source.Traits(), wake: make(chan struct{}, 1), fetch: make(chan struct{}, 1),
		read: make(chan struct{}, 1), settle: make(chan struct{}, 1),
		held: map[fleet.TaskID]*held{}, byName: map[string][]*held{}, unleased: map[fleet.TaskID]bool{}, early: map[fleet.TaskID]*fleet.Task{},
		arrived: map[fleet.PoolKey]int64{}, tookBy: map[fleet.PoolKey]int64{}, mix: mix{first: c.Pool},
	}
	q.reading = fleet.QueueReading{Name: c.Name, Err: fmt.Errorf("not read yet: %w", fleet.ErrUnavailable)}
	return q, nil
}

// Run does the work until ctx ends, then lets what runs go on: the leases of
// its messages end unless another process holds them on in time.
func (q *Queue) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { q.forward(ctx) })
	for !q.load(ctx) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	wg.Go(func() { readLoop(ctx, clocked{paceOf(q.traits), q.Clock}, q.read, q.readOnce) })
	// What is held already is claimed before anything is taken: a message whose
	// lease ran out meanwhile would otherwise come as a new delivery.
	q.extendAll(ctx)
	wg.Go(func() { q.fetchLoop(ctx) })
	wg.Go(func() { q.extendLoop(ctx) })
	wg.Go(func() { q.settleLoop(ctx) })
	<-ctx.Done()
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// forward passes wakes of both queues on; those of the outside one also make
// us look there.
func (q *Queue) forward(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.Embedded.Wake():
			poke(q.wake)
		case <-q.Source.Wake(): // nil blocks for ever
			poke(q.fetch)
			poke(q.read)
		}
	}
}

// load takes up what an earlier process held; false when it cannot be read.
func (q *Queue) load(ctx context.Context) bool {
	all, err := q.Messages.HeldMessages(ctx, q.Name)
	if err != nil {
		if ctx.Err() == nil {
			q.Logger.Error("cannot read which messages are held; trying again", "queue", q.Name, "error", err)
		}
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range all {
		h := &held{task: m.Task, name: m.Message, attached: q.traits.Durable, msg: fleet.Message{Receipt: m.Receipt}}
		if q.traits.Names {
			h.msg.ID = m.Message
		}
		if m.State == fleet.TaskQueued {
			q.unleased[m.Task] = true
		}
		q.add(h)
	}
	return true
}

// add files a held message; the lock must be held.
func (q *Queue) add(h *held) {
	q.held[h.task] = h
	q.byName[h.name] = append(q.byName[h.name], h)
}

// Stats implements fleet.Queue. It fails only where nothing can be read.
func (q *Queue) Stats(ctx context.Context) (fleet.QueueStats, error) {
	return fleet.SumReadings(q.Readings(ctx))
}

// Readings implements fleet.Compound: the embedded queue, then the outside one.
func (q *Queue) Readings(ctx context.Context) []fleet.QueueReading {
	st, err := q.Embedded.Stats(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	return []fleet.QueueReading{{Name: "embedded", Stats: st, Err: err}, q.reading}
}

// Extend implements fleet.Queue. The lease of the message outside is extended
// apart from it.
func (q *Queue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	return q.Embedded.Extend(ctx, l, d)
}

// Ack implements fleet.Queue.
func (q *Queue) Ack(ctx context.Context, l fleet.Lease) error { return q.Embedded.Ack(ctx, l) }

// Nack implements fleet.Queue: the task waits in the embedded queue, and its
// message stays leased.
func (q *Queue) Nack(ctx context.Context, l fleet.Lease, delay time.Duration, why string) error {
	return q.Embedded.Nack(ctx, l, delay, why)
}

// DeadLetter implements fleet.Queue.
func (q *Queue) DeadLetter(ctx context.Context, l fleet.Lease, why string) error {
	return q.Embedded.DeadLetter(ctx, l, why)
}

// Wake implements fleet.Queue.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// mostEarly bounds what is remembered of tasks whose submission never returned.
const mostEarly = 4096

// came notes a task that is leased or over and is not on our books yet; the lock
// must be held.
func (q *Queue) came(t, over *fleet.Task) {
	if o := t.Spec.Origin; o == nil || o.Queue != q.Name || q.held[t.ID] != nil {
		return
	}
	if len(q.early) >= mostEarly {
		clear(q.early)
	}
	q.early[t.ID] = over
}

// Lease implements fleet.Queue. Only tasks of the embedded queue are leased; what
// is free beyond them lets as many messages become tasks, soon after. A request
// without Claim offers no sandbox and takes nothing from outside.
func (q *Queue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	got, err := q.Embedded.Lease(ctx, r)
	free := -len(got)
	for _, n := range r.Slots {
		free += n
	}
	q.mu.Lock()
	for _, d := range got {
		delete(q.unleased, d.Task.ID)
		q.came(&d.Task, nil)
	}
	if err != nil || r.Claim == nil {
		q.mu.Unlock()
		return got, err
	}
	more := free > q.want
	q.want, q.wantAt = max(0, free), q.Clock()
	q.mu.Unlock()
	if more {
		poke(q.fetch)
	}
	return got, nil
}
