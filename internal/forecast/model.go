package forecast

import (
	"cmp"
	"math"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The model has no parameter that is fitted to a trace. The constants below
// were compared on three public traces of arrivals over horizons from one
// minute to two weeks; the losses change by a few per cent in their
// neighbourhood.
const (
	rawDays = RawWeeks * 7
	// otherDays is the weight of the same hour of another day of the last two
	// weeks, working days and weekends apart, beside that of the same weekday.
	otherDays   = 0.25
	nearDays    = 14
	kernel      = 15   // minutes around the time of day that are like it
	recentShare = 0.5  // of the weight, beside the same hours of other weeks
	recentSteps = 60   // windows looked back at
	recentReach = 2.0  // memory of the recent windows, in leads
	nowMemory   = 15.0 // minutes until the present demand says no more than the last hours
	levelReach  = 180  // minutes ahead up to which the present level scales the season
	levelPower  = 0.5  // of the ratio of level to season
	enough      = 12.0 // samples that make the prior superfluous
)

// levels is how many quantiles are forecast.
const levels = 5

func quantiles() [levels]float64 { return [...]float64{0.10, 0.50, 0.90, 0.95, 0.99} }

// sample is a value that was seen, and how much it counts.
type sample struct{ v, w float64 }

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
}

// quantiles forecasts one window. The prior is what had to be assumed, empty
// when nothing was.
func (m model) quantiles(of measure, t target) (q fleet.ForecastQuantiles, prior string) {
	all := m.samples(of, t)
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

// samples are windows like the target, sorted by value: the same time in other
// weeks, and the last windows before now. The two groups share the weight.
func (m model) samples(of measure, t target) []sample {
	season := m.season(of, t)
	recent := m.recent(of, t)
	share := recentShare
	if of == ofDemand {
		// Tasks that run now still run in a minute.
		share += (1 - recentShare) * math.Exp(-(t.lead()-1)/nowMemory)
	}
	switch {
	case len(season) == 0:
		share = 1
	case len(recent) == 0:
		share = 0
	}
	if t.lead() <= levelReach {
		scale(season, math.Pow(m.level(of, t), levelPower))
	}
	weigh(season, 1-share)
	weigh(recent, share)
	all := append(season, recent...)
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.v, b.v) })
	return all
}

// season are the windows at the same time of the week in the last six weeks,
// those near them, the same hours of days alike, and the sketch.
func (m model) season(of measure, t target) []sample {
	var out []sample
	at := timeOf(t.from).In(t.zone)
	around := 0
	if t.n <= minutesOfHour {
		around = max(1, kernel/t.n)
	}
	for days := 1; days <= rawDays; days++ {
		w := math.Pow(forget, float64(days)/7-1)
		if days%7 != 0 {
			if days > nearDays || weekend(at) != weekend(at.AddDate(0, 0, -days)) {
				continue
			}
			w *= otherDays
		}
		base := t.back(days)
		for j := -around; j <= around; j++ {
			from := base + int64(j*t.n)
			if from+int64(t.n) > t.now {
				continue
			}
			if v, ok := m.s.value(of, from, t.n); ok {
				near := float64(around + 1)
				out = append(out, sample{v, w * (near - math.Abs(float64(j))) / (near * near)})
			}
		}
	}
	return m.remembered(out, of, t)
}

// remembered appends what the sketch says of the window: for one within an
// hour its distribution, for a longer one the sum (arrivals) or the largest
// (demand) of the hours' means.
func (m model) remembered(out []sample, of measure, t target) []sample {
	if m.older == nil {
		return out
	}
	part := partArrivals
	if of == ofDemand {
		part = partDemand
	}
	first, last := floorDiv(t.from, minutesOfHour), floorDiv(t.from+int64(t.n)-1, minutesOfHour)
	old := math.Pow(forget, RawWeeks)
	if first == last {
		x := m.older.of(first)
		if x == nil {
			return out
		}
		for _, b := range x.parts[part].masses {
			v := massTop(b.bucket)
			if of == ofArrivals {
				v *= float64(t.n) / minutesOfHour
			}
			out = append(out, sample{v, old * float64(b.weight)})
		}
		return out
	}
	var v, weight, hours float64
	for i := first; i <= last; i++ {
		x := m.older.of(i)
		if x == nil || x.parts[part].weight <= 0 {
			continue
		}
		hours++
		weight += x.parts[part].weight
		if of == ofArrivals {
			v += x.parts[part].mean()
		} else {
			v = max(v, x.parts[part].mean())
		}
	}
	if hours == 0 {
		return out
	}
	if of == ofArrivals {
		v *= float64(t.n) / minutesOfHour / hours
	}
	return append(out, sample{v, old * weight / hours})
}

// recent are the last windows of the same length, the nearest counting most;
// the further ahead the target, the longer the memory.
func (m model) recent(of measure, t target) []sample {
	var out []sample
	memory := recentReach * t.lead()
	for k := 1; k <= recentSteps && k*t.n <= rawDays*24*60; k++ {
		w := math.Exp(-float64((k-1)*t.n) / memory)
		if w < 0.01 {
			break
		}
		if v, ok := m.s.value(of, t.now-int64(k*t.n), t.n); ok {
			out = append(out, sample{v, w})
		}
	}
	return out
}

// level is how busy the last while was beside the same while in other weeks,
// between a quarter and four; 1 where it cannot be told.
func (m model) level(of measure, t target) float64 {
	n := int(max(2*t.lead(), minutesOfHour))
	while := target{now: t.now, from: t.now - int64(n), n: n, zone: t.zone}
	read := func(from int64) (float64, bool) {
		w := m.s.rates(from, n)
		if of == ofDemand {
			return w.demand, 2*w.known >= n
		}
		return w.arrivals * float64(n) / float64(max(w.known, 1)), 2*w.known >= n
	}
	is, ok := read(while.from)
	if !ok {
		return 1
	}
	var sum, weight float64
	for days := 7; days <= rawDays; days += 7 {
		if v, ok := read(while.back(days)); ok {
			w := math.Pow(forget, float64(days)/7)
			sum, weight = sum+w*v, weight+w
		}
	}
	if weight == 0 {
		return 1
	}
	few := 1.0 // keeps the ratio of small numbers near one
	if of == ofArrivals {
		few = 5
	}
	return min(max((is+few)/(sum/weight+few), 0.25), 4)
}

func weekend(t time.Time) bool { return t.Weekday() == time.Saturday || t.Weekday() == time.Sunday }

func scale(s []sample, by float64) {
	for i := range s {
		s[i].v *= by
	}
}

// weigh makes the weights sum to total.
func weigh(s []sample, total float64) {
	sum := 0.0
	for _, x := range s {
		sum += x.w
	}
	for i := range s {
		s[i].w *= total / sum
	}
}

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
