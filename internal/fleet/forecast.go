package fleet

import "time"

// ForecastQuery asks for a forecast.
type ForecastQuery struct {
	Template string         // empty: the whole fleet
	Horizon  time.Duration  // one minute to two weeks; 0: a day
	Zone     *time.Location // of the weekly pattern; nil: UTC
	Backtest bool           // also how such forecasts did in the past
}

// Forecast is what is expected of a fleet's load, from its own history.
type Forecast struct {
	Template       string            `json:"template,omitempty" doc:"Absent: the whole fleet"`
	At             time.Time         `json:"at"`
	Timezone       string            `json:"timezone" doc:"Of the weekly pattern and the peaks"`
	HorizonSeconds float64           `json:"horizonSeconds"`
	StepSeconds    float64           `json:"stepSeconds"`
	Basis          ForecastBasis     `json:"basis"`
	Steps          []ForecastStep    `json:"steps" doc:"In order of time; empty with no history"`
	Week           ForecastWeek      `json:"week"`
	Peaks          []ForecastPeak    `json:"peaks" doc:"The worst first"`
	Backtest       *ForecastBacktest `json:"backtest,omitempty"`
}

// ForecastBasis says what a forecast rests on.
type ForecastBasis struct {
	Kind         string    `json:"kind" enum:"none,recent,weekly" doc:"none: cold start, nothing is forecast. recent: less than eight days, no weekly pattern yet"`
	Since        time.Time `json:"since,omitzero" doc:"Of the oldest minute kept"`
	KnownMinutes int       `json:"knownMinutes" doc:"Minutes kept as they were"`
	UnseenShare  float64   `json:"unseenShare" doc:"Share of the minutes since then that nobody looked at; they count as unknown, not as empty"`
	OlderWeeks   int       `json:"olderWeeks" doc:"Weeks before that, kept by hour of the week"`
	Prior        string    `json:"prior,omitempty" doc:"What is assumed and not measured"`
	Sentence     string    `json:"sentence"`
}

// ForecastQuantiles are quantiles of a count.
type ForecastQuantiles struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// ForecastStep is one step of the horizon.
type ForecastStep struct {
	From     time.Time         `json:"from"`
	Arrivals ForecastQuantiles `json:"arrivals" doc:"Tasks submitted in the step"`
	Demand   ForecastQuantiles `json:"demand" doc:"The most tasks waiting or running at once in the step"`
}

// ForecastWeek is the weekly pattern in half hours, Monday 00:00 first. A half
// hour that was never seen has no weeks.
type ForecastWeek struct {
	Mean      float64   `json:"mean" doc:"Tasks an hour over the week"`
	Arrivals  []float64 `json:"arrivals" doc:"Tasks an hour, 336 half hours from Monday 00:00; empty with no history"`
	Demand    []float64 `json:"demand" doc:"The largest number of tasks waiting or running at once in the half hour, on average over the weeks"`
	WeeksSeen []int     `json:"weeksSeen" doc:"Weeks in which the half hour was looked at"`
	Waits     []float64 `json:"waits" doc:"95th percentile of the waits measured in the full hour, in seconds; 0 where waitsSeen is 0"`
	WaitsSeen []float64 `json:"waitsSeen" doc:"Waits that rests on; older ones count for less"`
}

// ForecastPeak is a time of the week that is well above the mean, week after
// week.
type ForecastPeak struct {
	Days        string         `json:"days" doc:"In words: Mondays, weekdays, every day"`
	Weekdays    []time.Weekday `json:"weekdays" doc:"0 is Sunday; of the beginning"`
	From        string         `json:"from" doc:"HH:MM"`
	Until       string         `json:"until" doc:"HH:MM; not after from means on the next day"`
	TimesMean   float64        `json:"timesMean" doc:"Arrivals, as a multiple of the week's mean"`
	Weeks       int            `json:"weeks" doc:"Weeks in which it was above the mean"`
	WeeksSeen   int            `json:"weeksSeen"`
	WaitSeconds float64        `json:"waitSeconds,omitempty" doc:"95th percentile of the waits measured then, under the policies in force; absent where none was measured"`
	Waits       float64        `json:"waits,omitempty" doc:"Waits that rests on; older ones count for less"`
	Floor       int            `json:"floor" doc:"Warm sandboxes with which 95 % of its tasks find one ready"`
	FloorFrom   string         `json:"floorFrom" doc:"HH:MM; one lead time before, in full five minutes"`
	Have        int            `json:"have" doc:"Warm sandboxes that minima and floors keep then already"`
	// CostMicroUSD is the price a week of what the floor asks for beyond Have;
	// nil where no price is set.
	CostMicroUSD *int64 `json:"costMicroUSD,omitempty" doc:"A week, for what the floor adds; absent where no price of a node is set"`
	Sentence     string `json:"sentence"`
}

// ForecastBacktest says how forecasts made in the past from what was known
// then did, beside two simple rivals. Losses are mean pinball losses over the
// five quantiles, in tasks; less is better.
type ForecastBacktest struct {
	From     time.Time       `json:"from,omitzero" doc:"Of the first forecast"`
	Until    time.Time       `json:"until,omitzero"`
	Scores   []ForecastScore `json:"scores"`
	Sentence string          `json:"sentence"`
}

// ForecastScore is one line of a back-test.
type ForecastScore struct {
	Of             string  `json:"of" enum:"arrivals,demand"`
	HorizonSeconds float64 `json:"horizonSeconds"`
	StepSeconds    float64 `json:"stepSeconds" doc:"The window forecast ends at the horizon and is this long"`
	Forecasts      int     `json:"forecasts"`
	Loss           float64 `json:"loss"`
	SeasonalNaive  float64 `json:"seasonalNaive" doc:"The same time last week, for every quantile"`
	SeasonalSpread float64 `json:"seasonalSpread" doc:"The same time last week, spread by how wrong that was before"`
	FlatMean       float64 `json:"flatMean" doc:"The mean of the last day, for every quantile"`
	MedianLoss     float64 `json:"medianLoss" doc:"At the median alone, where points and quantiles are on a par"`
	MedianSeasonal float64 `json:"medianSeasonal"`
	MedianFlat     float64 `json:"medianFlat"`
	Under90        float64 `json:"under90" doc:"Share that came out at or under the 90th percentile"`
	Under99        float64 `json:"under99"`
}
