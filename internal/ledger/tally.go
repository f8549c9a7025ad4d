package ledger

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// spent is what was charged in some stretch of time, in micro-USD: all of it,
// and of that what the tasks of each tenant were charged.
type spent struct {
	all int64
	by  map[fleet.TenantID]int64
}

func (s *spent) add(o spent) {
	s.all += o.all
	for t, v := range o.by {
		if s.by == nil {
			s.by = map[fleet.TenantID]int64{}
		}
		s.by[t] += v
	}
}

// of is a tenant's; of the empty one, all.
func (s *spent) of(t fleet.TenantID) int64 {
	if t == "" {
		return s.all
	}
	return s.by[t]
}

func spentIn(b *cost.Book) (s spent) {
	s.by = map[fleet.TenantID]int64{}
	for k, v := range b.Lines {
		s.all += int64(v.Amount)
		if k.Cause == cost.CauseTask {
			s.by[k.Tenant] += int64(v.Amount)
		}
	}
	return s
}

// owing is a node with the moment up to which it is charged.
type owing struct {
	node cost.Node
	from time.Time
}

// tally is what was spent as of a posting, and what has been running up since.
// It is never changed once it is made.
type tally struct {
	at    time.Time // charged up to here
	began time.Time // of the ledger
	sums  map[fleet.BudgetPeriod]spent
	froms map[fleet.BudgetPeriod]time.Time
	owed  []owing
	burn  map[fleet.TenantID]float64 // micro-USD a second, of late
	// What an hour has cost: rates of the last full hour, and of the days before
	// this one, at most seven. Zero where there was none.
	hourly, daily rate
}

// rate is what was spent over some hours.
type rate struct {
	spent
	hours float64
}

func (r *rate) of(t fleet.TenantID) float64 {
	if r.hours <= 0 {
		return 0
	}
	return float64(r.spent.of(t)) / r.hours
}

// burnOver is how far back the present rate of a tenant is looked at.
const burnOver = time.Minute

// mark is what tenants had been charged by a moment.
type mark struct {
	at time.Time
	by map[fleet.TenantID]int64
}

// count makes the tally that budgets are kept by.
func (s *Service) count(ctx context.Context, now time.Time) error {
	st := &s.m.state
	t := &tally{at: st.charged(), began: st.Began, sums: map[fleet.BudgetPeriod]spent{}, froms: map[fleet.BudgetPeriod]time.Time{}}
	for _, p := range fleet.BudgetPeriods {
		from, _ := p.Span(now)
		t.froms[p] = from
	}
	hour, today := t.froms[fleet.BudgetHour], t.froms[fleet.BudgetDay]
	for _, x := range []struct {
		period fleet.BudgetPeriod
		span   fleet.BookSpan
		from   time.Time
	}{{fleet.BudgetHour, fleet.BookHour, hour}, {fleet.BudgetDay, fleet.BookDay, today}} {
		sum, err := s.spentOn(ctx, x.span, x.from)
		if err != nil {
			return err
		}
		t.sums[x.period] = sum
	}
	if err := s.before(ctx, t, hour, today); err != nil {
		return err
	}
	for _, l := range st.Lives {
		t.owed = append(t.owed, owing{l.Node, l.Charged})
	}
	s.burnt(t)
	s.tally.Store(t)
	return nil
}

// before adds what was before this hour and this day.
func (s *Service) before(ctx context.Context, t *tally, hour, today time.Time) error {
	known := func(from, until time.Time) float64 { return max(0, until.Sub(later(from, t.began)).Hours()) }
	last, err := s.spentOn(ctx, fleet.BookHour, hour.Add(-time.Hour))
	if err != nil {
		return err
	}
	t.hourly = rate{last, known(hour.Add(-time.Hour), hour)}
	var month spent
	month.add(t.sums[fleet.BudgetDay])
	first := t.froms[fleet.BudgetMonth]
	for day, n := today.AddDate(0, 0, -1), 0; (!day.Before(first) || n < 7) && !day.Add(24*time.Hour).Before(t.began); day, n = day.AddDate(0, 0, -1), n+1 {
		sum, err := s.spentOn(ctx, fleet.BookDay, day)
		if err != nil {
			return err
		}
		if !day.Before(first) {
			month.add(sum)
		}
		if n < 7 {
			t.daily.add(sum)
			t.daily.hours += known(day, day.AddDate(0, 0, 1))
		}
	}
	t.sums[fleet.BudgetMonth] = month
	return nil
}

// burnt measures what tenants are charged of late.
func (s *Service) burnt(t *tally) {
	now := mark{t.at, map[fleet.TenantID]int64{}}
	for id, v := range t.sums[fleet.BudgetMonth].by {
		now.by[id] = v
	}
	if n := len(s.marks); n > 0 && !s.marks[n-1].at.Before(t.at) {
		s.marks = s.marks[:n-1]
	}
	s.marks = append(s.marks, now)
	for len(s.marks) > 2 && t.at.Sub(s.marks[1].at) >= burnOver {
		s.marks = s.marks[1:]
	}
	t.burn = map[fleet.TenantID]float64{}
	if d := t.at.Sub(s.marks[0].at).Seconds(); d > 0 {
		for id, v := range now.by {
			t.burn[id] = max(0, float64(v-s.marks[0].by[id])/d) // a new month begins with less
		}
	}
}

// spentOn is what is in the book of an hour or a day. Those that are not added
// to are read once.
func (s *Service) spentOn(ctx context.Context, span fleet.BookSpan, from time.Time) (spent, error) {
	at := bookAt{span, from.Unix()}
	if b := s.m.books[at]; b != nil {
		return spentIn(b), nil
	}
	if known, ok := s.m.past[at]; ok {
		return known, nil
	}
	found, err := s.o.Store.Books(ctx, span, from, from.Add(time.Second))
	if err != nil {
		return spent{}, fmt.Errorf("read the book of %s: %w", from.Format(time.RFC3339), err)
	}
	b := cost.NewBook()
	for _, f := range found {
		if err := b.MergeEncoded(f.Content, false); err != nil {
			return spent{}, fmt.Errorf("book of %s: %w", from.Format(time.RFC3339), err)
		}
	}
	sum := spentIn(b)
	s.m.past[at] = sum
	return sum, nil
}

// soFar is what is spent of a period by now, of a tenant or by all.
func (t *tally) soFar(p fleet.BudgetPeriod, of fleet.TenantID, now time.Time) int64 {
	from, _ := p.Span(now)
	var sum int64
	if from.Equal(t.froms[p]) {
		x := t.sums[p]
		sum = x.of(of)
	}
	if of != "" {
		return sum + int64(t.burn[of]*max(0, now.Sub(later(t.at, from)).Seconds()))
	}
	for i := range t.owed {
		o := &t.owed[i]
		sum += max(0, int64(o.node.Bill(now)-o.node.Bill(later(o.from, from))))
	}
	return sum
}

// perHour is what the nodes that there are cost an hour together, and on
// average those that have a price.
func (t *tally) perHour(now time.Time) (all, mean int64) {
	n := int64(0)
	for i := range t.owed {
		if o := &t.owed[i]; o.node.Released.IsZero() {
			if p := int64(o.node.Prices.PerHour(now)); p > 0 {
				all, n = all+p, n+1
			}
		}
	}
	if n > 0 {
		mean = all / n
	}
	return all, mean
}

// rate is what an hour costs as far as a period is concerned: an hour goes on as
// it is now, a day as the last full hour was, a month as the last days were. A
// longer one that has none goes by the period so far.
func (t *tally) rate(p fleet.BudgetPeriod, of fleet.TenantID, now time.Time) float64 {
	switch p {
	case fleet.BudgetHour:
		if of != "" {
			return t.burn[of] * 3600
		}
		all, _ := t.perHour(now)
		return float64(all)
	case fleet.BudgetDay:
		if t.hourly.hours > 0 {
			return t.hourly.of(of)
		}
	case fleet.BudgetMonth:
		if t.daily.hours >= 24 {
			return t.daily.of(of)
		}
	}
	from, _ := p.Span(now)
	if elapsed := now.Sub(later(from, t.began)).Hours(); elapsed > 0 {
		return float64(t.soFar(p, of, now)) / elapsed
	}
	return 0
}

// Spending implements fleet.Purse.
func (s *Service) Spending(now time.Time) fleet.Spending {
	t := s.tally.Load()
	if t == nil {
		return fleet.Spending{}
	}
	_, mean := t.perHour(now)
	return fleet.Spending{
		Known: true, Hour: t.soFar(fleet.BudgetHour, "", now), Day: t.soFar(fleet.BudgetDay, "", now), Month: t.soFar(fleet.BudgetMonth, "", now),
		NodeHour: mean,
	}
}

// Prime reads what was spent, so that it is known before Run has looked for the
// first time.
func (s *Service) Prime(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m != nil {
		return nil
	}
	err := s.load(ctx)
	if err == nil {
		err = s.count(ctx, s.now())
	}
	s.m = nil // somebody else may charge until Run does
	return err
}
