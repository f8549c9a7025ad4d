package ledger

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

const (
	// hourly is the longest time that a series shows hour by hour: a step is a
	// book to be read.
	hourly = 8 * 24 * time.Hour
	// mostDays bounds a series by days; books are kept as long.
	mostDays = 400
)

// Series says what the fleet has cost over time; zero times are the last 30
// days and now. Errors are a *fleet.FieldError, or the store's.
func (s *Service) Series(ctx context.Context, since, until time.Time) (fleet.CostSeries, error) {
	q := fleet.CostQuery{Since: since, Until: until}
	if err := s.complete(&q); err != nil {
		return fleet.CostSeries{}, err
	}
	span, step := fleet.BookHour, time.Hour
	if q.Until.Sub(q.Since) > hourly {
		span, step = fleet.BookDay, 24*time.Hour
		q.Since, q.Until = widen(q.Since, q.Until, step)
		if q.Until.Sub(q.Since) > mostDays*step {
			return fleet.CostSeries{}, &fleet.FieldError{Field: "since", Wrong: q.Since.Format(time.DateOnly) + " is more than 400 days before until", Right: "a later time"}
		}
	}
	books, err := s.o.Store.Books(ctx, span, q.Since, q.Until)
	if err != nil {
		return fleet.CostSeries{}, err
	}
	out := fleet.CostSeries{Since: q.Since, Until: q.Until, StepSeconds: step.Seconds(), Points: make([]fleet.CostPoint, 0, len(books))}
	for _, k := range books {
		b := cost.NewBook()
		if err := merge(b, k, false); err != nil {
			return fleet.CostSeries{}, err
		}
		if len(b.Lines) == 0 { // there was no node
			continue
		}
		out.Points = append(out.Points, b.Point(k.From))
	}
	return out, nil
}

// today is the present day; nil before anything was charged. It is read from
// the store, so that a control plane that does not charge knows it, too.
func (s *Service) today(ctx context.Context, began time.Time) (*fleet.CostToday, error) {
	now := s.now()
	midnight, hour := now.Truncate(24*time.Hour), now.Truncate(time.Hour)
	total := func(span fleet.BookSpan, from time.Time) (int64, bool, error) {
		found, err := s.o.Store.Books(ctx, span, from, from.Add(time.Second))
		if err != nil {
			return 0, false, fmt.Errorf("read the book of %s: %w", from.Format(time.RFC3339), err)
		}
		b := cost.NewBook()
		for _, k := range found {
			if err := merge(b, k, false); err != nil {
				return 0, false, err
			}
		}
		return int64(b.Total()), len(found) > 0, nil
	}
	spent, known, err := total(fleet.BookDay, midnight)
	if err != nil || !known {
		return nil, err
	}
	last, _, err := total(fleet.BookHour, hour.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	t := &fleet.CostToday{SpentMicroUSD: spent, ForeseenMicroUSD: foresee(now, began, spent, last)}
	for _, l := range s.budgets.Load().Limits {
		if l.Tenant == "" && l.Period == fleet.BudgetDay {
			t.BudgetMicroUSD = l.MicroUSD
		}
	}
	return t, nil
}

// foresee is what a day will have cost at midnight UTC, from what was spent of
// it and in the last full hour. A ledger that began within that hour has only
// the time since then to go by.
func foresee(now, began time.Time, spent, lastHour int64) int64 {
	midnight := now.UTC().Truncate(24 * time.Hour)
	rate := float64(lastHour)
	young := began.After(now.UTC().Truncate(time.Hour).Add(-time.Hour))
	if elapsed := now.Sub(later(midnight, began)).Hours(); (rate == 0 || young) && elapsed > 0 {
		rate = float64(spent) / elapsed
	}
	return spent + int64(rate*midnight.Add(24*time.Hour).Sub(now).Hours())
}
