package ledger

import (
	"context"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// The day's budget is warned of at each threshold once, also over a restart.
func TestBudget(t *testing.T) {
	w := newWorld(t)
	w.s.SetBudgets(Budgets{Limits: []fleet.Budget{{Period: fleet.BudgetDay, MicroUSD: 10_000_000}}}) // $3.60 an hour, from 8:00 on
	w.s.o.Events = w.store.AppendEvents
	w.node("a")
	for range 4 * 60 {
		w.step(time.Minute)
		if w.now.Equal(epoch.Add(2 * time.Hour)) {
			budget, events := *w.s.budgets.Load(), w.s.o.Events
			w.restart()
			w.s.SetBudgets(budget)
			w.s.o.Events = events
		}
	}
	got, err := w.store.Events(t.Context(), fleet.EventFilter{Kinds: []string{"budget_warning"}})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, e := range got {
		reasons = append(reasons, e.Reason)
	}
	all := strings.Join(reasons, "\n")
	if len(got) < 3 || len(got) > 4 || !strings.Contains(all, " of $10.00 spent today; at this rate $") || !strings.HasPrefix(reasons[len(got)-1], "$10.0") {
		t.Errorf("%d warnings:\n%s", len(got), all)
	}
	if last := got[len(got)-1]; last.Numbers["budgetUSD"] != 10 || last.Numbers["forecastUSD"] < 40 {
		t.Errorf("%+v", last)
	}
}

// What is not posted yet counts: the bound is known to the second, over the
// ends of periods, and after a restart before anything was looked at.
func TestSpendingIsUpToDate(t *testing.T) {
	w := newWorld(t) // 8:00; 1000 micro-USD a second
	w.node("a")
	w.step(0)
	for _, at := range []time.Duration{30 * time.Second, 63 * time.Second, 3599 * time.Second, 3603 * time.Second} {
		w.to(at)
		ahead := w.now.Add(700 * time.Millisecond)
		got := w.s.Spending(ahead)
		day := (at + 700*time.Millisecond).Milliseconds()
		hour := day
		if at > time.Hour {
			hour -= time.Hour.Milliseconds()
		}
		if !got.Known || got.Day != day || got.Month != day || got.Hour != hour || got.NodeHour != 3_600_000 {
			t.Errorf("after %s: %+v, want %d today and %d this hour", at, got, day, hour)
		}
	}
	w.restart()
	if w.s.Spending(w.now).Known {
		t.Error("it is known before anything was read")
	}
	if err := w.s.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.s.Spending(w.now); !got.Known || got.Day != 3_603_000 {
		t.Errorf("after a restart %+v, want 3603000 today", got)
	}
	// A store that fails stops nothing: the nodes cost on.
	w.store.before = true
	w.to(time.Hour + 2*time.Minute)
	if got := w.s.Spending(w.now.Add(time.Hour)); got.Day != 7_320_000 || got.Hour != 120_000 {
		t.Errorf("with a store that fails %+v, want 7320000 today", got)
	}
}

// The month is the sum of its days, also those of before a restart, and its end
// is foreseen by the days before.
func TestMonth(t *testing.T) {
	w := newWorld(t)
	limits := Budgets{Limits: []fleet.Budget{{Period: fleet.BudgetMonth, MicroUSD: 3_000_000_000}}}
	w.node("a")
	w.step(0)
	for range 40 { // 2 March 8:00 to 12 March
		w.step(6 * time.Hour)
	}
	w.restart()
	w.s.SetBudgets(limits)
	w.step(0)
	w.step(time.Second)
	got := w.s.Budgets()
	spent := int64(10*24*3600+1) * 1000
	if len(got) != 1 || got[0].SpentMicroUSD != spent || got[0].ForecastMicroUSD < 2_562_000_000 || got[0].ForecastMicroUSD > 2_564_000_000 ||
		!strings.HasSuffix(got[0].Sentence, "by the end of March") {
		t.Errorf("%+v, want %d spent and about $2563 by the end: 29.67 days of $86.40", got, spent)
	}
	w.now = time.Date(2026, 4, 1, 0, 0, 5, 0, time.UTC)
	w.step(0)
	if s := w.s.Spending(w.now); s.Month != 5_000 || s.Day != 5_000 || s.Hour != 5_000 {
		t.Errorf("%+v in the new month, want 5 seconds of it", s)
	}
}

// A tenant whose money is used up is held, told of, and goes on with the next
// period; the others are not touched.
func TestTenantIsHeld(t *testing.T) {
	w := newWorld(t)
	var told [][]fleet.TenantID
	fail := true
	w.s.o.Hold = func(_ context.Context, all []fleet.TenantID) error {
		if len(all) > 0 && fail {
			fail = false
			return errDoubt
		}
		told = append(told, all)
		return nil
	}
	w.s.o.Events = w.store.AppendEvents
	w.s.SetBudgets(Budgets{
		Limits:  []fleet.Budget{{Tenant: "pay", Period: fleet.BudgetHour, MicroUSD: 300_000}, {Tenant: "web", Period: fleet.BudgetHour, MicroUSD: 1}},
		WarnAt:  []int{90},
		Webhook: "https://pager.test/",
	})
	w.node("a")
	w.to(10 * time.Second)
	d := w.task(nil)
	w.box("s1", d.Lease.Task, d.Lease.Fence) // half the node: 500 a second
	w.to(5 * time.Minute)
	if why := w.s.Held("pay"); why != "" {
		t.Errorf("held after 5 minutes: %s", why)
	}
	w.to(10*time.Minute + 20*time.Second) // 620 s from the claim: 310000
	why := w.s.Held("pay")
	if !strings.Contains(why, "tenant pay: $0.30 of $0.30 spent this hour") && !strings.Contains(why, "tenant pay: $0.31 of $0.30 spent this hour") || w.s.Held("web") != "" {
		t.Errorf("held: %q, %q", why, w.s.Held("web"))
	}
	if n := len(told); n != 1 || len(told[0]) != 1 || told[0][0] != "pay" {
		t.Errorf("told %v, want pay once, after the error", told)
	}
	notices := w.s.Notices()
	if len(notices) == 0 || notices[0].URL != "https://pager.test/" || notices[0].Data.(fleet.BudgetView).Tenant != "pay" || notices[0].Subject != "spec.tenants[pay].budget.perHour" {
		t.Fatalf("%+v", notices)
	}
	w.to(11 * time.Minute)
	w.s.NoticeDone(notices[0].ID)
	w.step(time.Second)
	budgets, events := *w.s.budgets.Load(), w.s.o.Events
	w.restart()
	w.s.o.Events = events
	w.s.SetBudgets(budgets)
	w.step(0)
	if got := w.s.Notices(); len(got) != len(notices)-1 {
		t.Errorf("%d notices after a restart, want %d: %+v", len(got), len(notices)-1, got)
	}
	if w.s.Held("pay") == "" {
		t.Error("a restart lets it go")
	}
	w.to(time.Hour + 5*time.Second)
	if why := w.s.Held("pay"); why != "" {
		t.Errorf("held in the next hour: %s", why)
	}
	got, err := w.store.Events(t.Context(), fleet.EventFilter{Kinds: []string{"budget_binds", "budget_free"}})
	if err != nil || len(got) < 2 || got[0].Kind != "budget_binds" || got[len(got)-1].Kind != "budget_free" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A node without a price costs nothing, and its time does not lower the price
// of those that have one.
func TestPriceOfNodes(t *testing.T) {
	n := func(price cost.Micro) owing {
		return owing{cost.Node{Requested: epoch, Prices: cost.Prices{{PerHour: price}}}, epoch}
	}
	x := tally{owed: []owing{n(400_000), {node: cost.Node{Requested: epoch}}, n(800_000)}}
	if all, mean := x.perHour(epoch); all != 1_200_000 || mean != 600_000 {
		t.Errorf("%d in all, %d each; want 1200000 and 600000", all, mean)
	}
}
