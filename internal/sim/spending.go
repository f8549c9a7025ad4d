package sim

import (
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// spending is what a fleet has cost in the hour, the day and the month of UTC,
// as the ledger charges it: by the nodes there are, between two looks.
type spending struct {
	at    int64
	begun [3]int64 // of the hour, the day and the month that at is in
	ends  [3]int64
	spent [3]float64
}

// charge adds what alive nodes cost since the last look; nodeHour is a price
// in micro-USD.
func (s *spending) charge(now int64, alive int, nodeHour int64) plan.Spend {
	for i, p := range fleet.BudgetPeriods {
		if now >= s.ends[i] {
			from, until := p.Span(time.UnixMilli(now))
			s.begun[i], s.ends[i], s.spent[i] = from.UnixMilli(), until.UnixMilli(), 0
		}
		if s.at > 0 {
			s.spent[i] += float64(now-max(s.at, s.begun[i])) / float64(hour) * float64(alive) * float64(nodeHour)
		}
	}
	s.at = now
	return plan.Spend{HourMicroUSD: int64(s.spent[0]), DayMicroUSD: int64(s.spent[1]), MonthMicroUSD: int64(s.spent[2])}
}
