package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// put stores a sandbox and tells who waits for that; the lock is held.
func (s *Store) put(sb fleet.Sandbox) {
	s.sandboxes[sb.Spec.ID] = sb
	poke(s.boxWatchers)
}

// SwapSandbox implements fleet.SharedRecords.
func (s *Store) SwapSandbox(ctx context.Context, sb fleet.Sandbox, state fleet.SandboxState, owner string) error {
	if err := s.begin(ctx, "SwapSandbox"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	stored, ok := s.sandboxes[sb.Spec.ID]
	if !ok {
		return fmt.Errorf("swap sandbox %s: %w", sb.Spec.ID, fleet.ErrNotFound)
	}
	if err := lifecycle.MaySwap(stored, sb, state, owner); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	s.put(lifecycle.CloneSandbox(lifecycle.CleanSandbox(sb)))
	return nil
}

// TakeOver implements fleet.SharedRecords.
func (s *Store) TakeOver(ctx context.Context, id fleet.SandboxID, from, to string) (fleet.Sandbox, fleet.Task, error) {
	if err := s.begin(ctx, "TakeOver"); err != nil {
		return fleet.Sandbox{}, fleet.Task{}, err
	}
	defer s.mu.Unlock()
	sb, ok := s.sandboxes[id]
	if !ok {
		return fleet.Sandbox{}, fleet.Task{}, fmt.Errorf("take over sandbox %s: %w", id, fleet.ErrNotFound)
	}
	if err := lifecycle.MayTake(sb, from); err != nil {
		return fleet.Sandbox{}, fleet.Task{}, fmt.Errorf("take over: %w", err)
	}
	var running fleet.Task
	if e := s.tasks[sb.Task]; e != nil && lifecycle.Inside(e.task, sb) {
		sb = lifecycle.TakenOver(sb, &e.task, to)
		running = lifecycle.CloneTask(e.task)
	} else {
		sb = lifecycle.TakenOver(sb, nil, to)
	}
	s.put(sb)
	return lifecycle.CloneSandbox(sb), running, nil
}

// WakeSandboxes implements fleet.SharedRecords.
func (s *Store) WakeSandboxes() (<-chan struct{}, func()) { return s.watch(s.boxWatchers) }

// watch adds a channel to those that are poked.
func (s *Store) watch(all map[chan struct{}]struct{}) (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := make(chan struct{}, 1)
	all[w] = struct{}{}
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(all, w)
	}
}

// poke wakes all who watch; the lock is held.
func poke(all map[chan struct{}]struct{}) {
	for w := range all {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// consumer is one that told of itself, and when.
type consumer struct {
	fleet.Consumer
	told time.Time
}

// PutConsumer implements fleet.Consumers.
func (s *Store) PutConsumer(ctx context.Context, c fleet.Consumer) error {
	if err := s.begin(ctx, "PutConsumer"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c.Name == "" {
		return fmt.Errorf("put consumer without a name: %w", fleet.ErrInvalid)
	}
	s.consumers[c.Name] = consumer{c, s.now()}
	return nil
}

// DeleteConsumer implements fleet.Consumers.
func (s *Store) DeleteConsumer(ctx context.Context, name string) error {
	if err := s.begin(ctx, "DeleteConsumer"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.consumers, name)
	return nil
}

// Consumers implements fleet.Consumers.
func (s *Store) Consumers(ctx context.Context) ([]fleet.Consumer, error) {
	if err := s.begin(ctx, "Consumers"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out, now := []fleet.Consumer{}, s.now()
	for _, c := range s.consumers {
		c.Age = max(0, now.Sub(c.told))
		out = append(out, c.Consumer)
	}
	slices.SortFunc(out, func(a, b fleet.Consumer) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
