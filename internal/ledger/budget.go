package ledger

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// Budget bounds what a fleet may cost in a day of UTC, in micro-USD; 0 is no
// bound. The ledger
// only warns: what is started is the planner's to decide.
type Budget struct {
	PerDay int64
}

// thresholds are the shares of a budget at which is warned, in percent.
var thresholds = []int{50, 80, 100}

// warned is what was warned of last, so that a restart does not do so again.
type warned struct {
	Day     time.Time `json:"day,omitzero"` // midnight UTC
	Percent int       `json:"percent,omitempty"`
	Ahead   bool      `json:"ahead,omitempty"` // the day's end will be beyond
}

// outlook is what a day will have cost at its end, at the rate of the last full
// hour or, before that, of the day so far.
func (s *Service) outlook(now time.Time) (spent, end int64) {
	midnight, this := now.UTC().Truncate(24*time.Hour), now.UTC().Truncate(time.Hour)
	total := func(b *cost.Book) int64 {
		if b == nil {
			return 0
		}
		return int64(b.Total())
	}
	spent = total(s.m.books[bookAt{fleet.BookDay, midnight.Unix()}])
	return spent, foresee(now, s.m.state.Began, spent, total(s.m.books[bookAt{fleet.BookHour, this.Add(-time.Hour).Unix()}]))
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

// watchBudget warns of the day's budget: at each threshold once, and once when
// the day's end is foreseen beyond it.
func (s *Service) watchBudget(ctx context.Context, now time.Time) error {
	day := s.budget.PerDay
	if day <= 0 || s.m == nil {
		return nil
	}
	spent, end := s.outlook(now)
	w := &s.m.state.Warned
	if midnight := now.UTC().Truncate(24 * time.Hour); !w.Day.Equal(midnight) {
		*w = warned{Day: midnight}
	}
	next := *w
	for _, p := range thresholds {
		if p > next.Percent && spent >= day*int64(p)/100 {
			next.Percent = p
		}
	}
	// A forecast of the first hours of a day says little.
	next.Ahead = next.Ahead || end > day && now.Sub(w.Day) >= time.Hour
	if next == *w {
		return nil
	}
	reason := fmt.Sprintf("%s of %s spent today; at this rate %s by midnight UTC", dollars(spent), dollars(day), dollars(end))
	*w, s.dirty = next, true
	s.o.Logger.Warn("the day's budget", "spent", dollars(spent), "budget", dollars(day), "atMidnight", dollars(end))
	if s.o.Events == nil {
		return nil
	}
	_, err := s.o.Events(ctx, []fleet.Event{{
		At: now, Kind: "budget_warning", Layer: "nodes", Reason: reason, Bound: "spec.cost.budget.perDay",
		Numbers: map[string]float64{"spentUSD": float64(spent) / 1e6, "budgetUSD": float64(day) / 1e6, "forecastUSD": float64(end) / 1e6},
	}})
	return err
}

func dollars(micro int64) string { return fmt.Sprintf("$%.2f", float64(micro)/1e6) }
