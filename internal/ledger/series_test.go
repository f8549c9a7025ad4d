package ledger

import (
	"errors"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestSeries: hours and days of the same fleet have the same money, which is
// that of the report, and the present day is told beside its budget.
func TestSeries(t *testing.T) {
	w := newWorld(t)
	w.s.SetBudgets(Budgets{Limits: []fleet.Budget{{Period: fleet.BudgetDay, MicroUSD: 100_000_000}}})
	if r := w.report(fleet.CostQuery{}); r.Today != nil {
		t.Errorf("before anything was charged: %+v", r.Today)
	}
	w.node("a") // from 8:00 on
	for range 26 * 60 {
		w.step(time.Minute)
	}
	hours, err := w.s.Series(t.Context(), w.now.Add(-48*time.Hour), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	days, err := w.s.Series(t.Context(), w.now.Add(-20*24*time.Hour), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	r := w.report(fleet.CostQuery{})
	sum := func(s fleet.CostSeries) (bill, idle int64) {
		for _, p := range s.Points {
			bill += p.MicroUSD
			idle += p.Idle["headroom"]
		}
		return bill, idle
	}
	hourBill, hourIdle := sum(hours)
	dayBill, dayIdle := sum(days)
	if hours.StepSeconds != 3600 || len(hours.Points) != 26 || days.StepSeconds != 86400 || len(days.Points) != 2 {
		t.Errorf("%d points of %g s, %d of %g s", len(hours.Points), hours.StepSeconds, len(days.Points), days.StepSeconds)
	}
	if hourBill != r.MicroUSD || dayBill != r.MicroUSD || hourIdle != dayIdle || hourIdle == 0 {
		t.Errorf("bills of %d, %d and %d, idle %d and %d", hourBill, dayBill, r.MicroUSD, hourIdle, dayIdle)
	}
	if p := hours.Points[1]; p.MicroUSD != 3_600_000 || p.NodeHours != 1 || p.PeakNodes != 1 || !p.At.Equal(epoch.Add(time.Hour)) {
		t.Errorf("%+v", p)
	}
	// It is 10:00 of the second day, at $3.60 an hour: $36, and $86.40 by midnight.
	d := r.Today
	if d == nil || d.BudgetMicroUSD != 100_000_000 || d.SpentMicroUSD < 35_900_000 || d.SpentMicroUSD > 36_000_000 || d.ForeseenMicroUSD < 86_300_000 || d.ForeseenMicroUSD > 86_400_000 {
		t.Errorf("%+v", d)
	}
	var fe *fleet.FieldError
	if _, err := w.s.Series(t.Context(), w.now.AddDate(-2, 0, 0), time.Time{}); !errors.As(err, &fe) || fe.Field != "since" {
		t.Errorf("two years: %v", err)
	}
}
