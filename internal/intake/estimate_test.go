package intake

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func at(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }

// TestEstimateOfAQueueThatTellsItsLengthOnly: a list, and we alone take from it.
func TestEstimateOfAQueueThatTellsItsLengthOnly(t *testing.T) {
	var e estimate
	for _, s := range []struct {
		at, backlog int
		taken       int64 // by us, so far
		arrived     int64
		oldest      time.Time
	}{
		{0, 0, 0, 0, time.Time{}},
		{1, 3, 0, 3, at(1)},
		{2, 5, 0, 5, at(1)},
		{3, 4, 2, 6, at(1)},       // two taken, one more came
		{4, 2, 4, 6, at(2)},       // the three of second 1 are gone
		{5, 1, 5, 6, at(3)},       // and those of second 2
		{6, 0, 6, 6, time.Time{}}, // all
		{7, 0, 6, 6, time.Time{}}, // nothing happened
		{8, 100, 6, 106, at(8)},   // a burst
		{9, 40, 6, 106, at(8)},    // others took 60
		{10, 41, 6, 107, at(8)},   // one more
		{11, 1, 46, 107, at(10)},  // all but the last
		{12, 1, 46, 107, at(10)},  // which waits
	} {
		got := e.read(fleet.SignalStats{AsOf: at(s.at), Backlog: int64(s.backlog)}, fleet.SignalTraits{}, s.taken)
		if got.Arrived != s.arrived || !got.Oldest.Equal(s.oldest) {
			t.Errorf("second %d: %d arrived, the oldest at %s; want %d, %s", s.at, got.Arrived, got.Oldest.Format("05"), s.arrived, s.oldest.Format("05"))
		}
	}
}

// TestEstimateWithWhatIsInFlight: leased messages are still there to be counted.
func TestEstimateWithWhatIsInFlight(t *testing.T) {
	var e estimate
	tr := fleet.SignalTraits{InFlight: true}
	for _, s := range []struct {
		at, backlog, inFlight int
		settled, arrived      int64
	}{{0, 0, 0, 0, 0}, {1, 4, 0, 0, 4}, {2, 1, 3, 0, 4}, {3, 1, 1, 2, 4}, {4, 3, 0, 3, 6}} {
		got := e.read(fleet.SignalStats{AsOf: at(s.at), Backlog: int64(s.backlog), InFlight: int64(s.inFlight)}, tr, s.settled)
		if got.Arrived != s.arrived {
			t.Errorf("second %d: %d arrived, want %d", s.at, got.Arrived, s.arrived)
		}
	}
}

func TestEstimateLeavesAloneWhatIsTold(t *testing.T) {
	var e estimate
	in := fleet.SignalStats{AsOf: at(9), Backlog: 5, Arrived: 77, Oldest: at(1)}
	if got := e.read(in, fleet.SignalTraits{Arrived: true, Oldest: true}, 0); got != in {
		t.Errorf("got %+v", got)
	}
}

// TestEstimateHolds: whatever happens, the count of arrivals never falls, the
// oldest is there exactly while something waits, and memory is bounded.
func TestEstimateHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e estimate
		var backlog, taken, last int64
		for i := range rapid.IntRange(1, 3*maxMarks).Draw(t, "readings") {
			backlog = max(0, backlog+rapid.Int64Range(-5, 6).Draw(t, "moved"))
			taken += rapid.Int64Range(0, 2).Draw(t, "taken")
			got := e.read(fleet.SignalStats{AsOf: at(i), Backlog: backlog}, fleet.SignalTraits{}, taken)
			if got.Arrived < last {
				t.Fatalf("arrivals fell from %d to %d", last, got.Arrived)
			}
			last = got.Arrived
			if got.Oldest.IsZero() != (backlog == 0) || got.Oldest.After(at(i)) {
				t.Fatalf("backlog %d, the oldest at %s", backlog, got.Oldest)
			}
			if len(e.marks) > maxMarks {
				t.Fatalf("%d marks", len(e.marks))
			}
		}
	})
}

func TestMix(t *testing.T) {
	m := mix{first: "p"}
	if got := m.split(7); len(got) != 1 || got["p"] != 7 {
		t.Errorf("before anything was read: %v", got)
	}
	for range 30 {
		m.took("a")
	}
	for range 10 {
		m.took("b")
	}
	if got := m.split(100); got["a"] < 65 || got["a"] > 75 || got["a"]+got["b"] != 100 {
		t.Errorf("after 30 of a and 10 of b: %v", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1_000_000).Draw(t, "n")
		var sum int64
		for _, v := range m.split(n) {
			sum += v
		}
		if sum != n {
			t.Fatalf("the parts of %d add up to %d", n, sum)
		}
	})
}
