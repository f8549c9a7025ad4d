package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// Store is what the ledger reads and writes.
type Store interface {
	fleet.Ledger
	Sandboxes(ctx context.Context, goneSince time.Time) ([]fleet.Sandbox, error)
	Task(ctx context.Context, id fleet.TaskID) (fleet.Task, error)
	Tasks(ctx context.Context, f fleet.TaskFilter) ([]fleet.Task, error)
}

// Options are what a Service works with.
type Options struct {
	Store  Store
	Nodes  func(ctx context.Context) ([]fleet.Node, error) // every node, booting ones included
	Fleet  string                                          // its name
	Tariff cost.Tariff
	Labels []string // of tasks, by which charges are kept, beside team and project
	Budget Budgets
	// Events takes warnings of budgets; may be nil.
	Events func(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error)
	// Hold is told, whenever that changes, of which tenants nothing is to be
	// started any more, since their money is used up; after an error it is told again. May be nil.
	Hold func(context.Context, []fleet.TenantID) error
	// Charged hears of each step once it is written down, and must not block;
	// may be nil.
	Charged func(fleet.Charged)

	Logger *slog.Logger     // default: discard
	Clock  func() time.Time // default: time.Now
	// Look is how often nodes are looked at, default 1 s; Every how often is
	// charged, default 10 s; Lag how far behind, so that what happened is on
	// record by then, default 5 s.
	Look, Every, Lag time.Duration
	Keep             time.Duration // how long books are kept; default 400 days
}

// Service charges one fleet. One at a time should run; of two, what one has
// charged the other does not.
type Service struct {
	o Options

	mu      sync.Mutex // guards what follows
	m       *mind      // nil: to be loaded
	tariff  cost.Tariff
	labels  []string
	next    *change
	marks   []mark                    // what tenants had been charged, of late
	held    map[fleet.TenantID]string // with the reason
	told    bool                      // Options.Hold has been
	dirty   bool                      // the state changed, without a charge
	last    time.Time
	counted int64 // the posting that the tally is of
	pruned  time.Time
	here    map[fleet.SandboxID]bool // of the last charge
	busy    map[fleet.TaskID]bool    // likewise
	warned  bool

	tally   atomic.Pointer[tally]                     // nil: nothing is known yet
	budgets atomic.Pointer[Budgets]                   // in force
	holds   atomic.Pointer[map[fleet.TenantID]string] // held, for others
}

// change is a price list that is to come into force.
type change struct {
	tariff cost.Tariff
	labels []string
}

// New returns a Service; Run makes it charge.
func New(o Options) *Service {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	for _, d := range []struct {
		to        *time.Duration
		otherwise time.Duration
	}{{&o.Look, time.Second}, {&o.Every, 10 * time.Second}, {&o.Lag, 5 * time.Second}, {&o.Keep, 400 * 24 * time.Hour}} {
		if *d.to <= 0 {
			*d.to = d.otherwise
		}
	}
	s := &Service{o: o, tariff: o.Tariff, labels: names(o.Labels)}
	s.setBudgets(o.Budget)
	return s
}

// names are the labels that charges are kept by.
func names(more []string) []string {
	all := append([]string{"team", "project"}, more...)
	slices.Sort(all)
	return slices.Compact(all)
}

// SetTariff brings another price list into force: what was until now is charged
// by the old one, within the next look.
func (s *Service) SetTariff(t cost.Tariff, labels []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = &change{t, names(labels)}
}

// Run charges until ctx ends. It does not fail: what cannot be read or written
// is tried again.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(s.o.Look)
	defer tick.Stop()
	failing := false
	for {
		err := s.Step(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			s.o.Logger.Warn("cannot charge what the fleet costs; nothing is lost, it is tried again", "error", err)
		case err == nil && failing:
			s.o.Logger.Info("what the fleet costs is charged again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.m != nil {
				if err := s.settleUp(bounded, s.now().Add(-s.o.Lag)); err != nil {
					s.o.Logger.Info("the last seconds are charged by the next start", "error", err)
				}
			}
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) now() time.Time { return s.o.Clock().Round(0).UTC() }

// Step looks once, and charges when it is time.
func (s *Service) Step(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		if err := s.load(ctx); err != nil {
			return err
		}
		s.last = time.Time{}
	}
	nodes, err := s.o.Nodes(ctx)
	now := s.now()
	if err == nil {
		s.dirty = s.watch(now, nodes) || s.dirty
	}
	// Nodes that cannot be read go on as they were.
	if err = errors.Join(err, s.reprice(ctx, now)); s.m == nil {
		return err
	}
	if due := now.Sub(s.last); due >= s.o.Every || due < 0 {
		s.last = now
		err = errors.Join(err, s.settleUp(ctx, now.Add(-s.o.Lag)), s.prune(ctx, now))
	}
	if s.m != nil && s.dirty {
		err = errors.Join(err, s.settled(s.post(ctx)))
	}
	if s.m != nil && (s.counted != s.m.seq || s.tally.Load() == nil) {
		if err2 := s.count(ctx, now); err2 != nil {
			return errors.Join(err, s.settled(err2))
		}
		s.counted = s.m.seq
	}
	return errors.Join(err, s.keep(ctx, now))
}

// settleUp charges up to a moment and writes it down.
func (s *Service) settleUp(ctx context.Context, to time.Time) error {
	err := s.charge(ctx, to)
	if err == nil {
		err = s.quiet(ctx, to)
	}
	if err == nil {
		err = s.post(ctx)
	}
	if err == nil {
		s.forget(to)
		s.warn()
	}
	return s.settled(err)
}

// settled drops what is known after an error.
func (s *Service) settled(err error) error {
	if err != nil {
		s.m = nil
	}
	return err
}

// reprice brings a price list into force.
func (s *Service) reprice(ctx context.Context, now time.Time) error {
	if s.next == nil || s.m == nil {
		return nil
	}
	if err := s.settleUp(ctx, now); err != nil {
		return err
	}
	s.tariff, s.labels, s.next, s.warned = s.next.tariff, s.next.labels, nil, false
	clear(s.m.dims)
	for _, l := range s.m.state.Lives {
		s.price(l, l.Kind)
	}
	return nil
}

// warn says once that nodes have no price.
func (s *Service) warn() {
	if s.warned {
		return
	}
	for _, l := range s.m.state.Lives {
		if k := l.Kind; len(s.tariff) > 0 && !s.tariff.Knows(k, l.Charged) {
			s.warned = true
			s.o.Logger.Warn("no price is known for a node; it counts as nothing", "node", l.Node.ID,
				"group", k.Group, "instanceType", k.InstanceType, "capacity", k.Capacity)
			return
		}
	}
}

// prune deletes what is too old, once a day.
func (s *Service) prune(ctx context.Context, now time.Time) error {
	if s.m == nil || now.Sub(s.pruned) < 24*time.Hour {
		return nil
	}
	s.pruned = now
	if err := s.o.Store.PruneLedger(ctx, now.Add(-s.o.Keep).Truncate(24*time.Hour)); err != nil {
		return fmt.Errorf("prune the ledger: %w", err)
	}
	return nil
}
