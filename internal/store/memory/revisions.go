package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// AppendRevision implements fleet.Revisions.
func (s *Store) AppendRevision(ctx context.Context, r fleet.Revision) (fleet.Revision, bool, error) {
	if err := s.begin(ctx, "AppendRevision"); err != nil {
		return fleet.Revision{}, false, err
	}
	defer s.mu.Unlock()
	if len(r.Spec) == 0 {
		return fleet.Revision{}, false, fmt.Errorf("append a revision without a specification: %w", fleet.ErrInvalid)
	}
	if n := len(s.revisions); n > 0 && bytes.Equal(s.revisions[n-1].Spec, r.Spec) {
		return lifecycle.CloneRevision(s.revisions[n-1]), false, nil
	}
	r = lifecycle.CloneRevision(r)
	r.Number, r.At = int64(len(s.revisions)+1), lifecycle.Clean(r.At)
	s.revisions = append(s.revisions, r)
	return lifecycle.CloneRevision(r), true, nil
}

// Revision implements fleet.Revisions.
func (s *Store) Revision(ctx context.Context, number int64) (fleet.Revision, error) {
	if err := s.begin(ctx, "Revision"); err != nil {
		return fleet.Revision{}, err
	}
	defer s.mu.Unlock()
	if number < 1 || number > int64(len(s.revisions)) {
		return fleet.Revision{}, fmt.Errorf("revision %d: %w", number, fleet.ErrNotFound)
	}
	return lifecycle.CloneRevision(s.revisions[number-1]), nil
}

// Revisions implements fleet.Revisions.
func (s *Store) Revisions(ctx context.Context, f fleet.RevisionFilter) ([]fleet.Revision, error) {
	if err := s.begin(ctx, "Revisions"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Revision{}
	for _, r := range slices.Backward(s.revisions) {
		if (f.Before == 0 || r.Number < f.Before) && len(out) < lifecycle.Limit(f.Limit) {
			out = append(out, lifecycle.CloneRevision(r))
		}
	}
	return out, nil
}
