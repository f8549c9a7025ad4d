package sim

import "testing"

func TestWaitsAbove(t *testing.T) {
	var w Waits
	for _, ms := range []int64{0, 4990, 5000, 5010, 50_000, 300_000, 3_000_000} {
		w.add(ms)
	}
	for _, c := range []struct{ ms, want int64 }{{0, 6}, {5000, 4}, {60_000, 2}, {1_000_000, 1}, {10_000_000, 0}} {
		if got := w.above(c.ms); got != c.want {
			t.Errorf("%d waits above %d ms, want %d", got, c.ms, c.want)
		}
	}
}
