package forecast

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func fold(minutes int) *Fold { return &Fold{Period: time.Duration(minutes) * time.Minute, Alpha: 0.15} }

// TestFoldHourlyJob: six of seven tasks come at ten past the hour; after a few
// hours, and not before, they are announced, and forgotten when they stop.
func TestFoldHourlyJob(t *testing.T) {
	f := &Fold{Period: time.Hour, Alpha: 0.2}
	at := func(hour, second int) time.Time {
		return t0.Add(time.Duration(hour)*time.Hour + time.Duration(second)*time.Second)
	}
	hours := func(from, to int, n int64) {
		for h := from; h < to; h++ {
			f.Observe(at(h, 600), n)
			f.Observe(at(h, 1000+h*97%2000), 1)
			f.Observe(at(h, 3599), 0)
		}
	}
	due := func(hour int) float64 { return f.Due(at(hour, 560), 45*time.Second) }
	hours(0, 1, 6)
	if due(1) != 0 {
		t.Errorf("announced after once: %.1f", due(1))
	}
	hours(1, 12, 6)
	if due(12) < 5 || due(12) > 6 {
		t.Errorf("%.1f announced, want nearly 6", due(12))
	}
	if got := f.Due(at(12, 500), 45*time.Second); got != 0 {
		t.Errorf("%.1f announced 100 s before", got)
	}
	if next := f.Next(at(12, 0), 45*time.Second); next.Before(at(12, 550)) || next.After(at(12, 555)) {
		t.Errorf("wakes at %s, want 45 s before %s", next, at(12, 600))
	}
	// What came is no longer due.
	f.Observe(at(12, 600), 6)
	if got := f.Due(at(12, 601), 45*time.Second); got != 0 {
		t.Errorf("%.1f announced though they came", got)
	}
	hours(13, 40, 0)
	if due(40) != 0 || f.Hot != 0 {
		t.Errorf("%.1f announced a day after they stopped, %d hot", due(40), f.Hot)
	}
}

// TestFoldNextMissesNoChange: until Next nothing that is due changes.
func TestFoldNextMissesNoChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := fold(rapid.SampledFrom([]int{1, 10, 60}).Draw(t, "minutes"))
		f.Observe(t0, 0)
		for i := range f.Share {
			if rapid.IntRange(0, 9).Draw(t, "busy") == 0 {
				f.Share[i], f.Size[i] = rapid.Float64Range(0, 1).Draw(t, "share"), rapid.Float64Range(0, 80).Draw(t, "size")
			}
		}
		f.Sum, f.Hot = 0, 0
		for i := range f.Share {
			f.Sum += f.Share[i]
			if f.hot(int64(i)) {
				f.Hot++
			}
		}
		horizon := time.Duration(rapid.IntRange(1, 200_000).Draw(t, "horizon")) * time.Millisecond
		now := t0.Add(time.Duration(rapid.IntRange(0, 3_600_000).Draw(t, "now")) * time.Millisecond)
		due, next := f.Due(now, horizon), f.Next(now, horizon)
		if !(due >= 0) || math.IsInf(due, 0) {
			t.Fatalf("%v due", due)
		}
		end := next
		if next.IsZero() {
			end = now.Add(f.Period)
		} else if !next.After(now) {
			t.Fatalf("wakes at %s, and it is %s", next, now)
		}
		for range 20 {
			at := now.Add(time.Duration(rapid.Int64Range(0, int64(end.Sub(now))-1).Draw(t, "at")))
			if got := f.Due(at, horizon); math.Abs(got-due) > 1e-9 {
				t.Fatalf("%v due at %s, %v at %s, and Next is %s", due, now, got, at, next)
			}
		}
	})
}

// readBack takes a fold through JSON, as a restart does.
func readBack(t *rapid.T, f *Fold) *Fold {
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	out := &Fold{}
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFoldKeepsItsSums: whatever is observed, the counts that are kept agree
// with the phases, and what is said with what was not asked before, also after JSON, jumps of the clock and long silence.
func TestFoldKeepsItsSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := fold(10), t0
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5, 60, 600, 7200, 200_000, -1, -600, -100_000}).Draw(t, "step")) * time.Second)
			f.Observe(now, int64(rapid.IntRange(0, 3).Draw(t, "n")))
			fresh := readBack(t, f) // remembers nothing that was asked
			for _, at := range []time.Time{now, now, now.Add(3 * time.Second)} {
				const horizon = 47 * time.Second
				if due, next := f.Due(at, horizon), f.Next(at, horizon); due != fresh.Due(at, horizon) || !next.Equal(fresh.Next(at, horizon)) {
					t.Fatalf("%v due at %s, next %s; asked for the first time: %v, %s", due, at, next, fresh.Due(at, horizon), fresh.Next(at, horizon))
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				f = fresh
			}
		}
		sum, hot := 0.0, 0
		for i, s := range f.Share {
			if s < 0 || s > 1 {
				t.Fatalf("phase %d is hit in %v of the cycles", i, s)
			}
			sum += s
			if f.hot(int64(i)) {
				hot++
			}
		}
		if math.Abs(sum-f.Sum) > 1e-6 || hot != f.Hot {
			t.Fatalf("sum %v, kept %v; hot %d, kept %d", sum, f.Sum, hot, f.Hot)
		}
	})
}
