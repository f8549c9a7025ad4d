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

// ledger is what was charged.
type ledger struct {
	seq   int64
	state []byte
	books map[bookKey][]byte
	tasks map[fleet.TaskID]fleet.TaskCost
}

type bookKey struct {
	span fleet.BookSpan
	from int64 // nanoseconds since 1970
}

// LedgerState implements fleet.Ledger.
func (s *Store) LedgerState(ctx context.Context) (int64, []byte, error) {
	if err := s.begin(ctx, "LedgerState"); err != nil {
		return 0, nil, err
	}
	defer s.mu.Unlock()
	return s.ledger.seq, slices.Clone(s.ledger.state), nil
}

// Post implements fleet.Ledger.
func (s *Store) Post(ctx context.Context, p fleet.Posting) error {
	if err := s.begin(ctx, "Post"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	l := &s.ledger
	if p.Seq != l.seq+1 {
		return fmt.Errorf("posting %d after %d: %w", p.Seq, l.seq, fleet.ErrConflict)
	}
	if l.books == nil {
		l.books, l.tasks = map[bookKey][]byte{}, map[fleet.TaskID]fleet.TaskCost{}
	}
	l.seq, l.state = p.Seq, append([]byte{}, p.State...)
	for _, b := range p.Books {
		l.books[bookKey{b.Span, b.From.UnixNano()}] = append([]byte{}, b.Content...)
	}
	for _, t := range p.Tasks {
		t.Busy = t.Busy.Truncate(time.Millisecond)
		l.tasks[t.Task] = t
	}
	return nil
}

// Books implements fleet.Ledger.
func (s *Store) Books(ctx context.Context, span fleet.BookSpan, from, until time.Time) ([]fleet.Book, error) {
	if err := s.begin(ctx, "Books"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Book{}
	for k, content := range s.ledger.books {
		if at := time.Unix(0, k.from).UTC(); k.span == span && !at.Before(from) && at.Before(until) {
			out = append(out, fleet.Book{Span: span, From: at, Content: slices.Clone(content)})
		}
	}
	slices.SortFunc(out, func(a, b fleet.Book) int { return a.From.Compare(b.From) })
	return out, nil
}

// TaskCosts implements fleet.Ledger.
func (s *Store) TaskCosts(ctx context.Context, ids []fleet.TaskID) ([]fleet.TaskCost, error) {
	if err := s.begin(ctx, "TaskCosts"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.TaskCost{}
	for _, id := range ids {
		if t, ok := s.ledger.tasks[id]; ok {
			out = append(out, t)
		}
	}
	return out, nil
}

// DearestTasks implements fleet.Ledger.
func (s *Store) DearestTasks(ctx context.Context, from, until time.Time, limit int) ([]fleet.TaskCost, error) {
	if err := s.begin(ctx, "DearestTasks"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	first, last := fleet.FirstTaskID(from), fleet.FirstTaskID(until)
	out := []fleet.TaskCost{}
	for id, t := range s.ledger.tasks {
		if id >= first && id < last {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b fleet.TaskCost) int {
		return cmp.Or(cmp.Compare(b.MicroUSD, a.MicroUSD), cmp.Compare(a.Task, b.Task))
	})
	return out[:min(len(out), lifecycle.Limit(limit))], nil
}

// PruneLedger implements fleet.Ledger.
func (s *Store) PruneLedger(ctx context.Context, before time.Time) error {
	if err := s.begin(ctx, "PruneLedger"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for k := range s.ledger.books {
		if k.from < before.UnixNano() {
			delete(s.ledger.books, k)
		}
	}
	for id := range s.ledger.tasks {
		if id < fleet.FirstTaskID(before) {
			delete(s.ledger.tasks, id)
		}
	}
	return nil
}
