package forecast

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

var t0 = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func TestNegativeBinomialAgainstKnownQuantiles(t *testing.T) {
	for _, c := range []struct {
		q, mean, idc float64
		want         int
	}{
		{0.99, 0, 2, 0},
		{0.5, 1, 1, 1},      // Poisson(1): P(<=1) = 0.736, P(0) = 0.368
		{0.99, 1, 1, 4},     // P(<=3) = 0.981, P(<=4) = 0.996
		{0.99, 10, 1, 18},   // Poisson(10)
		{0.95, 100, 1, 117}, // Poisson(100)
	} {
		if got := NegativeBinomial(c.q, c.mean, c.idc); got != c.want {
			t.Errorf("NegativeBinomial(%v, %v, %v) = %d, want %d", c.q, c.mean, c.idc, got, c.want)
		}
	}
}

func TestNegativeBinomialGrowsWithEveryArgument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.Float64Range(0.5, 0.999).Draw(t, "q")
		mean := rapid.Float64Range(0, 5000).Draw(t, "mean")
		got := NegativeBinomial(q, mean, 3)
		if got < 0 {
			t.Fatalf("negative count %d", got)
		}
		if more := NegativeBinomial(q, mean*1.1+1, 3); more < got-1 {
			t.Fatalf("mean up, quantile down: %d then %d", got, more)
		}
		if more := NegativeBinomial(min(q+0.0005, 0.9999), mean, 3); more < got {
			t.Fatalf("q up, quantile down: %d then %d", got, more)
		}
		if sd := math.Sqrt(3 * mean); float64(got) > mean+20*sd+20 {
			t.Fatalf("mean %v: quantile %d is absurd", mean, got)
		}
	})
}

func TestArrivalsMeasureRateAndDispersion(t *testing.T) {
	var even, bursty Arrivals
	for i := range 1200 { // 20 minutes, one a second; or 30 every 30 seconds
		now := t0.Add(time.Duration(i) * time.Second)
		even.Observe(now, int64(i), 5*time.Second)
		bursty.Observe(now, int64(i/30*30), 5*time.Second)
	}
	if r := even.Rate(); math.Abs(r-1) > 0.2 {
		t.Errorf("even rate %v, want about 1", r)
	}
	if d := even.Dispersion(); d != 1 {
		t.Errorf("even dispersion %v, want 1", d)
	}
	if d := bursty.Dispersion(); d < 15 {
		t.Errorf("bursty dispersion %v, want about 25", d)
	}
	if b := bursty.Burst(0.99); b < 30 || b > 48 {
		t.Errorf("burst %d, want about 30", b)
	}
	if even.Quantile(0.99, 5*time.Second) >= bursty.Quantile(0.99, 5*time.Second) {
		t.Error("bursts must ask for more stock than an even stream")
	}
}

func TestArrivalsForgetWhenQuiet(t *testing.T) {
	var a Arrivals
	a.Observe(t0, 0, time.Second)
	a.Observe(t0.Add(time.Second), 500, time.Second)
	a.Observe(t0.Add(3*time.Hour), 500, time.Second)
	if q := a.Quantile(0.99, time.Second); q != 0 {
		t.Errorf("after three quiet hours the stock is %d, want 0", q)
	}
}

func TestArrivalsSpreadWhatCameUnwatched(t *testing.T) {
	var a Arrivals
	for i := range 300 {
		a.Observe(t0.Add(time.Duration(i)*time.Second), int64(i/2), 3*time.Second)
	}
	before := a.Quantile(0.99, 3*time.Second)
	a.Observe(t0.Add(900*time.Second), 450, 3*time.Second)
	if after, b := a.Quantile(0.99, 3*time.Second), a.Burst(0.99); after > before+2 || b > 3 {
		t.Errorf("an outage of the readings is no burst: stock %d then %d, burst %d", before, after, b)
	}
}

func TestArrivalsSurviveResetsAndClocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Arrivals
		now, n := t0, int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "readings") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "dt")))
			n = max(0, n+rapid.Int64Range(-50, 200).Draw(t, "dn"))
			a.Observe(now, n, time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "window")))
			for _, v := range []float64{a.Rate(), a.Dispersion(), a.Weight, a.Sum, a.Square} {
				if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
					t.Fatalf("state is broken: %+v", a)
				}
			}
			if q := a.Quantile(0.99, time.Minute); q < 0 {
				t.Fatalf("quantile %d", q)
			}
		}
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Arrivals
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.Quantile(0.99, time.Minute) != a.Quantile(0.99, time.Minute) {
			t.Fatal("state does not survive JSON")
		}
	})
}

func TestLeadsPriorThenMeasured(t *testing.T) {
	var l Leads
	prior := fleet.Lead{P50: time.Second, P95: 5 * time.Second, P99: 10 * time.Second, Samples: 3}
	if got := l.Quantiles(t0, time.Hour, prior); got.Samples != 0 || got.P95 != 5*time.Second {
		t.Errorf("without samples: %+v, want the prior with 0 samples", got)
	}
	for i := range 200 {
		l.Add(t0.Add(time.Duration(i)*time.Second), time.Duration(i)*time.Millisecond)
	}
	l.Add(t0, -time.Second)
	got := l.Quantiles(t0.Add(200*time.Second), time.Hour, prior)
	if got.Samples != maxLeads || got.P50 != 167*time.Millisecond || got.P99 != 199*time.Millisecond {
		t.Errorf("got %+v", got)
	}
	if old := l.Quantiles(t0.Add(48*time.Hour), time.Hour, prior); old.Samples != 5 {
		t.Errorf("old samples: %+v, want the newest five", old)
	}
}

func TestWeeklyRaisesAfterTwoWeeks(t *testing.T) {
	var w Weekly
	for h := range 2*hoursOfWeek + 1 {
		now := t0.Add(time.Duration(h) * time.Hour)
		n := int64(0)
		if now.Weekday() == time.Monday && now.Hour() == 9 {
			n = 3600
		}
		w.Observe(now, n)
		if h == hoursOfWeek/2 && w.Floor(t0.Add(time.Hour), 10*time.Second, 0.99) != 0 {
			t.Error("one week of history must not raise a floor")
		}
	}
	monday := t0.Add(2*hoursOfWeek*time.Hour + 59*time.Minute + 55*time.Second)
	if f := w.Floor(monday, 10*time.Second, 0.99); f < 10 {
		t.Errorf("five seconds before Monday 09:00 the floor is %d, want the peak's", f)
	}
	if f := w.Floor(monday.Add(4*time.Hour), 10*time.Second, 0.99); f != 0 {
		t.Errorf("Monday afternoon's floor is %d, want 0", f)
	}
}
