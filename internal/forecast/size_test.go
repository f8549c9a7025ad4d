package forecast

import (
	"math/rand/v2"
	"testing"
)

// TestHistoryIsCompact keeps the sizes that doc.go and docs/forecast.md give.
func TestHistoryIsCompact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		most int
		draw func() Minute
	}{
		{"idle", 14 << 10, func() Minute { return Minute{Known: true} }},
		{"busy", 400 << 10, func() Minute {
			return Minute{Known: true, Arrivals: r.IntN(100), Mean: 400 + 100*r.Float64(), Peak: 500 + r.IntN(20)}
		}},
		{"worst", MaxEncoded, func() Minute {
			return Minute{Known: true, Arrivals: maxArrivals - r.IntN(9), Mean: r.Float64(), Peak: maxDemand - r.IntN(9)}
		}},
	} {
		h := &History{}
		for m := range int64(RawWeeks * week) {
			h.Record(timeOf(minuteOf(t0)+m), c.draw())
		}
		n := len(h.EncodePast())
		t.Logf("%s: %d bytes", c.name, n)
		if n > c.most {
			t.Errorf("six %s weeks take %d bytes, want at most %d", c.name, n, c.most)
		}
	}
}
