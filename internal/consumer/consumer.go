package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
)

const (
	beatEvery  = 3 * time.Second
	asideAfter = 12 * time.Second // before fleet.ConsumerSilence
	turnEvery  = time.Second
	lookEvery  = 5 * time.Second // at the records, where nothing wakes it
	callTime   = 5 * time.Second // one call of the store
	takes      = 32              // sandboxes being taken over at once
)

// Config is what a Consumer works with; every field is needed unless said.
type Config struct {
	Store     fleet.Store
	Queue     fleet.Queue
	Archive   fleet.Archive
	Sandboxes fleet.Sandboxes   // a fleet.Releaser
	Secrets   fleet.Secrets     // nil: no task may name one
	Name      string            // unique over time: a process that starts again has another
	Address   string            // host:port for runners and the API
	Logger    *slog.Logger      // default: discard
	Clock     func() time.Time  // default: time.Now
	Observe   dispatch.Observer // hears of starts and ends too; may be nil
	Traced    bool              // see dispatch.Config
	// Visibility, Grace: see dispatch.Config.
	Visibility, Grace time.Duration
	// ParallelStarts bounds sandboxes that are being created at once; default
	// eight for every core.
	ParallelStarts int
	// Handover is how long a consumer that is asked to end waits for others to
	// take over what it has; default 30 s.
	Handover time.Duration
}

func (c *Config) complete() error {
	if c.Store == nil || c.Queue == nil || c.Archive == nil || c.Sandboxes == nil || c.Name == "" {
		return errors.New("consumer: store, queue, archive, sandboxes and a name are needed")
	}
	if _, ok := c.Sandboxes.(fleet.Releaser); !ok {
		return fmt.Errorf("consumer: sandboxes of %T cannot be let go of one by one", c.Sandboxes)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.ParallelStarts <= 0 {
		c.ParallelStarts = 8 * runtime.GOMAXPROCS(0)
	}
	if c.Handover <= 0 {
		c.Handover = 30 * time.Second
	}
	return nil
}

// Consumer drives the sandboxes it owns.
type Consumer struct {
	c        Config
	registry *dispatch.Registry
	dispatch *dispatch.Dispatcher
	events   *dispatch.Scribe
	slots    chan struct{} // one for every start under way
	taking   chan struct{} // one for every take-over under way
	counts   counts
	wg       sync.WaitGroup

	told    time.Time // when the last heartbeat was written; the loop's own
	leaving bool      // likewise
	halted  bool      // likewise

	mu   sync.Mutex
	busy map[fleet.SandboxID]*work
	over map[fleet.SandboxID]time.Time // ended here lately
}

// work is what is under way for one sandbox.
type work struct {
	cancel  context.CancelFunc
	ordered string // why it shall end instead
}

// New returns a Consumer; Run starts it.
func New(c Config) (*Consumer, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	o := &Consumer{
		c: c, registry: dispatch.NewSharedRegistry(c.Store), events: dispatch.NewScribe(c.Store, c.Logger),
		slots: make(chan struct{}, c.ParallelStarts), taking: make(chan struct{}, takes),
		busy: map[fleet.SandboxID]*work{}, over: map[fleet.SandboxID]time.Time{},
	}
	o.dispatch = dispatch.New(dispatch.Config{
		Tasks: c.Store, Records: c.Store, Journal: o.events, Queue: c.Queue, Archive: c.Archive, Sandboxes: c.Sandboxes,
		Secrets: c.Secrets, Registry: o.registry, Logger: c.Logger, Clock: c.Clock, Consumer: c.Name,
		Visibility: c.Visibility, Grace: c.Grace, Observe: observer{o}, Costs: c.Store.TaskCosts, Traced: c.Traced,
	})
	return o, nil
}

// Dispatcher returns the dispatcher, for those who wire the API.
func (o *Consumer) Dispatcher() *dispatch.Dispatcher { return o.dispatch }

// Owned counts the sandboxes it has.
func (o *Consumer) Owned() int { return len(o.registry.AppendTo(nil)) }

// Run drives sandboxes until ctx ends; then it leases nothing more, says so,
// and waits until others have taken over what it has, at most for
// Config.Handover. Sandboxes and their tasks outlive it in any case.
func (o *Consumer) Run(ctx context.Context) error {
	// What it does outlives ctx, for the hand-over.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go o.events.Run(context.WithoutCancel(ctx))
	defer o.events.Close()
	wake, release := o.c.Store.WakeSandboxes()
	defer release()
	o.told = o.c.Clock()
	o.wg.Go(func() { _ = o.dispatch.Run(life) }) // never fails
	o.wg.Go(func() { o.watchExits(life) })
	defer o.wg.Wait()
	defer end()

	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	asked := ctx.Done()
	var deadline <-chan time.Time
	var beat, looked time.Time
	for woken := true; ; {
		if now := o.c.Clock(); now.Sub(beat) >= beatEvery || now.Before(beat) {
			beat = now
			o.beat(life)
		}
		if began := o.c.Clock(); woken || began.Sub(looked) >= lookEvery || began.Before(looked) {
			if o.look(life) {
				looked = began
			}
			// Reading takes a small part of the time only, however many records there are.
			o.pause(life, max(10*time.Millisecond, 4*o.c.Clock().Sub(began)))
		}
		if o.leaving && o.Owned() == 0 {
			break
		}
		woken = false
		select {
		case <-asked:
			asked, beat, woken = nil, time.Time{}, true
			o.leaving = true
			o.dispatch.Halt()
			t := time.NewTimer(o.c.Handover)
			defer t.Stop()
			deadline = t.C
			continue
		case <-deadline:
			o.c.Logger.Warn("not everything was taken over; the leader will find it", "sandboxes", o.Owned())
		case <-wake:
			woken = true
			continue
		case <-tick.C:
			continue
		}
		break
	}
	bye, cancel := context.WithTimeout(life, callTime)
	defer cancel()
	if err := o.c.Store.DeleteConsumer(bye, o.c.Name); err != nil {
		return fmt.Errorf("say good-bye: %w", err)
	}
	return nil
}

func (o *Consumer) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// beat tells of itself, and hears what is asked of all.
func (o *Consumer) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	leased, p99 := o.counts.read()
	err := o.c.Store.PutConsumer(ctx, fleet.Consumer{
		Name: o.c.Name, Address: o.c.Address, Leaving: o.leaving, Leased: leased, Running: o.dispatch.Active(), ClaimP99: p99,
	})
	now := o.c.Clock()
	if err == nil {
		o.told = now
	} else {
		o.c.Logger.Warn("cannot tell the store of this consumer", "error", err)
		if now.Sub(o.told) > asideAfter {
			o.stepAside(ctx)
			return
		}
	}
	halt, err := o.c.Store.Setting(ctx, fleet.SettingConsumersHalt)
	if err == nil && !o.leaving {
		if h := string(halt) == "1"; h != o.halted {
			o.halted = h
			if h {
				o.dispatch.Halt()
			} else {
				o.dispatch.Resume()
			}
		}
	}
	if err := o.dispatch.HearCancelled(ctx); err != nil {
		o.c.Logger.Debug("cannot read which tasks were cancelled; trying again", "error", err)
	}
}

// stepAside lets go of everything: the leader is giving it to others.
func (o *Consumer) stepAside(ctx context.Context) {
	all := o.registry.Snapshot()
	if len(all) > 0 {
		o.c.Logger.Error("the store is out of reach; letting go of the sandboxes, whose tasks go on", "sandboxes", len(all))
	}
	for i := range all {
		o.dispatch.Yield(ctx, all[i].Spec.ID)
	}
}
