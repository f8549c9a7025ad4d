package forecast

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func same(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.AllowUnexported(History{}, slot{}, digest{}, mass{}, cell{}, partial{})); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// watch feeds a steady load, a reading every step.
func watch(h *History, from time.Time, length, step time.Duration, perMinute float64, demand int) (until time.Time) {
	base := h.last.Arrived
	for d := time.Duration(0); d <= length; d += step {
		h.Observe(from.Add(d), Reading{Arrived: base + int64(perMinute*d.Minutes()), Demand: demand})
	}
	return from.Add(length)
}

func TestHistoryTellsMinutesFromReadings(t *testing.T) {
	var h History
	watch(&h, t0, 3*time.Minute, time.Second, 60, 4)
	s := h.Series()
	if s.Known() != 3 {
		t.Fatalf("%d minutes known, want 3", s.Known())
	}
	for i := range int64(3) {
		w := s.read(minuteOf(t0)+i, 1)
		if math.Abs(w.arrivals-60) > 1 || w.demand != 4 || w.peak != 4 {
			t.Errorf("minute %d: %+v, want 60 arrivals and a demand of 4", i, w)
		}
	}
}

// TestAnOutageIsUnknownNotEmpty: nobody looked for ten minutes, in which the
// counter went up.
func TestAnOutageIsUnknownNotEmpty(t *testing.T) {
	var h History
	at := watch(&h, t0, 10*time.Minute, time.Second, 60, 4)
	watch(&h, at.Add(10*time.Minute), 10*time.Minute, time.Second, 60, 4)
	s := h.Series()
	if s.Known() != 20 {
		t.Errorf("%d minutes known, want 20", s.Known())
	}
	gap := s.read(minuteOf(at), 10)
	if gap.known != 0 || gap.arrivals != 0 {
		t.Errorf("the gap is %+v, want unknown", gap)
	}
	if v, ok := s.value(ofArrivals, minuteOf(t0), 30); !ok || math.Abs(v-1800) > 40 {
		t.Errorf("half an hour of 60 a minute, a third of it unseen: %v %v, want 1800", v, ok)
	}
	if _, ok := s.value(ofArrivals, minuteOf(at), 12); ok {
		t.Error("a window that was mostly unseen has no value")
	}
}

func TestHistoryBridgesShortGapsAndResets(t *testing.T) {
	var h History
	at := watch(&h, t0, 5*time.Minute, time.Second, 60, 4)
	h.Observe(at.Add(80*time.Second), Reading{Arrived: h.last.Arrived + 80, Demand: 4})
	h.Observe(at.Add(120*time.Second), Reading{Arrived: h.last.Arrived + 40, Demand: 4})
	if w := h.Series().read(minuteOf(at), 2); w.known != 2 || math.Abs(w.arrivals-120) > 1 {
		t.Errorf("over 80 s without a reading: %+v, want 120 arrivals in 2 minutes", w)
	}
	h.Observe(at.Add(121*time.Second), Reading{Arrived: 3}) // a new queue
	watch(&h, at.Add(122*time.Second), 2*time.Minute, time.Second, 0, 0)
	if w := h.Series().read(minuteOf(at)+2, 1); w.arrivals != 0 {
		t.Errorf("a counter that was reset made %v arrivals", w.arrivals)
	}
}

func TestHistorySurvivesClocks(t *testing.T) {
	var h History
	at := watch(&h, t0, 3*time.Hour, 10*time.Second, 6, 1)
	n := h.last.Arrived
	h.Observe(at.Add(-time.Second), Reading{Arrived: n + 5, Demand: 1})
	h.Observe(at.Add(time.Second), Reading{Arrived: n + 10, Demand: 1})
	if h.minute.arrivals < 5 { // half of ten, the other half is in the minute before
		t.Errorf("what came while the clock went back is lost: %+v", h.minute)
	}
	watch(&h, at.Add(-90*time.Minute), 30*time.Minute, 10*time.Second, 12, 2)
	s := h.Series()
	if _, until := s.Span(); until.After(at.Add(-time.Hour)) {
		t.Errorf("the history ends at %s, after the clock went back to %s", until, at.Add(-90*time.Minute))
	}
	if w := s.read(minuteOf(t0), 30); w.known != 30 {
		t.Errorf("of the hour that was gone back to, %d of the first 30 minutes are left", w.known)
	}
	h.Record(t0.AddDate(200, 0, 0), Minute{Known: true})
	if n := len(h.Series().peaks); n > rawHours*60+60 {
		t.Errorf("after a leap of 200 years the series has %d minutes", n)
	}
}

// TestOldWeeksGoToTheSketch: after six weeks minutes become hours of the week,
// and the memory stays bounded.
func TestOldWeeksGoToTheSketch(t *testing.T) {
	var h History
	for m := range int64(10 * week) {
		at := timeOf(minuteOf(t0) + m)
		n := 1
		if at.Weekday() == time.Monday && at.Hour() == 9 {
			n = 5
		}
		h.Record(at, Minute{Known: true, Arrivals: n, Mean: float64(n), Peak: n})
	}
	if len(h.blocks) != rawHours {
		t.Fatalf("%d hours are kept raw, want %d", len(h.blocks), rawHours)
	}
	x := h.sketch.of(floorDiv(minuteOf(t0), 60) + 1)
	if x == nil || x.weeks != 4 || x.parts[partArrivals].mean() != 300 || x.parts[partDemand].quantile(0.5) < 5 {
		t.Fatalf("Monday 09:00 in the sketch is %+v, want 300 tasks an hour in 4 weeks", x)
	}
	if d := x.parts[partArrivals].dispersion(); d != 1 {
		t.Errorf("every week alike has dispersion %v, want the least, 1", d)
	}
	b := h.basis(h.Series())
	if b.Kind != basisWeekly || b.OlderWeeks != 4 || b.UnseenShare != 0 {
		t.Errorf("%+v", b)
	}
	if n := len(h.EncodePast()); n > 64<<10 {
		t.Errorf("six regular weeks take %d bytes", n)
	}
}

func drawHistory(t *rapid.T) *History {
	h := &History{}
	at, n := t0, int64(0)
	for range rapid.IntRange(0, 200).Draw(t, "readings") {
		step := rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, time.Minute, 5 * time.Minute, 3 * time.Hour, 50 * 24 * time.Hour, -time.Minute, -5 * time.Hour}).Draw(t, "step")
		at = at.Add(step)
		n = max(0, n+rapid.Int64Range(-3, 100).Draw(t, "arrived"))
		h.Observe(at, Reading{Arrived: n, Demand: rapid.IntRange(0, 500).Draw(t, "demand")})
		if rapid.Bool().Draw(t, "waited") {
			h.Waited(at, time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "wait")))
		}
		if rapid.Bool().Draw(t, "whole") {
			at = at.Add(time.Minute)
			h.Record(at, Minute{Known: true, Arrivals: rapid.IntRange(-1, 1<<31).Draw(t, "n"), Mean: rapid.Float64().Draw(t, "mean"), Peak: rapid.IntRange(-1, 1<<31).Draw(t, "peak")})
		}
	}
	return h
}

func TestHistoryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		past, open := h.EncodePast(), h.EncodeOpen()
		if len(past) > MaxEncoded {
			t.Fatalf("%d bytes", len(past))
		}
		back, err := Decode(past, open)
		if err != nil {
			t.Fatal(err)
		}
		was, is := h.Series(), back.Series()
		if !slices.Equal(is.peaks, was.peaks) || !slices.Equal(is.arrivals, was.arrivals) || !slices.Equal(is.demand, was.demand) {
			t.Fatalf("the minutes are not what they were")
		}
		same(t, "the sketch", back.sketch, h.sketch)
		again, err := Decode(back.EncodePast(), back.EncodeOpen())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "decoded twice", again, back)
		same(t, "a clone", h.Clone().EncodePast(), past)
	})
}

func TestHourRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h hour
		for i := range h {
			h[i] = Minute{
				Known: rapid.Bool().Draw(t, "known"), Arrivals: rapid.IntRange(0, 3).Draw(t, "n"),
				Mean: rapid.Float64Range(0, 8).Draw(t, "mean"), Peak: rapid.IntRange(0, 9).Draw(t, "peak"),
			}.cell()
		}
		b := h.seal()
		if len(b) > maxBlock {
			t.Fatalf("%d bytes", len(b))
		}
		back, err := unseal(b)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the hour", back, h)
	})
}

// TestAnOpenHourThatWasSealedIsNotTakenTwice: a crash between the two writes.
func TestAnOpenHourThatWasSealedIsNotTakenTwice(t *testing.T) {
	var h History
	watch(&h, t0, 59*time.Minute, 10*time.Second, 6, 1)
	open := h.EncodeOpen()
	watch(&h, t0.Add(59*time.Minute), 10*time.Minute, 10*time.Second, 6, 1)
	back, err := Decode(h.EncodePast(), open)
	if err != nil {
		t.Fatal(err)
	}
	if w := back.Series().read(minuteOf(t0), 120); w.known != 60 || math.Abs(w.arrivals-360) > 2 {
		t.Errorf("%+v, want the sealed hour once", w)
	}
}

func TestDamagedHistoriesAreRefused(t *testing.T) {
	var h History
	watch(&h, t0, 2*time.Hour, 10*time.Second, 6, 1)
	past, open := h.EncodePast(), h.EncodeOpen()
	for i := range past {
		if _, err := Decode(past[:i], nil); i > 0 && !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	for i := range open {
		if _, err := Decode(past, open[:i]); i > 0 && !errors.Is(err, ErrDamaged) {
			t.Fatalf("open hour cut at %d: %v", i, err)
		}
	}
	if _, err := Decode(append(past, 0), nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("something behind the end: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	var h History
	watch(&h, t0, 2*time.Hour, 30*time.Second, 6, 1)
	h.Waited(t0, time.Second)
	f.Add(h.EncodePast(), h.EncodeOpen())
	f.Add([]byte{versionPast, 0, 0, 0}, []byte{versionOpen, 0})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, past, open []byte) {
		h, err := Decode(past, open)
		if err != nil {
			if h != nil || !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v, %v", h, err)
			}
			return
		}
		// What was taken can be worked with, and kept.
		h.Observe(t0, Reading{Arrived: 1, Demand: 1})
		h.Observe(t0.Add(time.Minute), Reading{Arrived: 2, Demand: 1})
		f := h.Report(Question{Now: t0.Add(time.Minute), Horizon: time.Hour})
		checkSteps(t, f)
		if _, err := Decode(h.EncodePast(), h.EncodeOpen()); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	var h History
	at := t0
	for i := range b.N {
		at = at.Add(time.Second)
		h.Observe(at, Reading{Arrived: int64(i), Demand: i % 7})
	}
}
