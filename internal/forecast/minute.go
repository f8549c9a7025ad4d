package forecast

import (
	"math"
	"time"
)

const (
	minutesOfHour = 60
	// meanParts is how finely the mean of a minute's demand is kept: sixteenths
	// of a task.
	meanParts = 16
	// Bounds of what one minute can hold; beyond them it is cut.
	maxArrivals = 1 << 30
	maxDemand   = 1 << 24
)

// Minute is what one minute of a fleet's life was like. The zero Minute is
// one nobody looked at, which is not the same as an empty one.
type Minute struct {
	Known    bool
	Arrivals int     // tasks submitted in it
	Mean     float64 // tasks waiting or running, on average over the minute
	Peak     int     // the most of them at once; at least Mean
}

// cell is a Minute as it is stored.
type cell struct {
	known    bool
	arrivals int32
	mean     int32 // sixteenths of a task
	peak     int32
}

func (m Minute) cell() cell {
	if !m.Known {
		return cell{}
	}
	peak := min(max(m.Peak, 0), maxDemand)
	mean := 0.0
	if m.Mean > 0 { // neither negative nor NaN
		mean = min(math.Round(m.Mean*meanParts), float64(peak)*meanParts)
	}
	return cell{known: true, arrivals: int32(min(max(m.Arrivals, 0), maxArrivals)), mean: int32(mean), peak: int32(peak)}
}

// hour is sixty minutes in order.
type hour [minutesOfHour]cell

// minuteOf counts minutes since 1970; hours begin where it is a multiple of
// sixty.
func minuteOf(t time.Time) int64 { return floorDiv(t.Unix(), 60) }

func timeOf(minute int64) time.Time { return time.Unix(minute*60, 0).UTC() }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
