package forecast

import "math"

// firstSunday is the hour of 1970 in which its first Sunday began, UTC.
const firstSunday = 3 * 24

// weekOf says which week an hour (counted from 1970) is in, and which hour of
// it: 0 is Sunday 00:00 UTC.
func weekOf(hour int64) (week int64, of int) {
	week = floorDiv(hour-firstSunday, hoursOfWeek)
	return week, int(hour - firstSunday - week*hoursOfWeek)
}

// slot is what is remembered of one hour of the week.
type slot struct {
	week  int64 // that was added last
	weeks int32 // that were added in all
	parts [3]digest
}

// The parts of a slot.
const (
	partArrivals = iota // tasks in the hour
	partDemand          // the peak of demand in the hour
	partWait            // waits, in units of waitUnit
)

// sketch is a week, hour by hour, with exponential forgetting: each week that
// passes leaves the share forget of what was known. Hours are those of UTC;
// a view in a zone with summer time is off by an hour for the part of the
// memory from the other half of the year.
type sketch [hoursOfWeek]*slot

// at returns the slot of an hour, faded to its week.
func (s *sketch) at(hour int64) *slot {
	week, of := weekOf(hour)
	x := s[of]
	if x == nil {
		x = &slot{week: week}
		s[of] = x
	}
	if passed := week - x.week; passed > 0 {
		by := math.Pow(forget, float64(min(passed, 200)))
		for i := range x.parts {
			x.parts[i].fade(by)
		}
		x.week = week
	}
	return x
}

// keep adds an hour that is dropped from the raw minutes.
func (s *sketch) keep(at int64, h *hour) {
	known, arrivals, peak := 0, 0.0, int32(0)
	for _, c := range h {
		if c.known {
			known++
			arrivals += float64(c.arrivals)
			peak = max(peak, c.peak)
		}
	}
	if 2*known < minutesOfHour {
		return // mostly unseen: unknown, not empty
	}
	x := s.at(at)
	x.weeks++
	x.parts[partArrivals].add(arrivals*minutesOfHour/float64(known), 1)
	x.parts[partDemand].add(float64(peak), 1)
}

// of is the slot of an hour of the week as it is; nil when there is none.
func (s *sketch) of(hour int64) *slot {
	_, i := weekOf(hour)
	return s[i]
}
