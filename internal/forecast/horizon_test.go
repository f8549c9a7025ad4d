package forecast

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast/forecasttest"
)

// loadOf is a synthetic load as minutes.
func loadOf(t testing.TB, start time.Time, weeks int) *Series {
	t.Helper()
	var tally Tally
	for _, x := range forecasttest.Load(1, start, weeks) {
		if err := tally.Add(x.At, x.Length); err != nil {
			t.Fatal(err)
		}
	}
	return tally.Series()
}

func checkSteps(t interface {
	Helper()
	Fatalf(string, ...any)
}, f fleet.Forecast) {
	t.Helper()
	for _, s := range f.Steps {
		for _, q := range []fleet.ForecastQuantiles{s.Arrivals, s.Demand} {
			if !(q.P10 >= 0 && q.P10 <= q.P50 && q.P50 <= q.P90 && q.P90 <= q.P95 && q.P95 <= q.P99) || math.IsInf(q.P99, 0) {
				t.Fatalf("%s: quantiles %+v", s.From, q)
			}
		}
	}
}

func TestQuantilesRiseWhateverWasSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		horizon := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 30 * time.Hour, 9 * 24 * time.Hour, 1000 * time.Hour}).Draw(t, "horizon")
		f := h.Forecast(h.at, horizon, nil)
		checkSteps(t, f)
		if n := len(f.Steps); n > 28 || (n == 0) != (f.Basis.Kind == basisNone) {
			t.Fatalf("%d steps on the basis %+v", n, f.Basis)
		}
	})
}

func TestColdStartIsSaid(t *testing.T) {
	var h History
	f := h.Report(Question{Now: t0})
	if f.Basis.Kind != basisNone || len(f.Steps) != 0 || len(f.Peaks) != 0 || len(f.Week.Arrivals) != 0 {
		t.Errorf("with no history: %+v", f)
	}
	if f.Basis.Sentence != "cold start: no history, so nothing is forecast" {
		t.Errorf("it says %q", f.Basis.Sentence)
	}
	watch(&h, t0, 10*time.Minute, time.Second, 6, 3)
	f = h.Report(Question{Now: h.at, Horizon: 14 * 24 * time.Hour, Backtest: true})
	if f.Basis.Kind != basisRecent || f.Basis.Prior == "" || len(f.Steps) != 14 {
		t.Errorf("with ten minutes: %+v, %d steps", f.Basis, len(f.Steps))
	}
	if q := f.Steps[0].Arrivals; q.P50 < 4000 || q.P50 > 14000 || q.P99 < 1.2*q.P50 {
		t.Errorf("a day at six a minute, seen for ten: %+v; want about 8640 and much doubt", q)
	}
	if f.Backtest == nil || len(f.Backtest.Scores) != 0 || f.Backtest.Sentence == "" {
		t.Errorf("a back-test of ten minutes: %+v", f.Backtest)
	}
	if len(f.Peaks) != 0 {
		t.Errorf("peaks of ten minutes: %+v", f.Peaks)
	}
}

// TestForecastKnowsMondays: seen from Sunday evening, Monday's rush is expected
// at nine, and not on Tuesday.
func TestForecastKnowsMondays(t *testing.T) {
	h := FromSeries(loadOf(t, t0.Truncate(24*time.Hour), 4))
	now := t0.Truncate(24*time.Hour).AddDate(0, 0, 28)
	f := h.Forecast(now, 48*time.Hour, time.UTC)
	checkSteps(t, f)
	at := func(hours int) fleet.ForecastStep { return f.Steps[hours/6] }
	if len(f.Steps) != 8 {
		t.Fatalf("%d steps", len(f.Steps))
	}
	if m, tu := at(6).Arrivals, at(30).Arrivals; m.P50 < 100 || tu.P50 > m.P50/2 || tu.P90 > m.P50 {
		t.Errorf("Monday 06:00-12:00 %+v, Tuesday %+v", m, tu)
	}
	near := h.Forecast(now.Add(8*time.Hour+30*time.Minute), 3*time.Hour, time.UTC)
	if q := near.Steps[3].Arrivals; q.P90 < 15 { // 09:15 to 09:30, at 90 an hour
		t.Errorf("half an hour before the rush a quarter of it is %+v", q)
	}
}

// TestForecastFollowsTheClocks: after the change of clocks nine o'clock is
// another hour of UTC, and the rush is expected at nine.
func TestForecastFollowsTheClocks(t *testing.T) {
	warsaw, err := time.LoadLocation("Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	// The clocks go back on Sunday 2026-10-25.
	start := time.Date(2026, 9, 28, 0, 0, 0, 0, warsaw)
	h := FromSeries(loadOf(t, start, 4))
	now := time.Date(2026, 10, 26, 0, 0, 0, 0, warsaw)
	f := h.Report(Question{Now: now, Horizon: 12 * time.Hour, Zone: warsaw})
	most := f.Steps[0]
	for _, s := range f.Steps {
		if s.Arrivals.P50 > most.Arrivals.P50 {
			most = s
		}
	}
	if got := most.From.In(warsaw); got.Hour() != 9 {
		t.Errorf("the rush is expected at %s", got)
	}
	if len(f.Peaks) != 2 || f.Peaks[0].Days != "Mondays" || f.Peaks[0].From != "09:00" || f.Peaks[0].Until != "10:30" || f.Peaks[1].Days != "weekdays" {
		t.Errorf("peaks: %+v", f.Peaks)
	}
	utc := h.Report(Question{Now: now, Zone: time.UTC})
	if len(utc.Peaks) == 0 || utc.Peaks[0].From != "07:00" {
		t.Errorf("in UTC the four rushes of summer were at seven: %+v", utc.Peaks)
	}
}

// TestTheSketchTakesOver: with all raw minutes unknown, the weeks before are
// still of use.
func TestTheSketchTakesOver(t *testing.T) {
	h := FromSeries(loadOf(t, t0.Truncate(24*time.Hour), 7))
	_, end := h.Series().Span()
	monday := end.AddDate(0, 0, 49).Truncate(24 * time.Hour).Add(8 * time.Hour)
	for monday.Weekday() != time.Monday {
		monday = monday.AddDate(0, 0, 1)
	}
	h.Record(monday, Minute{Known: true})
	h.Record(monday.Add(time.Hour), Minute{Known: true})
	f := h.Forecast(monday.Add(time.Hour), time.Hour, time.UTC)
	if f.Basis.OlderWeeks < 6 || f.Basis.Kind != basisWeekly {
		t.Errorf("basis %+v", f.Basis)
	}
	if q := f.Steps[0].Arrivals; q.P99 < 4 { // five minutes at 90 an hour
		t.Errorf("Monday 09:00 is %+v", q)
	}
}

func TestBacktestBeatsTheRivals(t *testing.T) {
	b := Backtest(loadOf(t, t0.Truncate(24*time.Hour), 6), time.UTC)
	if len(b.Scores) != 2*len(horizons()) {
		t.Fatalf("%d scores: %s", len(b.Scores), b.Sentence)
	}
	for _, s := range b.Scores {
		if s.Loss >= s.SeasonalNaive || s.Forecasts == 0 || s.Under99 < s.Under90 {
			t.Errorf("%+v", s)
		}
	}
}

// TestBacktestSeesNoFuture: changing what comes later changes no forecast.
func TestBacktestSeesNoFuture(t *testing.T) {
	s := loadOf(t, t0.Truncate(24*time.Hour), 4)
	now := s.start + 3*week + 600
	changed := s.before(now)
	for range 2 * week {
		changed.push(Minute{Known: true, Arrivals: 1000, Mean: 1000, Peak: 1000}.cell())
	}
	for _, n := range []int{1, 60, 1440} {
		for _, of := range []measure{ofArrivals, ofDemand} {
			tg := target{now: now, from: now + 90, n: n, zone: time.UTC}
			a, _ := model{s: s}.quantiles(of, tg)
			b, _ := model{s: changed}.quantiles(of, tg)
			c, _ := model{s: s.before(now)}.quantiles(of, tg)
			if a != b || a != c {
				t.Errorf("n=%d: %+v, %+v, %+v", n, a, b, c)
			}
		}
	}
}

func BenchmarkReport(b *testing.B) {
	h := FromSeries(loadOf(b, t0.Truncate(24*time.Hour), 6))
	_, end := h.Series().Span()
	for _, horizon := range []time.Duration{time.Hour, 24 * time.Hour, MaxHorizon} {
		b.Run(horizon.String(), func(b *testing.B) {
			for range b.N {
				h.Report(Question{Now: end, Horizon: horizon})
			}
		})
	}
}
