package fleet

import "time"

// BudgetPeriod is how long a budget is for. Periods are those of the calendar
// in UTC: what is spent counts from the full hour, midnight or the first of the
// month.
type BudgetPeriod string

// The periods of budgets.
const (
	BudgetHour  BudgetPeriod = "hour"
	BudgetDay   BudgetPeriod = "day"
	BudgetMonth BudgetPeriod = "month"
)

// BudgetPeriods are all of them, the shortest first.
var BudgetPeriods = []BudgetPeriod{BudgetHour, BudgetDay, BudgetMonth}

// Span is the period that a time is in, [from, until).
func (p BudgetPeriod) Span(at time.Time) (from, until time.Time) {
	at = at.UTC()
	switch p {
	case BudgetHour:
		from = at.Truncate(time.Hour)
		return from, from.Add(time.Hour)
	case BudgetMonth:
		from = time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
		return from, from.AddDate(0, 1, 0)
	}
	from = at.Truncate(24 * time.Hour)
	return from, from.Add(24 * time.Hour)
}

// Budget bounds what a fleet, or one of its tenants, may cost in a period.
type Budget struct {
	Tenant   TenantID // empty: the whole fleet
	Period   BudgetPeriod
	MicroUSD int64 // above 0
}

// Spending is what a fleet has cost so far in the periods that a time is in, in
// micro-USD.
type Spending struct {
	Known            bool // false: nothing could be read yet, and the rest is 0
	Hour, Day, Month int64
	NodeHour         int64 // mean price of the nodes there are, for an hour; 0: none has a price
}

// Purse says what has been spent. Its methods answer at once, from memory, and
// may be called at any time.
type Purse interface {
	// Spending counts what is not posted yet, too: up to now, from the prices of
	// the nodes that there are.
	Spending(now time.Time) Spending
	// Held says why no task of a tenant is started now; empty where they are.
	Held(TenantID) string
}

// BudgetView is how a budget is kept.
type BudgetView struct {
	Tenant           TenantID     `json:"tenant,omitempty" doc:"Absent: the whole fleet"`
	Period           BudgetPeriod `json:"period" enum:"hour,day,month" doc:"Of the calendar in UTC"`
	From             time.Time    `json:"from"`
	Until            time.Time    `json:"until"`
	LimitMicroUSD    int64        `json:"limitMicroUSD"`
	SpentMicroUSD    int64        `json:"spentMicroUSD" doc:"So far; of a tenant, what is charged to its tasks"`
	ForecastMicroUSD int64        `json:"forecastMicroUSD" doc:"By the end of the period, at this rate"`
	Binds            bool         `json:"binds,omitempty" doc:"It is used up: what waits is not started, what runs goes on"`
	Sentence         string       `json:"sentence"`
}

// Notice is something that whoever a Fleet names is told of, at least once.
type Notice struct {
	ID      string    `json:"id"` // the same in every attempt
	Type    string    `json:"type"`
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`
	URL     string    `json:"url"`
	Data    any       `json:"data"` // what it is about, as JSON
}
