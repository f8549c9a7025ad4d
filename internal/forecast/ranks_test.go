package forecast

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// feed observes once a second: so many arrivals and completions in each.
func feed(r *Ranks, from, seconds int, lead time.Duration, at func(second int) (arrived, finished int64)) {
	for i := from; i < from+seconds; i++ {
		a, f := at(i)
		r.Observe(t0.Add(time.Duration(i)*time.Second), r.Arrived+a, r.Finished+f, lead)
	}
}

func look(r *Ranks, second int, lead time.Duration) Outlook {
	var v Outlook
	r.Outlook(t0.Add(time.Duration(second)*time.Second), lead, &v)
	return v
}

// all is the rate of arrivals at any rank.
func all(v Outlook) float64 {
	s := 0.0
	for _, x := range v.Rates {
		s += float64(x)
	}
	return s
}

func near(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

// TestRanksOfLoneArrivals: a task every 977 s meets nothing else, so that one
// spare slot would start every one of them, and a second one none.
func TestRanksOfLoneArrivals(t *testing.T) {
	const span, lead = 60_000, 10 * time.Second
	var r Ranks
	feed(&r, 0, span, lead, func(i int) (int64, int64) {
		if i > 0 && i%977 == 0 {
			return 1, 0
		}
		return 0, 0
	})
	v := look(&r, span, lead)
	if !near(all(v), 1.0/977, 0.05) {
		t.Errorf("%.5f tasks a second, want %.5f", all(v), 1.0/977)
	}
	if got := v.Rate(0, 1); !near(got, 1.0/977, 0.05) {
		t.Errorf("one slot saves %.5f a second, want %.5f", got, 1.0/977)
	}
	if got := v.Rate(1, 100); got > 0.05/977 {
		t.Errorf("beyond one slot %.6f a second are saved, want none", got)
	}
	if v.Recent != 0 || v.Due != 0 || v.Prior > 0.01 {
		t.Errorf("outlook %+v", v)
	}
}

// TestRanksOfBatches: of a batch of five, the k-th task needs the k-th slot.
func TestRanksOfBatches(t *testing.T) {
	const span, lead = 120_000, 10 * time.Second
	var r Ranks
	feed(&r, 0, span, lead, func(i int) (int64, int64) {
		if i%1979 == 0 {
			return 5, 0
		}
		return 0, 0
	})
	v := look(&r, span, lead)
	for k := range 8 {
		want := 1.0 / 1979
		if k >= 5 {
			want = 0
		}
		if got := v.Rate(k, 1); math.Abs(got-want) > 0.1/1979 {
			t.Errorf("slot %d saves %.6f a second, want %.6f", k+1, got, want)
		}
	}
}

// TestRanksCompletionsMakeRoom: a task comes whenever another one ends, ten
// seconds before; one lead time ahead nothing more than what runs is needed.
func TestRanksCompletionsMakeRoom(t *testing.T) {
	const span, lead = 50_000, 60 * time.Second
	saved := func(finish bool) float64 {
		var r Ranks
		feed(&r, 0, span, lead, func(i int) (a, f int64) {
			if i%20 == 10 {
				a = 1
			}
			if finish && i%20 == 0 {
				f = 1
			}
			return a, f
		})
		v := look(&r, span, lead)
		return v.Rate(2, 1000)
	}
	with, without := saved(true), saved(false)
	if with > 0.001 || without < 0.01 {
		t.Errorf("beyond 2 slots: %.5f a second with completions, %.5f without", with, without)
	}
}

// TestRanksClockJobIsAnnounced: a job of ten tasks every ten minutes comes into
// sight one lead time before, and Next wakes for it.
func TestRanksClockJobIsAnnounced(t *testing.T) {
	const lead = 45 * time.Second
	var r Ranks
	job := func(i int) (int64, int64) {
		if i%600 == 300 {
			return 10, 0
		}
		return 0, 0
	}
	next := 600*40 + 300 // when the job comes again
	feed(&r, 0, next-100, lead, job)
	v := look(&r, next-100, lead)
	if v.Due != 0 {
		t.Errorf("100 s before, %.1f are announced", v.Due)
	}
	wake := v.Next.Sub(t0)
	if due := time.Duration(next)*time.Second - lead; wake > due || wake < due-10*time.Second {
		t.Errorf("wakes at %s, want within the 10 s before %s", wake, due)
	}
	quiet := v.Rate(0, 8)
	feed(&r, next-100, 60, lead, job)
	v = look(&r, next-41, lead)
	if v.Due < 7 || v.Due > 10 {
		t.Errorf("41 s before, %.1f are announced, want about 10", v.Due)
	}
	if busy := v.Rate(0, 8); busy < 0.05 || busy < 20*quiet {
		t.Errorf("eight slots save %.4f a second before the job, %.4f otherwise", busy, quiet)
	}
	feed(&r, next-40, 60, lead, job)
	if v = look(&r, next+20, lead); v.Due != 0 {
		t.Errorf("after the job %.1f are announced", v.Due)
	}
}

// TestRanksResetTeachesNothing: counters that fell, and a clock that went back,
// are no arrivals.
func TestRanksResetTeachesNothing(t *testing.T) {
	const lead = 30 * time.Second
	fresh := func() *Ranks {
		var r Ranks
		feed(&r, 0, 5000, lead, func(i int) (int64, int64) { return int64(i+1) % 2, int64(i) % 2 })
		return &r
	}
	for name, jump := range map[string]func(*Ranks){
		"arrivals fell":    func(r *Ranks) { r.Observe(t0.Add(5001*time.Second), 3, r.Finished, lead) },
		"completions fell": func(r *Ranks) { r.Observe(t0.Add(5001*time.Second), r.Arrived+5000, 0, lead) },
		"the clock fell":   func(r *Ranks) { r.Observe(t0, r.Arrived+5000, r.Finished, lead) },
	} {
		t.Run(name, func(t *testing.T) {
			r := fresh()
			before, rate := total(r), r.Rate
			jump(r)
			if total(r) != before || r.Rate != rate {
				t.Errorf("counted %.1f arrivals before and %.1f after; rate %.3f and %.3f", before, total(r), rate, r.Rate)
			}
			// It goes on from there.
			at, a, f := r.At, r.Arrived, r.Finished
			for i := range 100 {
				r.Observe(at.Add(time.Duration(i+1)*time.Second), a+int64(i), f, lead)
			}
			if total(r) <= before {
				t.Error("nothing is learned any more")
			}
		})
	}
}

func total(r *Ranks) (n float64) {
	for _, h := range r.Hists {
		for _, v := range h.N {
			n += float64(v)
		}
	}
	return n
}

// TestRanksGoOnAfterRestart: what was read back from JSON expects, and goes on
// to learn, the same.
func TestRanksGoOnAfterRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lead := time.Duration(rapid.IntRange(5, 90).Draw(t, "lead")) * time.Second
		var r Ranks
		now := t0
		step := func(to ...*Ranks) {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "dt")) * time.Millisecond)
			a, f := r.Arrived+int64(rapid.IntRange(0, 6).Draw(t, "arrived")), r.Finished+int64(rapid.IntRange(0, 6).Draw(t, "finished"))
			for _, x := range to {
				x.Observe(now, a, f, lead)
			}
		}
		for range rapid.IntRange(1, 80).Draw(t, "before") {
			step(&r)
		}
		b, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		var back Ranks
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			var v, w Outlook
			r.Outlook(now, lead, &v)
			back.Outlook(now, lead, &w)
			if x, y := encoded(t, v), encoded(t, w); x != y {
				t.Fatalf("outlooks differ:\n%s\n%s", x, y)
			}
			checkOutlook(t, now, &v)
			step(&r, &back)
		}
	})
}

func encoded(t *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkOutlook(t *rapid.T, now time.Time, v *Outlook) {
	if v.Mean < 0 || v.Recent < 0 || v.Due < 0 || v.Prior < 0 || v.Prior > 1 || math.IsNaN(v.Mean+v.Due+v.Prior) {
		t.Fatalf("outlook %+v", v)
	}
	if !v.Next.IsZero() && !v.Next.After(now) {
		t.Fatalf("wakes at %s, and it is %s", v.Next, now)
	}
	for _, x := range v.Rates {
		if !(x >= 0) || math.IsInf(float64(x), 0) {
			t.Fatalf("rate %v", x)
		}
	}
}

// TestRanksMemoryIsBounded: a million arrivals, in bursts and lulls and with
// changing lead times, leave no more behind than a few.
func TestRanksMemoryIsBounded(t *testing.T) {
	var r Ranks
	now, arrived, finished := t0, int64(0), int64(0)
	most := 0
	for i := 0; arrived < 1_000_000; i++ {
		lead := time.Duration(20+i/1000%200) * time.Second
		now = now.Add(time.Duration(1+i%7*i%977) * time.Millisecond)
		arrived += int64(i * i % 23)
		finished = max(finished, arrived-int64(i%500))
		r.Observe(now, arrived, finished, lead)
		most = max(most, len(r.Past))
	}
	b, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	if most > 2000 || len(b) > 400_000 {
		t.Errorf("%d moments, %d contexts, %d bytes of JSON", most, len(r.Hists), len(b))
	}
}

// TestOutlookRateIsAMeasure: never negative, more slots never save less, and
// what two lots of slots save is what both together do.
func TestOutlookRateIsAMeasure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Outlook{
			Lead: time.Duration(rapid.IntRange(1, 300).Draw(t, "lead")) * time.Second,
			Mean: rapid.Float64Range(0, 200).Draw(t, "mean"), Recent: rapid.IntRange(0, 200).Draw(t, "recent"),
			Prior: rapid.Float64Range(0, 1).Draw(t, "prior"),
		}
		for range rapid.IntRange(0, rankBins-1).Draw(t, "bins") {
			v.Rates = append(v.Rates, rapid.Float32Range(0, 2).Draw(t, "rate"))
		}
		free := rapid.IntRange(-50, 300).Draw(t, "free")
		a, b := rapid.IntRange(0, 40).Draw(t, "a"), rapid.IntRange(0, 40).Draw(t, "b")
		first, second, both := v.Rate(free, a), v.Rate(free+a, b), v.Rate(free, a+b)
		if first < 0 || second < 0 || both < first-1e-9 {
			t.Fatalf("%d slots save %v, %d more %v, both %v", a, first, b, second, both)
		}
		if math.Abs(first+second-both) > 1e-6*(1+both) {
			t.Fatalf("from %d free: %d slots save %v, %d more %v, both %v", free, a, first, b, second, both)
		}
	})
}

// TestRankBinsMeet: a rank is counted in the bin whose edges hold it.
func TestRankBinsMeet(t *testing.T) {
	for rank := -30.0; rank < 3000; rank += 0.125 {
		b := rankBin(rank)
		if lo, hi := lowRank(b), lowRank(b+1); b > 0 && rank < lo-1e-9 || b < rankBins-1 && rank > hi+1e-9 {
			t.Errorf("rank %.3f is counted in bin %d, from %.3f to %.3f", rank, b, lo, hi)
		}
	}
}

// TestOutlookOfNothing: without any observation there is nothing to expect.
func TestOutlookOfNothing(t *testing.T) {
	var r Ranks
	v := look(&r, 0, 45*time.Second)
	if v.Rate(0, 1000) != 0 || v.Rate(-5, 8) != 0 || !v.Next.IsZero() {
		t.Errorf("%+v", v)
	}
	if v.Lead = 0; v.Rate(0, 8) != 0 {
		t.Error("a lead time of nothing")
	}
}
