package forecast

import (
	"math"
	"time"
)

// hoursOfWeek counts from Sunday 00:00 UTC.
const hoursOfWeek = 7 * 24

// weeklyKeep is what a new week leaves of the old ones: a half-life of about
// two weeks, so that a change of habit is followed and one holiday is not.
const weeklyKeep = 0.7

// Weekly is the arrival rate by hour of the week, in UTC.
type Weekly struct {
	Rates [hoursOfWeek]float32 `json:"rates"` // tasks a second
	Weeks [hoursOfWeek]uint8   `json:"weeks"` // times the hour was seen, at most 255
	Hour  time.Time            `json:"hour"`  // the hour being counted
	Count int64                `json:"count"`
}

// Observe adds n arrivals at now. Hours that passed without a reading are not
// counted as empty: nobody looked.
func (w *Weekly) Observe(now time.Time, n int64) {
	hour := now.UTC().Truncate(time.Hour)
	if !hour.Equal(w.Hour) {
		if !w.Hour.IsZero() && hour.After(w.Hour) {
			w.close()
		}
		w.Hour, w.Count = hour, 0
	}
	w.Count += n
}

func (w *Weekly) close() {
	i := hourOfWeek(w.Hour)
	rate := float32(float64(w.Count) / time.Hour.Seconds())
	if w.Weeks[i] == 0 {
		w.Rates[i] = rate
	} else {
		w.Rates[i] = weeklyKeep*w.Rates[i] + (1-weeklyKeep)*rate
	}
	if w.Weeks[i] < math.MaxUint8 {
		w.Weeks[i]++
	}
}

// Rate is the expected rate at a time and how many weeks it rests on; 0, 0
// when that hour of the week was never seen.
func (w *Weekly) Rate(at time.Time) (perSecond float64, weeks int) {
	i := hourOfWeek(at.UTC())
	return float64(w.Rates[i]), int(w.Weeks[i])
}

// Floor is the count that arrivals in one horizon, beginning between now and
// one horizon ahead, stay at or under with probability q. It rests on at least
// two weeks of the hour, and is 0 before.
func (w *Weekly) Floor(now time.Time, horizon time.Duration, q float64) int {
	best := 0.0
	for _, at := range []time.Time{now, now.Add(horizon)} {
		if rate, weeks := w.Rate(at); weeks >= 2 {
			best = max(best, rate)
		}
	}
	return NegativeBinomial(q, best*horizon.Seconds(), priorIDC)
}

func hourOfWeek(at time.Time) int { return int(at.Weekday())*24 + at.Hour() }
