package ledger

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

const (
	day = 24 * time.Hour
	// pastSpan is what is told unless asked otherwise.
	pastSpan = 90 * day
	// mostHourly bounds steps of hours: each is a book to be read by itself.
	mostHourly = 100 * day
	// mostPoints bounds the points of one Past.
	mostPoints = 1000
)

// pastSteps are those chosen among, each up to the time that gives few points
// that still tell day from night where they can.
var pastSteps = []struct{ upTo, step time.Duration }{
	{16 * day, time.Hour}, {32 * day, 2 * time.Hour}, {mostHourly, 6 * time.Hour}, {mostDays * day, day},
}

// Past says what the fleet was over weeks and months. Errors are a
// *fleet.FieldError, or the store's.
func (s *Service) Past(ctx context.Context, q fleet.PastQuery) (fleet.Past, error) {
	if err := s.completePast(&q); err != nil {
		return fleet.Past{}, err
	}
	st, err := s.posted(ctx)
	if err != nil {
		return fleet.Past{}, err
	}
	span := fleet.BookDay
	if q.Step < day {
		span = fleet.BookHour
	}
	books, err := s.o.Store.Books(ctx, span, q.Since, q.Until)
	if err != nil {
		return fleet.Past{}, err
	}
	out := fleet.Past{Since: q.Since, Until: q.Until, StepSeconds: q.Step.Seconds(), Began: st.Began, KnownTo: st.charged(), Points: []fleet.PastPoint{}}
	known := cost.Span{From: st.Began, To: out.KnownTo}
	for i := 0; i < len(books); {
		step := cost.Span{From: q.Since.Add(books[i].From.Sub(q.Since).Truncate(q.Step))}
		step.To = step.From.Add(q.Step)
		b := cost.NewBook()
		for ; i < len(books) && books[i].From.Before(step.To); i++ {
			if err := merge(b, books[i], false); err != nil {
				return fleet.Past{}, err
			}
		}
		if p, ok := b.Past(step, known); ok {
			out.Points = append(out.Points, p)
		}
	}
	return out, nil
}

// completePast fills in and checks a query.
func (s *Service) completePast(q *fleet.PastQuery) error {
	if err := s.bound(&q.Since, &q.Until, pastSpan); err != nil {
		return err
	}
	whole := q.Until.Sub(q.Since)
	if whole > mostDays*day {
		return &fleet.FieldError{Field: "since", Wrong: q.Since.Format(time.DateOnly) + " is more than 400 days before until", Right: "a later time"}
	}
	for _, c := range pastSteps {
		if q.Step == 0 && whole <= c.upTo {
			q.Step = c.step
		}
	}
	switch {
	case q.Step < time.Hour || q.Step%time.Hour != 0 || q.Step < day && day%q.Step != 0 || q.Step > day && q.Step%day != 0 || q.Step > mostDays*day:
		return &fleet.FieldError{Field: "step", Wrong: q.Step.String() + " is not allowed", Right: "1h, 2h, 3h, 4h, 6h, 8h, 12h, or whole days as 24h or 168h, up to 9600h"}
	case q.Step < day && whole > mostHourly:
		return &fleet.FieldError{Field: "step", Wrong: "hours are told of at most 100 days at once", Right: "24h or more, or a shorter time"}
	case whole/q.Step > mostPoints:
		return &fleet.FieldError{Field: "step", Wrong: fmt.Sprintf("%s gives more than %d points", q.Step, mostPoints), Right: "a longer step, or a shorter time"}
	}
	q.Since, q.Until = widen(q.Since, q.Until, q.Step)
	return nil
}

// quiet puts an hour without a node on record, once, so that it is told from
// one in which nobody looked: the fleet had nothing, and that is known.
func (s *Service) quiet(ctx context.Context, at time.Time) error {
	hour := cost.HourOf(at)
	if len(s.m.state.Lives) > 0 || hour == s.m.empty || at.Before(s.m.state.Began) {
		return nil
	}
	books, err := s.both(ctx, at)
	if err != nil {
		return err
	}
	for _, b := range books {
		b.Add(hour, cost.Hour{})
	}
	s.m.empty = hour
	return nil
}
