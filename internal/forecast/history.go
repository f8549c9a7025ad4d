package forecast

import (
	"slices"
	"time"
)

const (
	// RawWeeks is how long minutes are kept as they were; what is older is kept
	// by hour of the week.
	RawWeeks = 6
	rawHours = RawWeeks * hoursOfWeek
	// maxGap is the longest time between two readings that is bridged. In a
	// longer one nobody looked, and its minutes are unknown, not empty.
	maxGap = 90 * time.Second
	// watched is how many seconds of a minute must have been looked at for the
	// minute to be known.
	watched = 45.0
	// waitUnit is the resolution of waits.
	waitUnit = 50 * time.Millisecond
)

// Reading is what a queue says at one moment.
type Reading struct {
	Arrived int64 // tasks ever submitted; a counter that only grows
	Demand  int   // tasks waiting or running
}

// History is what a fleet, or one template of it, remembers of its load: every
// minute of the last six weeks (arrivals, mean and peak of demand), and before
// that each hour of the week in a sketch that forgets. Waits are kept by hour
// of the week alone.
//
// The zero History has seen nothing. A reading costs O(1), an hour's end a few
// hundred bytes of encoding. It is about 13 KiB for six idle weeks and about
// 370 KiB for six busy ones. It is not safe for concurrent use.
type History struct {
	first  int64    // hour (counted from 1970) of blocks[0]
	blocks [][]byte // sealed hours, see seal; nil: unknown
	sketch sketch
	sealed int // changes of all the above, for those who keep it

	open    hour // the hour being filled
	openAt  int64
	filling bool // open and openAt hold something

	last   Reading // the last one, at time at; none when at is zero
	at     time.Time
	minute partial
}

// partial is the minute being filled.
type partial struct {
	at       int64
	seconds  float64 // looked at
	area     float64 // tasks times seconds
	arrivals int64
	peak     int
}

// Observe takes a reading. What came since the one before is spread over the
// time between. After a gap of more than 90 s, and when the counter fell (it
// was reset), the time between is left unknown. A clock that went back rewrites
// the minutes it shows again; what came meanwhile counts with the next reading.
func (h *History) Observe(now time.Time, r Reading) {
	now = now.Round(0) // a machine that sleeps stops the monotonic clock
	before, at := h.last, h.at
	dt := now.Sub(at)
	h.last, h.at = r, now
	if at.IsZero() || dt <= 0 || dt > maxGap || r.Arrived < before.Arrived {
		if !at.IsZero() && dt <= 0 && dt > -maxGap && r.Arrived >= before.Arrived {
			h.last.Arrived = before.Arrived
		}
		h.turn(minuteOf(now))
		return
	}
	h.spread(at, now, before.Demand, r.Arrived-before.Arrived)
}

// spread adds the time between two readings to the minutes it covers. Demand is
// taken to have been that of the first reading until the second, the peak to be
// the larger.
func (h *History) spread(at, now time.Time, demand int, arrived int64) {
	given := int64(0)
	for from := at; from.Before(now); {
		m := minuteOf(from)
		h.turn(m)
		until := timeOf(m + 1)
		if now.Before(until) {
			until = now
		}
		s := until.Sub(from).Seconds()
		n := int64(float64(arrived)*(until.Sub(at).Seconds()/now.Sub(at).Seconds())) - given
		given += n
		h.minute.seconds += s
		h.minute.area += s * float64(demand)
		h.minute.arrivals += n
		h.minute.peak = max(h.minute.peak, demand)
		from = until
	}
	h.turn(minuteOf(now))
	h.minute.arrivals += arrived - given // rounding
	h.minute.peak = max(h.minute.peak, h.last.Demand)
}

// turn ends the minute being filled when another has begun.
func (h *History) turn(minute int64) {
	p := h.minute
	if p.at == minute {
		return
	}
	h.minute = partial{at: minute}
	if p.seconds >= watched {
		h.Record(timeOf(p.at), Minute{
			Known: true, Arrivals: int(min(p.arrivals, maxArrivals)), Mean: p.area / p.seconds, Peak: p.peak,
		})
	}
}

// Record sets a whole minute. Minutes come in the order of time; one from
// before the hour being filled means that the clock went back, and what was
// recorded after it is dropped.
func (h *History) Record(at time.Time, m Minute) {
	minute := minuteOf(at)
	hour := floorDiv(minute, minutesOfHour)
	switch {
	case h.filling && hour > h.openAt:
		h.push(h.openAt, h.open.seal())
		h.open = [minutesOfHour]cell{}
	case h.filling && hour < h.openAt, !h.filling:
		h.reopen(hour)
	}
	h.openAt, h.filling = hour, true
	h.open[minute-hour*minutesOfHour] = m.cell()
}

// reopen goes back to an hour that was left, and drops what came after.
func (h *History) reopen(hour int64) {
	h.open = [minutesOfHour]cell{}
	keep := hour - h.first
	if keep >= int64(len(h.blocks)) {
		return
	}
	if keep >= 0 {
		h.open, _ = unseal(h.blocks[keep]) // a damaged hour is an unknown one
	}
	h.blocks = h.blocks[:max(keep, 0)]
	h.sealed++
}

// push appends a sealed hour, with unknown ones between; what becomes older
// than six weeks goes to the sketch.
func (h *History) push(at int64, b []byte) {
	h.sealed++
	if len(h.blocks) == 0 {
		h.first = at
	}
	oldest := at - rawHours + 1
	if gone := min(oldest-h.first, int64(len(h.blocks))); gone > 0 {
		for i, old := range h.blocks[:gone] {
			if minutes, err := unseal(old); err == nil && len(old) > 0 {
				h.sketch.keep(h.first+int64(i), &minutes)
			}
		}
		h.blocks = slices.Delete(h.blocks, 0, int(gone))
		h.first += gone
	}
	if len(h.blocks) == 0 {
		h.first = at
	}
	for h.first+int64(len(h.blocks)) < at {
		h.blocks = append(h.blocks, nil)
	}
	h.blocks = append(h.blocks, b)
}

// Waited takes the time a task waited from being due to its first instruction.
func (h *History) Waited(at time.Time, wait time.Duration) {
	if wait < 0 {
		return
	}
	x := h.sketch.at(floorDiv(minuteOf(at), minutesOfHour))
	x.parts[partWait].add(float64((wait+waitUnit-1)/waitUnit), 1)
}

// Series is the raw minutes, ready to be asked about.
func (h *History) Series() *Series {
	end := h.first + int64(len(h.blocks)) // hour
	if h.filling {
		end = h.openAt
	}
	first := end
	if len(h.blocks) > 0 {
		first = max(h.first, end-rawHours) // the clock may have leapt
	}
	s := newSeries(first*minutesOfHour, int(end-first+1)*minutesOfHour)
	for i := first; i < end; i++ {
		var minutes hour
		if k := i - h.first; k < int64(len(h.blocks)) {
			minutes, _ = unseal(h.blocks[k]) // a damaged hour is an unknown one
		}
		for _, c := range minutes {
			s.push(c)
		}
	}
	last := -1
	for i, c := range h.open {
		if c.known && h.filling {
			last = i
		}
	}
	for _, c := range h.open[:last+1] {
		s.push(c)
	}
	return s
}

// Clone is a copy that shares nothing that changes.
func (h *History) Clone() *History {
	c := *h
	c.blocks = slices.Clone(h.blocks)
	for i, x := range h.sketch {
		if x == nil {
			continue
		}
		y := *x
		for j := range y.parts {
			y.parts[j].masses = slices.Clone(x.parts[j].masses)
		}
		c.sketch[i] = &y
	}
	return &c
}

// FromSeries is the history that a fleet would have of these minutes.
func FromSeries(s *Series) *History {
	h := &History{}
	for i, peak := range s.peaks {
		if peak < 0 {
			continue
		}
		h.Record(timeOf(s.start+int64(i)), Minute{
			Known: true, Arrivals: int(s.arrivals[i+1] - s.arrivals[i]), Mean: s.demand[i+1] - s.demand[i], Peak: int(peak),
		})
	}
	return h
}
