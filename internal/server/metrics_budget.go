package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/internal/fleet"
)

// The tenant of the whole fleet's budgets is empty. Their number is that of the
// Fleet's tenants with a budget, at most.
var (
	descBudgetLimit    = desc("budget_limit_usd", "What may be spent in a period of UTC: hour, day or month.", "tenant", "period")
	descBudgetSpent    = desc("budget_spent_usd", "What is spent of the period that now is in; it begins anew with the next.", "tenant", "period")
	descBudgetForecast = desc("budget_forecast_usd", "What the period will have cost at its end, at this rate.", "tenant", "period")
	descBudgetBinds    = desc("budget_binds", "1 while the budget is used up: nothing more is started.", "tenant", "period")
)

func collectBudgets(ch chan<- prometheus.Metric, l Ledger) {
	if l == nil {
		return
	}
	for _, b := range l.Budgets() {
		labels := []string{string(b.Tenant), string(b.Period)}
		usd := func(micro int64) float64 { return float64(micro) / 1e6 }
		gauge(ch, descBudgetLimit, usd(b.LimitMicroUSD), labels...)
		gauge(ch, descBudgetSpent, usd(b.SpentMicroUSD), labels...)
		gauge(ch, descBudgetForecast, usd(b.ForecastMicroUSD), labels...)
		gauge(ch, descBudgetBinds, flag(b.Binds), labels...)
	}
}

// budgets are those of the view of the fleet; none where nothing is charged.
func (s *Server) budgets() []fleet.BudgetView {
	if s.Ledger == nil {
		return nil
	}
	return s.Ledger.Budgets()
}
