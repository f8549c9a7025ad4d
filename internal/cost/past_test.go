package cost

import (
	"testing"
	"time"
)

// TestPast: means are over what is known, not over the step: neither the hours
// before the ledger began nor those in which nobody looked make a fleet smaller,
// and an hour without a node is known.
func TestPast(t *testing.T) {
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	hour := func(n int) int64 { return HourOf(day.Add(time.Duration(n) * time.Hour)) }
	const full = 3_600_000 // milliseconds
	b := NewBook()
	b.Add(hour(8), Hour{Nodes: full, Busy: 2 * full, Peak: 3}) // half of it known, by a ledger that began at 8:30
	b.Add(hour(9), Hour{Nodes: 2 * full, Busy: 6 * full, Peak: 2})
	b.Add(hour(10), Hour{})
	b.Spend(Key{Cause: CauseWarm}, 5*time.Hour)
	b.Spend(Key{Cause: CauseTask}, 8*time.Hour)
	b.Settle(Key{Cause: CauseTask}, false)
	step, known := Span{day, day.AddDate(0, 0, 1)}, Span{day.Add(8*time.Hour + 30*time.Minute), day.Add(20 * time.Hour)}
	p, ok := b.Past(step, known)
	if !ok || p.KnownHours != 2.5 || p.Running != 3.2 || p.RunningPeak != 6 || p.Warm != 2 || p.Nodes != 1.2 || p.NodesPeak != 3 || p.Ended != 1 || !p.At.Equal(day) {
		t.Errorf("%+v %t", p, ok)
	}
	if p, ok := b.Past(step, Span{day.AddDate(0, 0, 1), day.AddDate(0, 0, 2)}); ok {
		t.Errorf("of another day: %+v", p)
	}
	if p, ok := NewBook().Past(step, known); ok {
		t.Errorf("of an empty book: %+v", p)
	}
}
