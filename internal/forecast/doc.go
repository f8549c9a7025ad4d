// Package forecast turns a series of arrivals into quantiles of demand over a
// horizon (layer L1, pure): every function is a function of its arguments, so
// that a recorded decision can be made again bit for bit. It may import
// package fleet, and neither clocks, files, networks nor randomness.
//
// [Arrivals] is what a planner keeps per pool, in a few hundred bytes: the
// recent rate, the measured dispersion of counts, and how large bursts are.
// [Leads] is a bounded sample of lead times. [Weekly] is an hour-of-week
// profile with exponential forgetting; by the rules of demand integrity it may
// raise a floor and never lowers demand.
//
// With no history every answer is zero or the prior, and says so (Samples,
// Weeks).
package forecast
