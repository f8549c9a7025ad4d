package forecast

import (
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestDaysInWords(t *testing.T) {
	for want, days := range map[string][]int{
		"Mondays": {0}, "weekdays": {0, 1, 2, 3, 4}, "weekends": {5, 6}, "every day": {0, 1, 2, 3, 4, 5, 6},
		"Mondays and Thursdays": {0, 3}, "Tuesdays to Fridays": {1, 2, 3, 4}, "Mondays and Tuesdays": {0, 1},
		"Mondays to Wednesdays and Saturdays": {0, 1, 2, 5}, "Mondays, Wednesdays and Fridays": {0, 2, 4},
	} {
		if got := dayText(days); got != want {
			t.Errorf("%v is %q, want %q", days, got, want)
		}
	}
}

// TestPeakSentence: what is known is said, with its numbers, and what is not is
// left out.
func TestPeakSentence(t *testing.T) {
	h := FromSeries(loadOf(t, t0.Truncate(24*time.Hour), 6))
	_, end := h.Series().Span()
	ask := Question{Now: end, Lead: 4 * time.Second}
	p := h.Report(ask).Peaks[0]
	if want := "Mondays 09:00-10:30, 23.5x the mean (6 of 6 weeks); a floor of 4 from 08:55 has one warm for 95 % of its tasks"; p.Sentence != want {
		t.Errorf("got  %q\nwant %q", p.Sentence, want)
	}
	monday := end
	for monday.Weekday() != time.Monday {
		monday = monday.AddDate(0, 0, -1)
	}
	monday = monday.Truncate(24 * time.Hour).Add(9 * time.Hour)
	for i := range 100 {
		h.Waited(monday.Add(time.Duration(i)*time.Minute/2), time.Duration(i)*4*time.Second)
	}
	ask.NodeHour, ask.Slots = 400_000, 8
	ask.Have = func(at time.Time) int {
		if at.Weekday() != time.Monday || at.Hour() != 9 {
			t.Errorf("asked for what is warm at %s", at)
		}
		return 1
	}
	p = h.Report(ask).Peaks[0]
	if !strings.Contains(p.Sentence, "p95 wait 7 min under today's policy; a floor of 4 from 08:55 has one warm for 95 % of its tasks, for up to $0.24 a week") {
		t.Errorf("got %q", p.Sentence)
	}
	w := h.Report(ask).Week
	if nine := 18; w.WaitsSeen[nine] != 100 || w.WaitsSeen[nine+1] != 100 || w.Waits[nine] != p.WaitSeconds || w.WaitsSeen[nine+2] != 0 || w.Waits[nine+2] != 0 {
		t.Errorf("Mondays from 9:00 on: waits of %v s, %v of them", w.Waits[nine:nine+3], w.WaitsSeen[nine:nine+3])
	}
	if p.Waits != 100 || p.Have != 1 || *p.CostMicroUSD != 3*95*400_000/60/8 {
		t.Errorf("%+v", p)
	}
	ask.Have = func(time.Time) int { return 40 }
	if p = h.Report(ask).Peaks[0]; !strings.HasSuffix(p.Sentence, "; the 40 warm by then are enough") || *p.CostMicroUSD != 0 {
		t.Errorf("got %q, $%v", p.Sentence, *p.CostMicroUSD)
	}
}

// TestNoPeaksWhereThereAreNone: an even load, and one great day in a quiet
// month, are no pattern.
func TestNoPeaksWhereThereAreNone(t *testing.T) {
	even, once := &History{}, &History{}
	for m := range int64(5 * week) {
		at := timeOf(minuteOf(t0) + m)
		even.Record(at, Minute{Known: true, Arrivals: 2, Mean: 1, Peak: 1})
		n := 0
		if m >= 2*week && m < 2*week+180 {
			n = 50
		} else if m%97 == 0 {
			n = 1
		}
		once.Record(at, Minute{Known: true, Arrivals: n, Mean: float64(n), Peak: n})
	}
	for name, h := range map[string]*History{"even": even, "once": once} {
		if p := h.Report(Question{Now: h.at}).Peaks; len(p) != 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestPeaksGoOverMidnight and over the end of the week.
func TestPeaksGoOverMidnight(t *testing.T) {
	h := &History{}
	for m := range int64(4 * week) {
		at := timeOf(minuteOf(t0) + m)
		n := 0
		if at.Weekday() == time.Sunday && at.Hour() >= 22 || at.Weekday() == time.Monday && at.Hour() < 2 {
			n = 3
		}
		h.Record(at, Minute{Known: true, Arrivals: n, Mean: float64(n), Peak: n})
	}
	p := h.Report(Question{Now: timeOf(minuteOf(t0) + 4*week)}).Peaks
	if len(p) != 1 || p[0].Days != "Sundays" || p[0].From != "22:00" || p[0].Until != "02:00" || p[0].TimesMean != 42 {
		t.Errorf("%+v", p)
	}
}

func TestPatternOfUnseenHours(t *testing.T) {
	h := &History{}
	for m := range int64(24 * 60) {
		h.Record(timeOf(minuteOf(t0)+m), Minute{Known: true, Arrivals: 1})
	}
	w := h.Report(Question{Now: t0.Add(24 * time.Hour)}).Week
	seen := 0
	for _, n := range w.WeeksSeen {
		seen += n
	}
	if seen != 48 || w.Mean != 60 {
		t.Errorf("%d half hours seen, mean %v; want 48 and 60", seen, w.Mean)
	}
	var none fleet.ForecastWeek
	if none = (&History{}).Report(Question{Now: t0}).Week; len(none.WeeksSeen) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestTally(t *testing.T) {
	var tally Tally
	for _, x := range []struct{ at, length time.Duration }{{0, 90 * time.Second}, {30 * time.Second, 15 * time.Second}, {3 * time.Minute, -time.Second}} {
		if err := tally.Add(t0.Add(x.at), x.length); err != nil {
			t.Fatal(err)
		}
	}
	s := tally.Series()
	for i, want := range []window{{1, 2, 1.25, 2}, {1, 0, 0.5, 1}, {1, 0, 0, 0}, {1, 1, 0, 1}} {
		if got := s.read(minuteOf(t0)+int64(i), 1); got != want {
			t.Errorf("minute %d: %+v, want %+v", i, got, want)
		}
	}
	if err := tally.Add(t0, 0); err == nil {
		t.Error("an arrival that goes back is taken")
	}
	if err := tally.Add(t0.AddDate(100, 0, 0), 0); err == nil {
		t.Error("a century of minutes is taken")
	}
}

// TestWeeklyIsNotTaughtByOutages: rule 1 for the profile that raises floors.
func TestWeeklyIsNotTaughtByOutages(t *testing.T) {
	var w Weekly
	for h := range 4 * hoursOfWeek {
		now := t0.Add(time.Duration(h) * time.Hour)
		if h >= 2*hoursOfWeek && h%hoursOfWeek == 1 {
			w.Miss(now) // Monday nine, two weeks running
			continue
		}
		n := int64(0)
		if h%hoursOfWeek == 1 {
			n = 3600
		}
		w.Observe(now, n)
	}
	if rate, weeks := w.Rate(t0.Add(time.Hour)); rate != 1 || weeks != 2 {
		t.Errorf("after two outages Monday nine is %v from %d weeks, want 1 from 2", rate, weeks)
	}
}

func TestWeeklyKeepsToItsZone(t *testing.T) {
	warsaw, err := time.LoadLocation("Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	var w Weekly
	at := time.Date(2026, 10, 5, 0, 0, 0, 0, warsaw)
	for end := at.AddDate(0, 0, 28); at.Before(end); at = at.Add(time.Hour) { // the clocks go back on the 25th
		n := int64(0)
		if at.Weekday() == time.Monday && at.Hour() == 9 {
			n = 3600
		}
		w.Observe(at, n)
	}
	monday := time.Date(2026, 11, 2, 9, 0, 0, 0, warsaw)
	if rate, weeks := w.Rate(monday); rate != 1 || weeks != 4 {
		t.Errorf("Monday nine in winter is %v from %d weeks", rate, weeks)
	}
}
