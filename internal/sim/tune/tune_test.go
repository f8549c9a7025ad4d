package tune

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// steady is a task every step seconds, of so many seconds.
func steady(n int, step, long float64) trace.Rows {
	rows := make(trace.Rows, n)
	for i := range rows {
		rows[i] = trace.Row{Arrival: monday.UnixMilli() + int64(float64(i)*step*1000), Duration: int64(long * 1000)}
	}
	return rows
}

// simulated tries settings on a trace.
func simulated(t *testing.T, rows trace.Rows) func([]Setting) ([]Outcome, error) {
	return func(line []Setting) ([]Outcome, error) {
		out := make([]Outcome, len(line))
		for i, s := range line {
			c := sim.Config{Trace: rows, Model: sim.Defaults(), Muster: sim.Muster{Policy: s.Apply(plan.Policy{})}}
			v, err := sim.Look(&c)
			if err != nil {
				t.Fatal(err)
			}
			r, err := sim.Simulate(&c, v, "muster")
			if err != nil {
				t.Fatal(err)
			}
			out[i] = Outcome{CostUSD: r.CostUSD, CostOver: r.CostOver, P95: r.WaitP95, P99: r.WaitP99, Late: r.Late}
		}
		return out, nil
	}
}

// TestFindsTheBetterSetting: a fleet that keeps its empty nodes far too long,
// for a task every ten minutes, is told so.
func TestFindsTheBetterSetting(t *testing.T) {
	rows := steady(300, 600, 60)
	today := Of(plan.Policy{Min: 8})
	today.KeepFactor, today.LatePriceMax = 100, 5000
	// Everybody may be late: all that counts is money.
	g := Goal{Share: 1, Runs: 60}
	try := simulated(t, rows)
	f, err := Search(today, g, try)
	if err != nil {
		t.Fatal(err)
	}
	if f.Best.CostUSD > 0.6*f.Today.CostUSD || f.Best.Min != 0 {
		t.Errorf("found %+v for %+v", f.Best, f.Today)
	}
	if again, _ := Search(today, g, try); !reflect.DeepEqual(again, f) {
		t.Error("the same history gave another result")
	}
	// From there, with one in a hundred late at most, which can be had.
	g = Goal{Share: 0.01, Runs: 60}
	if f, err = Search(f.Best.Setting, g, try); err != nil {
		t.Fatal(err)
	}
	if g.Meets(&f.Today.Outcome) || !g.Meets(&f.Best.Outcome) {
		t.Errorf("a task every ten minutes: found %+v for %+v; want one that meets the objective", f.Best, f.Today)
	}
}

// TestNeverWorse: whatever outcomes are, the result is one of those tried, and
// none of them is better; it never misses the objective where one meets it.
func TestNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Goal{Share: 0.01, Runs: rapid.IntRange(0, 80).Draw(t, "runs"), MostWarmMin: rapid.IntRange(0, 5).Draw(t, "most")}
		asked := 0
		f, err := Search(Of(plan.Policy{}), g, func(line []Setting) ([]Outcome, error) {
			asked += len(line)
			out := make([]Outcome, len(line))
			for i, s := range line {
				if g.MostWarmMin > 0 && s.Min > g.MostWarmMin {
					t.Fatalf("a floor of %d was tried, the most is %d", s.Min, g.MostWarmMin)
				}
				out[i] = Outcome{
					CostUSD: float64(rapid.IntRange(0, 5).Draw(t, "cost")),
					Late:    float64(rapid.IntRange(0, 3).Draw(t, "late")) / 100,
				}
			}
			return out, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if asked != len(f.Trials) || asked > max(1, g.Runs) {
			t.Fatalf("%d tries, %d kept, at most %d allowed", asked, len(f.Trials), g.Runs)
		}
		if !slices.Contains(f.Trials, f.Best) {
			t.Fatal("the best was not tried")
		}
		for i := range f.Trials {
			if g.Meets(&f.Trials[i].Outcome) && !g.Meets(&f.Best.Outcome) || g.better(&f.Trials[i].Outcome, &f.Best.Outcome) {
				t.Fatalf("%+v was tried, %+v was found", f.Trials[i], f.Best)
			}
		}
	})
}

func TestSearchReportsErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Search(Setting{}, Goal{Share: 0.01, Runs: 10}, func([]Setting) ([]Outcome, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	g := Goal{Share: 0.01}
	out := func(cost, late float64) *Outcome { return &Outcome{CostUSD: cost, Late: late} }
	changed := Found{Today: Trial{Setting{Min: 1}, *out(10, 0)}, Best: Trial{Setting{Min: 0}, *out(8, 0)}}
	same, missed := changed, changed
	same.Best = same.Today
	missed.Best.Late = 0.5
	for _, c := range []struct {
		name        string
		f           *Found
		today, best *Outcome
		want        Verdict
	}{
		{"cheaper", &changed, out(10, 0), out(8, 0.01), Change},
		{"a little cheaper", &changed, out(10, 0), out(9.95, 0), NoGain},
		{"dearer", &changed, out(10, 0), out(11, 0), DoesNotHold},
		{"dearer, but today's misses the objective", &changed, out(10, 0.02), out(11, 0.01), Change},
		{"late", &changed, out(10, 0), out(8, 0.02), DoesNotHold},
		{"both late, the found one less and cheaper", &changed, out(10, 0.03), out(8, 0.02), Change},
		{"both late, the found one more", &changed, out(10, 0.03), out(8, 0.04), DoesNotHold},
		{"today's", &same, out(10, 0), out(10, 0), Keep},
		{"none meets it", &missed, out(10, 0), out(8, 0), OutOfReach},
	} {
		if got := Judge(g, c.f, c.today, c.best); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestHalves(t *testing.T) {
	rows := steady(100, 60, 1)
	p, err := Halves(rows, time.Time{})
	if err != nil || p.First != 45 || p.Second != 45 || !p.Open.Equal(monday.Add(10*time.Minute)) || !p.Middle.Equal(monday.Add(55*time.Minute)) {
		t.Errorf("%+v, %v", p, err)
	}
	p, _ = Halves(rows, monday.Add(90*time.Minute))
	if p.First != 5 || p.Second != 5 || !p.Open.Equal(monday.Add(90*time.Minute)) {
		t.Errorf("%+v", p)
	}
	if p, _ = Halves(rows, monday.Add(24*time.Hour)); p.First+p.Second != 0 {
		t.Errorf("%+v of nothing", p)
	}
	if p, _ = Halves(trace.Rows{}, time.Time{}); p.First+p.Second != 0 {
		t.Errorf("%+v of nothing", p)
	}
	// One burst is not torn: it is the second half.
	if p, _ = Halves(steady(50, 0, 1), time.Time{}); p.First != 0 || p.Second != 50 {
		t.Errorf("%+v of a burst", p)
	}
}

func TestSettingOfPolicy(t *testing.T) {
	p := plan.Policy{Min: 3}.WithDefaults()
	if got := Of(p).Apply(plan.Policy{}).WithDefaults(); !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, want %+v", got, p)
	}
	if v := reflect.ValueOf(Of(plan.Policy{})); v.NumField() != len(knobs(0.01, 0)) {
		t.Errorf("%d settings, %d knobs", v.NumField(), len(knobs(0.01, 0)))
	}
	for _, k := range knobs(0.01, 0) {
		for i := range k.n {
			s := Of(plan.Policy{})
			k.set(&s, i)
			if s.LateShare <= 0 || s.LatePriceMax < 50 || s.KeepFactor < 0.1 || math.Abs(s.WarmQuantile-0.75) > 0.25 || s.HoldWarm < time.Second {
				t.Errorf("%+v is none that a Fleet may have", s)
			}
		}
	}
}
