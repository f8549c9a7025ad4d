// Package forecast turns a series of arrivals into quantiles of demand over a
// horizon (layer L1, pure): every function is a function of its arguments, so
// that a recorded decision can be made again bit for bit. It may import
// package fleet, and neither clocks, files, networks nor randomness.
//
// For the planner, each a few hundred bytes and O(1) a reading: [Arrivals] is
// the recent rate, the measured dispersion of counts, and how large bursts are;
// [Leads] is a bounded sample of lead times; [Weekly] is an hour-of-week
// profile with exponential forgetting. By the rules of demand integrity the
// last may raise a floor and never lowers demand.
//
// For people, [History] remembers six weeks of minutes, and before that hours
// of the week:
//
//	readings ─▶ minute ─▶ hour being filled ─▶ sealed hours ─▶ sketch
//	            45 s of it                     six weeks,      hours of the
//	            seen, or                       12 to 400       week, fading
//	            unknown                        bytes each      by 0.7 a week
//
// [History.Forecast] makes quantiles for the steps of a horizon, [Backtest]
// scores such forecasts of the past, [History.Report] adds the weekly pattern
// and its peaks in words. A minute that nobody looked at is unknown and never
// zero. With no history every answer is empty, zero or the prior, and says so
// (ForecastBasis, Samples, Weeks).
package forecast
