package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Budgets bound what a fleet and its tenants may cost. The ledger warns of
// them, and holds tenants; what is started for all is the planner's to decide.
type Budgets struct {
	Limits  []fleet.Budget
	WarnAt  []int  // percent of a budget at which is warned, ascending; empty: 50, 80, 100
	Webhook string // is told of warnings; empty: none
}

var warnAt = []int{50, 80, 100}

// warned is what was warned of last, so that a restart does not do so again.
type warned struct {
	From    time.Time `json:"from,omitzero"` // of the period
	Percent int       `json:"percent,omitempty"`
	Ahead   bool      `json:"ahead,omitempty"` // the period's end will be beyond
}

// mostNotices bounds those that wait to be delivered.
const mostNotices = 256

// SetBudgets changes what is kept and warned of, within the next look.
func (s *Service) SetBudgets(b Budgets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setBudgets(b)
}

func (s *Service) setBudgets(b Budgets) {
	b.Limits = slices.Clone(b.Limits)
	if len(b.WarnAt) == 0 {
		b.WarnAt = warnAt
	}
	s.budgets.Store(&b)
}

// Budgets says how the budgets are kept, the fleet's first; empty where there
// are none, or nothing could be read yet.
func (s *Service) Budgets() []fleet.BudgetView {
	return s.views(s.now())
}

func (s *Service) views(now time.Time) []fleet.BudgetView {
	t, b := s.tally.Load(), s.budgets.Load()
	out := []fleet.BudgetView{}
	if t == nil {
		return out
	}
	for _, l := range b.Limits {
		out = append(out, t.view(l, now))
	}
	return out
}

func (t *tally) view(l fleet.Budget, now time.Time) fleet.BudgetView {
	from, until := l.Period.Span(now)
	v := fleet.BudgetView{Tenant: l.Tenant, Period: l.Period, From: from, Until: until, LimitMicroUSD: l.MicroUSD}
	v.SpentMicroUSD = t.soFar(l.Period, l.Tenant, now)
	v.ForecastMicroUSD = v.SpentMicroUSD + int64(t.rate(l.Period, l.Tenant, now)*until.Sub(now).Hours())
	v.Binds = v.SpentMicroUSD >= v.LimitMicroUSD
	v.Sentence = sentence(&v)
	return v
}

// sentence says it to a person.
func sentence(v *fleet.BudgetView) string {
	when := map[fleet.BudgetPeriod]string{fleet.BudgetHour: "this hour", fleet.BudgetDay: "today", fleet.BudgetMonth: "this month"}[v.Period]
	s := fmt.Sprintf("%s of %s spent %s; ", dollars(v.SpentMicroUSD), dollars(v.LimitMicroUSD), when)
	if v.Tenant != "" {
		s = "tenant " + string(v.Tenant) + ": " + s
	}
	if v.Binds {
		return s + "what waits is started " + begins(v) + ", and what runs goes on"
	}
	return s + fmt.Sprintf("at this rate %s %s", dollars(v.ForecastMicroUSD), by(v))
}

func by(v *fleet.BudgetView) string {
	switch v.Period {
	case fleet.BudgetHour:
		return "by " + v.Until.Format("15:04") + " UTC"
	case fleet.BudgetMonth:
		return "by the end of " + v.From.Month().String()
	}
	return "by midnight UTC"
}

func begins(v *fleet.BudgetView) string {
	switch v.Period {
	case fleet.BudgetHour:
		return "from " + v.Until.Format("15:04") + " UTC on"
	case fleet.BudgetMonth:
		return "from the 1st of " + v.Until.Month().String() + " on"
	}
	return "from midnight UTC on"
}

// field is where a budget is in a Fleet.
func field(v *fleet.BudgetView) string {
	name := map[fleet.BudgetPeriod]string{fleet.BudgetHour: "perHour", fleet.BudgetDay: "perDay", fleet.BudgetMonth: "perMonth"}[v.Period]
	if v.Tenant != "" {
		return fmt.Sprintf("spec.tenants[%s].budget.%s", v.Tenant, name)
	}
	return "spec.cost.budget." + name
}

// keep warns of budgets and holds tenants, as of now.
func (s *Service) keep(ctx context.Context, now time.Time) error {
	b := s.budgets.Load()
	if s.m == nil || s.tally.Load() == nil || len(b.Limits) == 0 && len(s.held) == 0 && s.told {
		return nil
	}
	var events []fleet.Event
	held := map[fleet.TenantID]string{}
	views := s.views(now)
	for i := range views {
		v := &views[i]
		if v.Tenant != "" && v.Binds {
			held[v.Tenant] = v.Sentence
		}
		if s.warnOf(v, b.WarnAt, now) {
			events = append(events, s.warning(v, b, now))
		}
	}
	changed, err := s.hold(ctx, held, now)
	events = append(events, changed...)
	if s.o.Events == nil || len(events) == 0 {
		return err
	}
	_, err2 := s.o.Events(ctx, events)
	return errors.Join(err, err2)
}

// warnOf tells whether a budget is to be warned of now: at each threshold once,
// and once when the end is foreseen beyond it.
func (s *Service) warnOf(v *fleet.BudgetView, at []int, now time.Time) bool {
	if s.m.state.Warnings == nil {
		s.m.state.Warnings = map[string]warned{}
	}
	w := s.m.state.Warnings[field(v)]
	if !w.From.Equal(v.From) {
		w = warned{From: v.From}
	}
	next := w
	for _, p := range at {
		if p > next.Percent && float64(v.SpentMicroUSD) >= float64(v.LimitMicroUSD)*float64(p)/100 {
			next.Percent = p
		}
	}
	// A forecast of the beginning of a period says little.
	soon := v.Until.Sub(v.From) / 24
	next.Ahead = next.Ahead || v.ForecastMicroUSD > v.LimitMicroUSD && now.Sub(v.From) >= soon
	if next == w {
		return false
	}
	s.m.state.Warnings[field(v)], s.dirty = next, true
	return true
}

// warning logs a warning, leaves it for the webhook, and makes an event of it.
func (s *Service) warning(v *fleet.BudgetView, b *Budgets, now time.Time) fleet.Event {
	s.o.Logger.Warn("budget", "budget", field(v), "spent", dollars(v.SpentMicroUSD), "limit", dollars(v.LimitMicroUSD), "forecast", dollars(v.ForecastMicroUSD))
	if b.Webhook != "" {
		s.m.state.Sent++
		n := fleet.Notice{
			ID: fmt.Sprintf("%s/budget/%d-%d", s.o.Fleet, s.m.state.Began.Unix(), s.m.state.Sent), Type: "dev.muster.budget.warning",
			Subject: field(v), At: now, URL: b.Webhook, Data: *v,
		}
		s.m.state.Notices = append(s.m.state.Notices, n)
		if over := len(s.m.state.Notices) - mostNotices; over > 0 {
			s.m.state.Notices = s.m.state.Notices[over:]
		}
	}
	return fleet.Event{
		At: now, Kind: "budget_warning", Layer: "nodes", Reason: v.Sentence, Bound: field(v),
		Numbers: map[string]float64{"spentUSD": float64(v.SpentMicroUSD) / 1e6, "budgetUSD": float64(v.LimitMicroUSD) / 1e6, "forecastUSD": float64(v.ForecastMicroUSD) / 1e6},
	}
}

// hold lets the queue know of which tenants nothing is started, when that
// changes.
func (s *Service) hold(ctx context.Context, held map[fleet.TenantID]string, now time.Time) (events []fleet.Event, err error) {
	s.holds.Store(&held)
	was := s.held
	if s.told && maps.EqualFunc(was, held, func(string, string) bool { return true }) {
		return nil, nil
	}
	if s.o.Hold != nil {
		if err := s.o.Hold(ctx, slices.Sorted(maps.Keys(held))); err != nil {
			return nil, fmt.Errorf("hold tenants whose budget is used up: %w", err)
		}
	}
	s.held, s.told = held, true
	for _, t := range slices.Sorted(maps.Keys(held)) {
		if _, already := was[t]; !already {
			events = append(events, fleet.Event{At: now, Kind: "budget_binds", Layer: "tasks", Reason: held[t], Bound: "spec.tenants[" + string(t) + "].budget"})
		}
	}
	for _, t := range slices.Sorted(maps.Keys(was)) {
		if _, still := held[t]; !still {
			events = append(events, fleet.Event{At: now, Kind: "budget_free", Layer: "tasks", Reason: "tenant " + string(t) + ": its tasks are started again"})
		}
	}
	return events, nil
}

// Held implements fleet.Purse.
func (s *Service) Held(t fleet.TenantID) string {
	if h := s.holds.Load(); h != nil {
		return (*h)[t]
	}
	return ""
}

// Notices are those to be delivered, the oldest first.
func (s *Service) Notices() []fleet.Notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return nil
	}
	return slices.Clone(s.m.state.Notices)
}

// NoticeDone forgets a notice: it was delivered, or is not going to be.
func (s *Service) NoticeDone(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return
	}
	n := len(s.m.state.Notices)
	s.m.state.Notices = slices.DeleteFunc(s.m.state.Notices, func(x fleet.Notice) bool { return x.ID == id })
	s.dirty = s.dirty || len(s.m.state.Notices) != n
}

func dollars(micro int64) string { return fmt.Sprintf("$%.2f", float64(micro)/1e6) }
