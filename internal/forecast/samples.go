package forecast

import (
	"cmp"
	"math"
	"slices"
)

// The model has no parameter that is fitted to a trace by hand. The constants
// below were compared on three public traces and a synthetic one over horizons
// from one minute to two weeks; the losses change by a few per cent in their
// neighbourhood. What matters more, the blend, is chosen from the fleet's own
// past.
const (
	rawDays     = RawWeeks * 7
	nearDays    = 14  // other days are looked at so far back
	kernel      = 15  // minutes around the time of day that are like it
	recentSteps = 60  // windows looked back at
	recentReach = 2.0 // memory of the recent windows, in leads
	levelReach  = 180 // minutes ahead up to which the present level scales the season
	levelPower  = 0.5 // of the ratio of level to season
)

// sample is a value that was seen, and how much it counts.
type sample struct {
	v, w float64
	kind origin
}

// origin is where a sample comes from.
type origin uint8

const (
	fromSameDay  origin = iota // the same weekday of another week
	fromOtherDay               // another day of the same kind
	fromRecent                 // just before now
	origins      = 3
)

// samples are windows like the target, sorted by value: the same time in other
// weeks and on other days, and the last windows before now.
func (m model) samples(of measure, t target) []sample {
	all := m.season(of, t)
	if t.lead() <= levelReach {
		by := math.Pow(m.level(of, t), levelPower)
		for i := range all {
			all[i].v *= by
		}
	}
	all = append(all, m.recent(of, t)...)
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.v, b.v) })
	return all
}

// season are the windows at the same time of the week in the last six weeks,
// those near them, the same hours of days alike, and the sketch.
func (m model) season(of measure, t target) []sample {
	var out []sample
	at := timeOf(t.from).In(t.zone)
	shift, around := max(t.n, 1), kernel/max(t.n, 1)
	if t.n > kernel {
		shift, around = kernel, 1
	}
	if t.n > minutesOfHour {
		around = 0
	}
	for days := 1; days <= rawDays; days++ {
		w, kind := math.Pow(forget, float64(days)/7-1), fromSameDay
		if days%7 != 0 {
			if days > nearDays || weekend(at) != weekend(at.AddDate(0, 0, -days)) {
				continue
			}
			kind = fromOtherDay
		}
		base := t.back(days)
		for j := -around; j <= around; j++ {
			from := base + int64(j*shift)
			if from+int64(t.n) > t.now {
				continue
			}
			if v, ok := m.s.value(of, from, t.n); ok {
				near := float64(around + 1)
				out = append(out, sample{v, w * (near - math.Abs(float64(j))) / (near * near), kind})
			}
		}
	}
	return m.remembered(out, of, t)
}

// remembered appends what the sketch says of the window: for one within an
// hour its distribution, for a longer one the sum (arrivals) or the largest
// (demand) of the hours' means.
func (m model) remembered(out []sample, of measure, t target) []sample {
	if m.older == nil {
		return out
	}
	part := partArrivals
	if of == ofDemand {
		part = partDemand
	}
	first, last := floorDiv(t.from, minutesOfHour), floorDiv(t.from+int64(t.n)-1, minutesOfHour)
	old := math.Pow(forget, RawWeeks)
	if first == last {
		x := m.older.of(first)
		if x == nil {
			return out
		}
		for _, b := range x.parts[part].masses {
			v := massTop(b.bucket)
			if of == ofArrivals {
				v *= float64(t.n) / minutesOfHour
			}
			out = append(out, sample{v, old * float64(b.weight), fromSameDay})
		}
		return out
	}
	var v, weight, hours float64
	for i := first; i <= last; i++ {
		x := m.older.of(i)
		if x == nil || x.parts[part].weight <= 0 {
			continue
		}
		hours++
		weight += x.parts[part].weight
		if of == ofArrivals {
			v += x.parts[part].mean()
		} else {
			v = max(v, x.parts[part].mean())
		}
	}
	if hours == 0 {
		return out
	}
	if of == ofArrivals {
		v *= float64(t.n) / minutesOfHour / hours
	}
	return append(out, sample{v, old * weight / hours, fromSameDay})
}

// recent are the last windows of the same length, the nearest counting most;
// the further ahead the target, the longer the memory.
func (m model) recent(of measure, t target) []sample {
	var out []sample
	memory := recentReach * t.lead()
	for k := 1; k <= recentSteps && k*t.n <= rawDays*24*60; k++ {
		w := math.Exp(-float64((k-1)*t.n) / memory)
		if w < 0.01 {
			break
		}
		if v, ok := m.s.value(of, t.now-int64(k*t.n), t.n); ok {
			out = append(out, sample{v, w, fromRecent})
		}
	}
	return out
}

// level is how busy the last while was beside the same while in other weeks,
// between a quarter and four; 1 where it cannot be told.
func (m model) level(of measure, t target) float64 {
	n := int(max(2*t.lead(), minutesOfHour))
	while := target{now: t.now, from: t.now - int64(n), n: n, zone: t.zone}
	read := func(from int64) (float64, bool) {
		w := m.s.rates(from, n)
		if of == ofDemand {
			return w.demand, 2*w.known >= n
		}
		return w.arrivals * float64(n) / float64(max(w.known, 1)), 2*w.known >= n
	}
	is, ok := read(while.from)
	if !ok {
		return 1
	}
	var sum, weight float64
	for days := 7; days <= rawDays; days += 7 {
		if v, ok := read(while.back(days)); ok {
			w := math.Pow(forget, float64(days)/7)
			sum, weight = sum+w*v, weight+w
		}
	}
	if weight == 0 {
		return 1
	}
	few := 1.0 // keeps the ratio of small numbers near one
	if of == ofArrivals {
		few = 5
	}
	return min(max((is+few)/(sum/weight+few), 0.25), 4)
}
