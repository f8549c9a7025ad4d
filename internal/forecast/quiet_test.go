package forecast

import (
	"testing"
	"time"
)

// days is a load of twelve busy hours and twelve dead ones: a task every 200 to
// 700 s, never on the same second of an hour twice, then none. In the lulls of
// the busy hours the recent rate falls as low as it is at night.
func days() func(second int) (arrived, finished int64) {
	next := 0
	return func(i int) (int64, int64) {
		if i < next || i%86400 >= 43200 {
			return 0, 0
		}
		next = i + 200 + i*7919%500
		return 1, 0
	}
}

// TestRanksTellLullsFromDeadHours: some minutes without a task are a lull where
// the last hour had some, and a dead night where it had none: a spare node is
// worth more in the one.
func TestRanksTellLullsFromDeadHours(t *testing.T) {
	const lead, day = 45 * time.Second, 86400
	var r Ranks
	load := days()
	lull := 0 // 4 min after a task of the last busy hours
	for i := range 5*day + 70_000 {
		a, f := load(i)
		r.Observe(t0.Add(time.Duration(i)*time.Second), r.Arrived+a, r.Finished+f, lead)
		if i > 5*day+40_000 && a > 0 && lull == 0 {
			lull = i + 190
		}
		if lull == i && i > 0 {
			if r.quietBucket(r.Rate*45, lead.Seconds()) == 0 {
				t.Error("a lull is no quiet time")
			}
			v := look(&r, i, lead)
			if got := v.Rate(0, 8); !near(got, 1.0/450, 0.5) {
				t.Errorf("in a lull a node saves %.5f late starts a second, want about %.5f", got, 1.0/450)
			}
		}
	}
	v := look(&r, 5*day+70_000, lead)
	if got := v.Rate(0, 8); got > 0.2/450 {
		t.Errorf("in the dead of night a node saves %.5f late starts a second, want next to none", got)
	}
}

// TestRanksWakeWhenTheHourFades: in a quiet time the outlook changes when the
// rate of the last hour falls below an edge, and Next says so.
func TestRanksWakeWhenTheHourFades(t *testing.T) {
	const lead, end = 45 * time.Second, 86400 + 43200 + 3*3600
	var r Ranks
	load := days()
	feed(&r, 0, end, lead, load)
	before := r.quietBucket(r.Rate*45, lead.Seconds())
	v := look(&r, end, lead)
	wake := int(v.Next.Sub(t0) / time.Second)
	if before < 2 || wake <= end || wake > end+6000 {
		t.Fatalf("bucket %d; wakes %d s later", before, wake-end)
	}
	feed(&r, end, wake-end, lead, load)
	if r.quietBucket(r.Rate*45, lead.Seconds()) != before {
		t.Error("it changed before the wake")
	}
	feed(&r, wake, 3, lead, load)
	if got := r.quietBucket(r.Rate*45, lead.Seconds()); got != before-1 {
		t.Errorf("bucket %d after the wake, want %d", got, before-1)
	}
}

// TestRanksAnnouncedLeavesTheHourAlone: a job of the clock is no sign that
// anything else will come.
func TestRanksAnnouncedLeavesTheHourAlone(t *testing.T) {
	const lead = 45 * time.Second
	job := func(second int) func(i int) (int64, int64) {
		return func(i int) (int64, int64) {
			if i%600 == second {
				return 3, 0
			}
			return 0, 0
		}
	}
	var r Ranks
	feed(&r, 0, 600*60, lead, job(300))
	if rate := 3.0 / 600; r.Rate < rate/2 || r.Hour > rate/10 {
		t.Errorf("rate %.5f, of the hour %.5f; want about %.5f and next to none", r.Rate, r.Hour, rate)
	}
	// At another second the same is news.
	feed(&r, 600*60, 600*6, lead, job(450))
	if r.Hour < 1.0/600 {
		t.Errorf("a job that moved: rate of the hour %.5f", r.Hour)
	}
}

// TestRanksFirstBurstTeachesNoDeadHours: a fleet that gets a burst in its first
// minute and then nothing does not expect another when the hour has faded.
func TestRanksFirstBurstTeachesNoDeadHours(t *testing.T) {
	const lead = 45 * time.Second
	for hour := 1; hour <= 12; hour++ {
		var r Ranks
		feed(&r, 0, hour*3600, lead, func(i int) (int64, int64) {
			if i == 60 {
				return 20, 0
			}
			return 0, 0
		})
		v := look(&r, hour*3600, lead)
		if got, most := v.Rate(0, 8), 12.0/float64(hour*3600); got > most {
			t.Errorf("after %d h a node saves %.6f late starts a second, want at most %.6f", hour, got, most)
		}
	}
}

// TestFoldAnnouncesOnce: what is here already is not announced again.
func TestFoldAnnouncesOnce(t *testing.T) {
	f := Fold{Period: 10 * time.Minute, Alpha: 0.15}
	at := t0.Add(300 * time.Second)
	for i := range 30 {
		f.Observe(at.Add(time.Duration(i)*f.Period), 4)
	}
	at = at.Add(30 * f.Period)
	f.Observe(at.Add(-time.Minute), 0)
	if got := f.Announced(at.Add(-time.Minute)); got != 0 {
		t.Errorf("a minute before: %.2f", got)
	}
	if got := f.Announced(at); !near(got, 4, 0.1) {
		t.Errorf("announced %.2f, want about 4", got)
	}
	f.Observe(at, 3)
	if got := f.Announced(at); got > 1 {
		t.Errorf("after 3 of 4 came: %.2f", got)
	}
}
