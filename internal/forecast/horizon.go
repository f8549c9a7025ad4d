package forecast

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The horizons that can be asked for.
const (
	MinHorizon = time.Minute
	MaxHorizon = 14 * 24 * time.Hour
)

// stepOf is the length of the steps of a horizon: at most 28 of them, and each
// a length that people count in.
func stepOf(horizon time.Duration) time.Duration {
	for _, step := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour} {
		if horizon <= 28*step {
			return step
		}
	}
	return 24 * time.Hour
}

// Forecast returns quantiles of arrivals and of demand for each step of the
// horizon, which is cut to MinHorizon and MaxHorizon and up to full steps. The
// zone says which hours of other days are alike; nil is UTC. With no history
// there are no steps, and the basis says so.
//
// Each quantile is that of a weighted sample of past windows: half the weight
// on the same time of the week in the last six weeks (and before, from the
// sketch), half on the windows just before now. It is a sample of what was, so
// it cannot foresee what never was: a launch, a holiday.
func (h *History) Forecast(now time.Time, horizon time.Duration, zone *time.Location) fleet.Forecast {
	return h.forecast(h.Series(), now, horizon, zone)
}

func (h *History) forecast(s *Series, now time.Time, horizon time.Duration, zone *time.Location) fleet.Forecast {
	if zone == nil {
		zone = time.UTC
	}
	horizon = min(max(horizon, MinHorizon), MaxHorizon)
	step := stepOf(horizon)
	f := fleet.Forecast{
		At: now.UTC(), Timezone: zone.String(), HorizonSeconds: horizon.Seconds(), StepSeconds: step.Seconds(),
		Basis: h.basis(s), Steps: []fleet.ForecastStep{}, Peaks: []fleet.ForecastPeak{},
	}
	if f.Basis.Kind == basisNone {
		return f
	}
	m := model{s: s.before(minuteOf(now)), older: &h.sketch, blend: map[contestKey]blend{}}
	n := int(step / time.Minute)
	t := target{now: minuteOf(now), from: minuteOf(now), n: n, zone: zone}
	for ; t.from < minuteOf(now)+int64((horizon+time.Minute-1)/time.Minute); t.from += int64(n) {
		arrivals, assumed := m.quantiles(ofArrivals, t)
		demand, also := m.quantiles(ofDemand, t)
		f.Steps = append(f.Steps, fleet.ForecastStep{From: timeOf(t.from), Arrivals: arrivals, Demand: demand})
		if f.Basis.Prior == "" {
			f.Basis.Prior = assumed
		}
		if f.Basis.Prior == "" {
			f.Basis.Prior = also
		}
	}
	if f.Basis.Prior != "" {
		f.Basis.Sentence += "; assumed: " + f.Basis.Prior
	}
	return f
}

// The kinds of basis.
const (
	basisNone   = "none"
	basisRecent = "recent"
	basisWeekly = "weekly"
)

// basis says what a forecast rests on.
func (h *History) basis(s *Series) fleet.ForecastBasis {
	b := fleet.ForecastBasis{Kind: basisNone, KnownMinutes: s.Known(), OlderWeeks: h.sketch.weeks()}
	if b.KnownMinutes == 0 && b.OlderWeeks == 0 {
		b.Sentence = "cold start: no history, so nothing is forecast"
		return b
	}
	first := 0
	for first < len(s.peaks) && s.peaks[first] < 0 {
		first++
	}
	span := len(s.peaks) - first
	if span > 0 {
		b.Since = timeOf(s.start + int64(first))
		b.UnseenShare = math.Round(1e4*(1-float64(b.KnownMinutes)/float64(span))) / 1e4
	}
	b.Kind, b.Sentence = basisWeekly, "from "+spanText(span)+" of history"
	if span < 8*24*60 && b.OlderWeeks == 0 {
		b.Kind = basisRecent
		b.Sentence += "; no weekly pattern yet, that takes two weeks"
	} else if span < 14*24*60 && b.OlderWeeks == 0 {
		b.Sentence += "; each hour of the week was seen once or twice"
	}
	if b.UnseenShare >= 0.005 {
		b.Sentence += fmt.Sprintf(", %.0f %% of its minutes unseen (unknown, not empty)", 100*b.UnseenShare)
	}
	if b.OlderWeeks > 0 {
		b.Sentence += fmt.Sprintf(", and %s before by the hour", count(b.OlderWeeks, "week"))
	}
	return b
}

// weeks is how many weeks the sketch has seen of the hour it knows best.
func (s *sketch) weeks() int {
	most := 0
	for _, x := range s {
		if x != nil {
			most = max(most, int(x.weeks))
		}
	}
	return most
}

// spanText is a number of minutes in words, in the unit that people count in.
func spanText(minutes int) string {
	switch {
	case minutes >= 14*24*60:
		weeks := math.Round(float64(minutes)/week*10) / 10
		return strconv.FormatFloat(weeks, 'f', -1, 64) + " weeks"
	case minutes >= 48*60:
		return count(minutes/(24*60), "day")
	case minutes >= 120:
		return count(minutes/60, "hour")
	}
	return count(minutes, "minute")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
