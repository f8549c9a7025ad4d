package control

import (
	"time"

	"muster.dev/muster/internal/plan"
)

// spent is what the ledger says, for the planner.
func (e *Engine) spent(now time.Time) plan.Spend {
	if e.c.Purse == nil {
		return plan.Spend{}
	}
	s := e.c.Purse.Spending(now)
	return plan.Spend{HourMicroUSD: s.Hour, DayMicroUSD: s.Day, MonthMicroUSD: s.Month, NodeHour: s.NodeHour, Unknown: !s.Known}
}
