package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"muster.dev/muster/internal/fleet"
)

// HeldMessages implements fleet.Messages.
func (s *Store) HeldMessages(ctx context.Context, queue string) ([]fleet.HeldMessage, error) {
	if err := s.begin(ctx, "HeldMessages"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.HeldMessage{}
	for _, m := range s.messages {
		if m.Queue == queue {
			m.State = s.tasks[m.Task].task.State
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b fleet.HeldMessage) int { return cmp.Compare(a.Task, b.Task) })
	return out, nil
}

// HoldMessage implements fleet.Messages.
func (s *Store) HoldMessage(ctx context.Context, m fleet.HeldMessage) error {
	if err := s.begin(ctx, "HoldMessage"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.tasks[m.Task] == nil {
		return fmt.Errorf("task %s: %w", m.Task, fleet.ErrNotFound)
	}
	s.messages[m.Task] = m
	return nil
}

// ReleaseMessage implements fleet.Messages.
func (s *Store) ReleaseMessage(ctx context.Context, id fleet.TaskID) error {
	if err := s.begin(ctx, "ReleaseMessage"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.messages, id)
	return nil
}
