package forecast

import (
	"math"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	halfHour = 30 // minutes
	halves   = 7 * 48
)

// pattern is the week of a fleet in half hours by the clocks of a zone, Monday
// 00:00 first.
type pattern struct {
	zone  *time.Location
	now   time.Time
	cells [halves]halfOfWeek
	mean  float64 // arrivals an hour
	base  float64 // share of all half hours, week by week, that are busy
}

// halfOfWeek is one half hour of the week, one value for each week it was seen
// in, the newest last.
type halfOfWeek struct {
	arrivals []weighted // an hour
	demand   []weighted // the peak
	older    weighted   // arrivals an hour, from the sketch
	typical  float64    // arrivals an hour
	waits    digest     // of the full hours that it is in, in units of waitUnit
}

type weighted struct {
	v, w float64
	age  int64 // in weeks
}

// weekly makes the pattern of a history. Minutes are put where the clocks of
// the zone showed them, over changes of the clock. The sketch is kept in UTC
// and put where the zone's clocks show it now.
func (h *History) weekly(s *Series, now time.Time, zone *time.Location) *pattern {
	p := &pattern{zone: zone, now: now}
	from := floorDiv(s.start+halfHour-1, halfHour) * halfHour
	for ; from+halfHour <= s.end(); from += halfHour {
		w := s.read(from, halfHour)
		if 2*w.known < halfHour {
			continue
		}
		c := &p.cells[p.slot(from)]
		age := floorDiv(s.end()-from, week)
		weight := math.Pow(forget, float64(age))
		c.arrivals = append(c.arrivals, weighted{w.arrivals * minutesOfHour / float64(w.known), weight, age})
		c.demand = append(c.demand, weighted{w.peak, weight, age})
	}
	first := floorDiv(minuteOf(now), minutesOfHour)
	for hour := first; hour < first+hoursOfWeek; hour++ {
		x := h.sketch.of(hour)
		if x == nil {
			continue
		}
		for half := range int64(2) {
			c := &p.cells[p.slot(hour*minutesOfHour+half*halfHour)]
			c.waits.merge(&x.parts[partWait])
			if x.parts[partArrivals].weight <= 0 {
				continue
			}
			c.older = weighted{x.parts[partArrivals].mean(), math.Pow(forget, RawWeeks) * x.parts[partArrivals].weight, RawWeeks}
		}
	}
	p.settle()
	return p
}

// settle finds what is typical of each half hour and of the week. The highest
// of three or more weeks is left out: one launch is no pattern.
func (p *pattern) settle() {
	sum, seen := 0.0, 0
	for i := range p.cells {
		c := &p.cells[i]
		if len(c.arrivals) == 0 && c.older.w == 0 {
			continue
		}
		c.typical = meanOf(append(trimmed(c.arrivals), c.older))
		sum += c.typical
		seen++
	}
	if seen == 0 {
		return
	}
	p.mean = sum / float64(seen)
	busy, all := 0.0, 0.0
	for i := range p.cells {
		for _, x := range p.cells[i].arrivals {
			all++
			if x.v >= busyTimes*p.mean {
				busy++
			}
		}
	}
	if all > 0 {
		p.base = busy / all
	}
}

// trimmed is a copy without the largest, where there are three or more.
func trimmed(list []weighted) []weighted {
	out := slices.Clone(list)
	if len(out) < 3 {
		return out
	}
	most := 0
	for i := range out {
		if out[i].v > out[most].v {
			most = i
		}
	}
	return slices.Delete(out, most, most+1)
}

func meanOf(list []weighted) float64 {
	var sum, weight float64
	for _, x := range list {
		sum, weight = sum+x.v*x.w, weight+x.w
	}
	if weight == 0 {
		return 0
	}
	return sum / weight
}

// slot is the half hour of the week that a minute is in.
func (p *pattern) slot(minute int64) int {
	at := timeOf(minute).In(p.zone)
	day := (int(at.Weekday()) + 6) % 7 // Monday first
	return day*48 + at.Hour()*2 + at.Minute()/halfHour
}

// view is the pattern for people.
func (p *pattern) view() fleet.ForecastWeek {
	none := fleet.ForecastWeek{Arrivals: []float64{}, Demand: []float64{}, WeeksSeen: []int{}, Waits: []float64{}, WaitsSeen: []float64{}}
	w := none
	seen := false
	for i := range p.cells {
		c := &p.cells[i]
		n := len(c.arrivals)
		if n == 0 && c.older.w > 0 {
			n = 1 // at least one, long ago
		}
		seen = seen || n > 0
		w.WeeksSeen = append(w.WeeksSeen, n)
		w.Arrivals = append(w.Arrivals, hundredths(c.typical))
		w.Demand = append(w.Demand, hundredths(meanOf(c.demand)))
		w.Waits = append(w.Waits, hundredths(c.waits.quantile(0.95)*waitUnit.Seconds()))
		w.WaitsSeen = append(w.WaitsSeen, math.Round(c.waits.weight*10)/10)
	}
	if !seen {
		return none
	}
	w.Mean = hundredths(p.mean)
	return w
}

func hundredths(v float64) float64 { return math.Round(v*100) / 100 }
