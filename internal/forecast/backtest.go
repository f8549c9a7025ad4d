package forecast

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	// warmUp is the history that a forecast of a back-test has at least.
	warmUp = 14 * 24 * 60
	// stride is the time between two forecasts of a back-test: no divisor of a
	// day or a week, so that every hour has its turn.
	stride = 7*60 + 13
	// maxOrigins bounds the forecasts for one horizon; a longer series takes
	// longer strides.
	maxOrigins = 500
	week       = 7 * 24 * 60
)

// horizons of a back-test.
func horizons() []time.Duration {
	return []time.Duration{
		time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, MaxHorizon,
	}
}

// Backtest makes forecasts at many times of the past, each from the (at most
// six) weeks that were known then and nothing later, and scores them with the
// pinball loss (Koenker and Bassett, Regression Quantiles, 1978) beside simple
// rivals. What is forecast is the last step of each horizon. The first forecast
// is made two weeks into the series.
func Backtest(s *Series, zone *time.Location) fleet.ForecastBacktest {
	if zone == nil {
		zone = time.UTC
	}
	out := fleet.ForecastBacktest{Scores: []fleet.ForecastScore{}}
	first := s.start + warmUp
	if first >= s.end() {
		out.Sentence = fmt.Sprintf("a back-test needs more than two weeks of history; there are %s", spanText(len(s.peaks)))
		return out
	}
	out.From, out.Until = timeOf(first), timeOf(s.end())
	for _, of := range []measure{ofArrivals, ofDemand} {
		for _, h := range horizons() {
			if c := contest(s, of, h, zone); c.Forecasts > 0 {
				out.Scores = append(out.Scores, c)
			}
		}
	}
	out.Sentence = verdict(out.Scores)
	return out
}

// verdict says how it went, the losses included.
func verdict(scores []fleet.ForecastScore) string {
	won, even, ratio := 0, 0, 0.0
	for _, s := range scores {
		if s.Loss < s.SeasonalNaive {
			won++
		}
		if s.Loss < s.SeasonalSpread {
			even++
		}
		if s.SeasonalNaive > 0 {
			ratio += s.Loss / s.SeasonalNaive / float64(len(scores))
		}
	}
	return fmt.Sprintf("better than the same time last week in %d of %d contests (mean loss %.2f of its), than that with its own spread in %d",
		won, len(scores), ratio, even)
}

// contest scores one measure over one horizon.
func contest(s *Series, of measure, horizon time.Duration, zone *time.Location) fleet.ForecastScore {
	n, ahead := int(stepOf(horizon)/time.Minute), int64(horizon/time.Minute)
	sc := fleet.ForecastScore{Of: "arrivals", HorizonSeconds: horizon.Seconds(), StepSeconds: stepOf(horizon).Seconds()}
	if of == ofDemand {
		sc.Of = "demand"
	}
	first := s.start + warmUp
	var blends map[contestKey]blend
	chosen := int64(0)
	every := max(stride, (s.end()-first)/maxOrigins)
	for now := first; now+ahead <= s.end(); now += every {
		t := target{now: now, from: now + ahead - int64(n), n: n, zone: zone}
		actual, ok := s.value(of, t.from, n)
		if !ok {
			continue
		}
		past := s.before(now).after(now - rawDays*24*60)
		last, ok := lastWeek(past, of, t)
		if !ok {
			continue // a rival that cannot play is not beaten
		}
		if blends == nil || now-chosen >= min(week, (now-s.start)/8) { // as often as is quick enough
			blends, chosen = map[contestKey]blend{}, now
		}
		q, _ := model{s: past, blend: blends}.quantiles(of, t)
		ours := [...]float64{q.P10, q.P50, q.P90, q.P95, q.P99}
		spread, flat := errorsAround(past, of, t, last), flatMean(past, of, t)
		sc.Forecasts++
		for i, p := range quantiles() {
			sc.Loss += pinball(p, ours[i], actual) / levels
			sc.SeasonalNaive += pinball(p, last, actual) / levels
			sc.SeasonalSpread += pinball(p, spread[i], actual) / levels
			sc.FlatMean += pinball(p, flat, actual) / levels
		}
		sc.MedianLoss += pinball(0.5, q.P50, actual)
		sc.MedianSeasonal += pinball(0.5, last, actual)
		sc.MedianFlat += pinball(0.5, flat, actual)
		sc.Under90 += under(actual, q.P90)
		sc.Under99 += under(actual, q.P99)
	}
	mean := 1 / float64(max(sc.Forecasts, 1))
	for _, v := range []*float64{
		&sc.Loss, &sc.SeasonalNaive, &sc.SeasonalSpread, &sc.FlatMean,
		&sc.MedianLoss, &sc.MedianSeasonal, &sc.MedianFlat, &sc.Under90, &sc.Under99,
	} {
		*v *= mean
	}
	return sc
}

func under(actual, q float64) float64 {
	if actual <= q {
		return 1
	}
	return 0
}

// pinball is the loss of forecasting f for the p-quantile when y came.
func pinball(p, f, y float64) float64 {
	if y >= f {
		return p * (y - f)
	}
	return (1 - p) * (f - y)
}

// lastWeek is the value at the same time of the last whole week before now.
func lastWeek(s *Series, of measure, t target) (float64, bool) {
	days := 7
	for t.back(days)+int64(t.n) > t.now {
		days += 7
	}
	return s.value(of, t.back(days), t.n)
}

// errorsAround spreads a seasonal-naive forecast by the errors that the same
// rule made before: in the last four weeks at the same time of each day.
func errorsAround(s *Series, of measure, t target, point float64) (out [levels]float64) {
	var misses []float64
	for days := 0; days < 28; days++ {
		from := t.back(days)
		if from+int64(t.n) > t.now {
			continue
		}
		was, ok := s.value(of, from, t.n)
		before, also := s.value(of, from-week, t.n)
		if ok && also {
			misses = append(misses, was-before)
		}
	}
	slices.SortFunc(misses, cmp.Compare)
	for i, p := range quantiles() {
		out[i] = point
		if len(misses) > 0 {
			out[i] = max(0, point+misses[min(int(p*float64(len(misses))), len(misses)-1)])
		}
	}
	return out
}

// flatMean is the mean of the last day.
func flatMean(s *Series, of measure, t target) float64 {
	w := s.rates(t.now-24*60, 24*60)
	if of == ofDemand {
		return w.demand
	}
	return w.arrivals * float64(t.n) / float64(max(w.known, 1))
}
