package ledger

import (
	"errors"
	"math"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestPast: hours with a node, hours with none, which are known to be zero, and
// a day on which nobody looked, which is a gap.
func TestPast(t *testing.T) {
	w := newWorld(t) // begins at 8:00
	w.node("a")
	w.box("s1", w.task(nil).Task.ID, 1)
	w.box("s2", "", 0)
	minutes := func(n int) {
		for range n {
			w.step(time.Minute)
		}
	}
	minutes(4 * 60)
	w.nodes = nil
	minutes(4 * 60)
	w.now = w.now.AddDate(0, 0, 1) // nobody looks, and there is no node to be paid
	w.restart()
	minutes(60)
	hours, err := w.s.Past(t.Context(), fleet.PastQuery{Since: epoch, Step: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if hours.StepSeconds != 3600 || !hours.Began.Equal(epoch) || hours.KnownTo.Before(w.now.Add(-time.Hour)) {
		t.Errorf("%+v", hours)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 0.03 }
	for i, p := range hours.Points {
		at := p.At.Sub(epoch).Hours()
		switch {
		case at < 4 && (!near(p.Running, 1) || !near(p.Warm, 1) || !near(p.Nodes, 1) || p.NodesPeak != 1 || p.MicroUSD == 0 || !near(p.KnownHours, 1)):
			t.Errorf("%g h: %+v", at, p)
		case at > 4 && (p.Running != 0 || p.Nodes != 0 || p.MicroUSD != 0):
			t.Errorf("%g h, without a node: %+v", at, p)
		case at > 9 && at < 31:
			t.Errorf("%g h: point %d is of a day on which nobody looked", at, i)
		}
	}
	if n := len(hours.Points); n < 9 || n > 11 {
		t.Errorf("%d hours, want the 9 in which somebody looked and what is next to them", n)
	}
	days, err := w.s.Past(t.Context(), fleet.PastQuery{Since: epoch.AddDate(0, 0, -300)})
	if err != nil || days.StepSeconds != 86400 || len(days.Points) != 2 {
		t.Fatalf("%d points of %g s, %v", len(days.Points), days.StepSeconds, err)
	}
	if p := days.Points[0]; !near(p.RunningPeak, 1) || p.Running < 0.3 || p.Running > 0.6 {
		t.Errorf("the first day: %+v", p)
	}
}

func TestPastRefuses(t *testing.T) {
	w := newWorld(t)
	ago := func(days int) time.Time { return w.now.AddDate(0, 0, -days) }
	for _, x := range []struct {
		q     fleet.PastQuery
		field string
	}{
		{fleet.PastQuery{Since: w.now.Add(time.Hour)}, "since"},
		{fleet.PastQuery{Since: ago(500)}, "since"},
		{fleet.PastQuery{Step: time.Minute}, "step"},
		{fleet.PastQuery{Step: 90 * time.Minute}, "step"},
		{fleet.PastQuery{Step: 5 * time.Hour}, "step"},
		{fleet.PastQuery{Step: 36 * time.Hour}, "step"},
		{fleet.PastQuery{Step: -time.Hour}, "step"},
		{fleet.PastQuery{Since: ago(200), Step: 6 * time.Hour}, "step"},
		{fleet.PastQuery{Since: ago(90), Step: time.Hour}, "step"},
	} {
		var fe *fleet.FieldError
		if _, err := w.s.Past(t.Context(), x.q); !errors.As(err, &fe) || fe.Field != x.field {
			t.Errorf("%+v: %v", x.q, err)
		}
	}
	for days, want := range map[int]time.Duration{2: time.Hour, 30: 2 * time.Hour, 90: 6 * time.Hour, 365: 24 * time.Hour} {
		if p, err := w.s.Past(t.Context(), fleet.PastQuery{Since: ago(days)}); err != nil || p.StepSeconds != want.Seconds() {
			t.Errorf("%d days: steps of %g s, %v", days, p.StepSeconds, err)
		}
	}
	if p, err := w.s.Past(t.Context(), fleet.PastQuery{Step: 168 * time.Hour}); err != nil || p.Since.Weekday() != time.Monday {
		t.Errorf("weeks begin on a %s, %v", p.Since.Weekday(), err)
	}
}
