package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// longest bounds a report by task, and one as FOCUS: they read each row, or each
// hour, by itself.
const longest = 31 * 24 * time.Hour

// splits are what a report can be split by, beside labels.
var splits = []string{"tenant", "team", "project", "template", "task", "node", "hour"}

// posted is the state of the last posting.
func (s *Service) posted(ctx context.Context) (state, error) {
	var st state
	seq, b, err := s.o.Store.LedgerState(ctx)
	if err != nil || seq == 0 {
		return st, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("read the ledger's state: %w: %w", fleet.ErrCorrupt, err)
	}
	return st, nil
}

// charged is up to when everything is charged.
func (st *state) charged() time.Time {
	at := st.Looked
	for _, l := range st.Lives {
		if l.Charged.Before(at) {
			at = l.Charged
		}
	}
	return at
}

// complete fills in and checks a query.
func (s *Service) complete(q *fleet.CostQuery) error {
	if err := s.bound(&q.Since, &q.Until, 30*day); err != nil {
		return err
	}
	q.Since, q.Until = widen(q.Since, q.Until, time.Hour)
	return s.knows(q.By)
}

// bound fills in and checks the times of a query; whole is how long it is about
// unless it says so.
func (s *Service) bound(since, until *time.Time, whole time.Duration) error {
	if now := s.now(); until.IsZero() || until.After(now) {
		*until = now
	}
	if since.IsZero() {
		*since = until.Add(-whole)
	}
	if !since.Before(*until) {
		return &fleet.FieldError{Field: "since", Wrong: since.Format(time.RFC3339) + " is not before until, " + until.Format(time.RFC3339), Right: "an earlier time"}
	}
	return nil
}

// widen is a time in full steps of UTC that has all of another. Truncate counts
// from the year 1, a Monday: a step of a week begins on one.
func widen(since, until time.Time, step time.Duration) (from, to time.Time) {
	if to = until.UTC().Truncate(step); to.Before(until) {
		to = to.Add(step)
	}
	return since.UTC().Truncate(step), to
}

// merge adds a book as it is kept to another.
func merge(b *cost.Book, k fleet.Book, nodes bool) error {
	if err := b.MergeEncoded(k.Content, nodes); err != nil {
		return fmt.Errorf("book of %s: %w", k.From.Format(time.RFC3339), err)
	}
	return nil
}

// knows checks what a report is to be split by.
func (s *Service) knows(by string) error {
	if by == "" || slices.Contains(splits, by) {
		return nil
	}
	name, is := strings.CutPrefix(by, "label:")
	if !is {
		return &fleet.FieldError{Field: "by", Wrong: fmt.Sprintf("%q is unknown", by), Right: strings.Join(splits, ", ") + " or label:KEY"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.labels, name) {
		return &fleet.FieldError{Field: "by", Wrong: fmt.Sprintf("charges are not kept by the label %q", name), Right: "one of " + strings.Join(s.labels, ", ") + "; add it to spec.cost.labels for what comes"}
	}
	return nil
}

// Report says what the fleet has cost. Errors are a *fleet.FieldError of the
// query, or the store's.
func (s *Service) Report(ctx context.Context, q fleet.CostQuery) (fleet.CostReport, error) {
	if err := s.complete(&q); err != nil {
		return fleet.CostReport{}, err
	}
	st, err := s.posted(ctx)
	if err != nil {
		return fleet.CostReport{}, err
	}
	b, err := s.sum(ctx, q.Since, q.Until, q.By == "node")
	if err != nil {
		return fleet.CostReport{}, err
	}
	known := cost.Span{From: later(q.Since, st.Began), To: q.Until}
	if c := st.charged(); c.Before(known.To) {
		known.To = c
	}
	r := b.Report(q, known)
	r.Began, r.ChargedTo, r.Budgets = st.Began, st.charged(), s.Budgets()
	if r.Today, err = s.today(ctx, st.Began); err != nil {
		return fleet.CostReport{}, err
	}
	if q.By == "task" {
		if r.Groups, err = s.dearest(ctx, q); err != nil {
			return fleet.CostReport{}, err
		}
	}
	return r, nil
}

func (s *Service) dearest(ctx context.Context, q fleet.CostQuery) ([]fleet.CostGroup, error) {
	if q.Until.Sub(q.Since) > longest+time.Hour {
		return nil, &fleet.FieldError{Field: "since", Wrong: "by task, the time is longer than 31 days", Right: "a shorter one"}
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 1000
	}
	tasks, err := s.o.Store.DearestTasks(ctx, q.Since, q.Until, limit)
	if err != nil {
		return nil, err
	}
	groups := cost.TaskGroups(tasks)
	return groups, s.describe(ctx, groups)
}

// sum adds up the books of [from, until): whole days, and the hours beside
// them; nodes only where they are wanted.
func (s *Service) sum(ctx context.Context, from, until time.Time, nodes bool) (*cost.Book, error) {
	b := cost.NewBook()
	add := func(span fleet.BookSpan, from, until time.Time) error {
		if !from.Before(until) {
			return nil
		}
		books, err := s.o.Store.Books(ctx, span, from, until)
		if err != nil {
			return err
		}
		for _, k := range books {
			if err := merge(b, k, nodes); err != nil {
				return err
			}
		}
		return nil
	}
	first, last := from.Add(day-1).Truncate(day), until.Truncate(day)
	if !first.Before(last) {
		return b, add(fleet.BookHour, from, until)
	}
	if err := add(fleet.BookHour, from, first); err != nil {
		return nil, err
	}
	if err := add(fleet.BookDay, first, last); err != nil {
		return nil, err
	}
	return b, add(fleet.BookHour, last, until)
}

// TaskCost is what a task has cost so far; ErrNotFound where nothing was
// charged to it.
func (s *Service) TaskCost(ctx context.Context, id fleet.TaskID) (fleet.TaskCost, error) {
	found, err := s.o.Store.TaskCosts(ctx, []fleet.TaskID{id})
	if err != nil {
		return fleet.TaskCost{}, err
	}
	if len(found) == 0 {
		return fleet.TaskCost{}, fmt.Errorf("the cost of task %s: %w", id, fleet.ErrNotFound)
	}
	return found[0], nil
}

// Focus writes the hours of a query as a FOCUS table.
func (s *Service) Focus(ctx context.Context, q fleet.CostQuery, to io.Writer) error {
	q.By = ""
	if err := s.complete(&q); err != nil {
		return err
	}
	if q.Until.Sub(q.Since) > longest+time.Hour {
		return &fleet.FieldError{Field: "since", Wrong: "as FOCUS, the time is longer than 31 days", Right: "a month at a time"}
	}
	books, err := s.o.Store.Books(ctx, fleet.BookHour, q.Since, q.Until)
	if err != nil {
		return err
	}
	f, err := cost.NewFocus(to, s.o.Fleet)
	if err != nil {
		return err
	}
	for _, k := range books {
		b := cost.NewBook()
		if err := merge(b, k, false); err != nil {
			return err
		}
		if err := f.Hour(k.From, b); err != nil {
			return err
		}
	}
	return f.Close()
}
