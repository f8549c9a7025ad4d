package forecast

import (
	"math"
	"time"

	"muster.dev/muster/internal/fleet"
)

// enough is how many samples make the prior superfluous.
const enough = 12.0

// levels is how many quantiles are forecast.
const levels = 5

func quantiles() [levels]float64 { return [...]float64{0.10, 0.50, 0.90, 0.95, 0.99} }

// target is a window to forecast, [from, from+n) in minutes, seen from now: a
// model may look at minutes before now only.
type target struct {
	now, from int64
	n         int
	zone      *time.Location
}

// lead is how far ahead the window ends, in minutes.
func (t target) lead() float64 { return float64(t.from - t.now + int64(t.n)) }

// back is where the window began a number of days earlier by the calendar of
// the zone, so that nine o'clock stays nine o'clock over a change of clocks.
func (t target) back(days int) int64 {
	return minuteOf(timeOf(t.from).In(t.zone).AddDate(0, 0, -days))
}

// model forecasts from a history: raw minutes, and where there is one the
// sketch of the time before.
type model struct {
	s     *Series
	older *sketch
	blend map[contestKey]blend // found already; nil: as it is
}

// quantiles forecasts one window. The prior is what had to be assumed, empty
// when nothing was.
func (m model) quantiles(of measure, t target) (q fleet.ForecastQuantiles, prior string) {
	all := m.samples(of, t)
	m.blendFor(of, t).weigh(all, of, t)
	var sum, weight float64
	for _, x := range all {
		sum, weight = sum+x.v*x.w, weight+x.w
	}
	if weight <= 0 {
		return m.prior(of, t)
	}
	var out [levels]float64
	believed := min(float64(len(all))/enough, 1)
	mean, spread := sum/weight, spreadOf(all)
	for i, p := range quantiles() {
		out[i] = empirical(all, weight, p)
		if believed < 1 {
			out[i] = believed*out[i] + (1-believed)*float64(NegativeBinomial(p, mean, max(spread, priorIDC)))
			prior = "part of the spread (twice that of chance) until there are more samples"
		}
	}
	return spelled(out), prior
}

// prior forecasts a window longer than anything seen: the rate of what was
// seen, with the uncertainty that so short a look leaves (the predictive
// distribution of a Poisson count whose rate was seen for as long, gamma
// distributed: Gelman et al., Bayesian Data Analysis, 2.6).
func (m model) prior(of measure, t target) (fleet.ForecastQuantiles, string) {
	const look = 24 * 60
	w := m.s.read(t.now-look, look)
	if w.known == 0 {
		w = m.s.read(m.s.start, len(m.s.peaks))
	}
	if w.known == 0 {
		return fleet.ForecastQuantiles{}, "everything"
	}
	ratio := float64(t.n) / float64(w.known)
	mean, spread := (w.arrivals+0.5)*ratio, max(priorIDC, 1+ratio)
	if of == ofDemand {
		mean, spread = w.peak, priorIDC
	}
	var out [levels]float64
	for i, p := range quantiles() {
		out[i] = float64(NegativeBinomial(p, mean, spread))
	}
	return spelled(out), "that the rate seen so far goes on, with the uncertainty of so short a look"
}

func spelled(q [levels]float64) fleet.ForecastQuantiles {
	for i := range q {
		q[i] = max(q[i], 0)
		if i > 0 {
			q[i] = max(q[i], q[i-1])
		}
		q[i] = math.Round(q[i]*100) / 100
	}
	return fleet.ForecastQuantiles{P10: q[0], P50: q[1], P90: q[2], P95: q[3], P99: q[4]}
}

func weekend(t time.Time) bool { return t.Weekday() == time.Saturday || t.Weekday() == time.Sunday }

// empirical is the smallest sorted value at which a share p of the weight is
// reached.
func empirical(sorted []sample, weight, p float64) float64 {
	sum := 0.0
	for _, x := range sorted {
		if sum += x.w; sum >= p*weight-1e-12 {
			return x.v
		}
	}
	return sorted[len(sorted)-1].v
}

// spreadOf is the index of dispersion of samples.
func spreadOf(s []sample) float64 {
	var d digest
	for _, x := range s {
		d.weight, d.sum, d.square = d.weight+x.w, d.sum+x.w*x.v, d.square+x.w*x.v*x.v
	}
	return d.dispersion()
}
