package forecast

import (
	"math"
	"time"
)

// hoursOfWeek counts from Sunday 00:00.
const hoursOfWeek = 7 * 24

// Weekly is the arrival rate by hour of the week. The hours are those of the
// zone that the times it is given carry, so that nine o'clock stays nine
// o'clock when the clocks change; whoever keeps one uses the same zone always.
type Weekly struct {
	Rates [hoursOfWeek]float32 `json:"rates"` // tasks a second
	Weeks [hoursOfWeek]uint8   `json:"weeks"` // times the hour was seen, at most 255
	Hour  time.Time            `json:"hour"`  // the hour being counted
	Count int64                `json:"count"`
	Holes bool                 `json:"holes,omitempty"` // part of that hour was not looked at
}

// Observe adds n arrivals at now. Hours that passed without a reading are not
// counted as empty: nobody looked.
func (w *Weekly) Observe(now time.Time, n int64) {
	w.turn(now)
	w.Count += n
}

// Miss says that there was no reading at now. Of an hour with such a hole only
// a rate above what is remembered is learned: an outage is never less demand.
func (w *Weekly) Miss(now time.Time) {
	w.turn(now)
	w.Holes = true
}

func (w *Weekly) turn(now time.Time) {
	if !w.Hour.IsZero() {
		if d := between(w.Hour, now); d >= 0 && d < time.Hour {
			return
		}
	}
	hour := now.Truncate(time.Hour)
	if !w.Hour.IsZero() && hour.After(w.Hour) {
		w.close(now.Location())
	}
	w.Hour, w.Count, w.Holes = hour, 0, false
}

func (w *Weekly) close(zone *time.Location) {
	i := hourOfWeek(w.Hour.In(zone)) // read back from JSON it has lost its zone
	rate := float32(float64(w.Count) / time.Hour.Seconds())
	if w.Holes && rate <= w.Rates[i] {
		return
	}
	if w.Weeks[i] == 0 {
		w.Rates[i] = rate
	} else {
		w.Rates[i] = forget*w.Rates[i] + (1-forget)*rate
	}
	if w.Weeks[i] < math.MaxUint8 {
		w.Weeks[i]++
	}
}

// Rate is the expected rate at a time and how many weeks it rests on; 0, 0
// when that hour of the week was never seen.
func (w *Weekly) Rate(at time.Time) (perSecond float64, weeks int) {
	i := hourOfWeek(at)
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
