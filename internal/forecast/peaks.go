package forecast

import (
	"cmp"
	"math"
	"slices"
)

const (
	// A half hour is part of a peak when it has peakTimes the mean of the week,
	// and aboveTimes the mean in at least steadyShare of the weeks.
	peakTimes   = 1.5
	aboveTimes  = 1.2
	steadyShare = 0.6
	// leastHalves is the shortest peak; a shorter one counts only at steepTimes
	// the mean.
	leastHalves = 2
	steepTimes  = 3.0
	// fewWeeks is how many weeks make a pattern.
	fewWeeks = 2
	// maxPeaks is how many are named.
	maxPeaks = 6
)

// peak is a stretch of half hours on some days of the week.
type peak struct {
	days        []int // Monday is 0; of the beginning
	first, last int   // half hours of the day, last not included; beyond 48 on the next day
	times       float64
	weeks, seen int
}

// excess is how much more comes in a peak than on average, in hours of the
// mean.
func (k *peak) excess() float64 {
	return (k.times - 1) * float64(k.last-k.first) / 2 * float64(len(k.days))
}

// peaks finds the stretches well above the mean, week after week; those at
// about the same time of several days are one.
func (p *pattern) peaks() []peak {
	var hot [halves]bool
	cold := -1 // any half hour in no peak, to begin at
	for i := range p.cells {
		hot[i] = p.hot(i)
	}
	for i := range hot { // a single half hour does not divide a peak
		before, after := hot[(i+halves-1)%halves], hot[(i+1)%halves]
		if !hot[i] && before && after && p.cells[i].typical > p.mean {
			hot[i] = true
		}
		if !hot[i] {
			cold = i
		}
	}
	if cold < 0 {
		return nil
	}
	var found []peak
	for i := cold; i < cold+halves; {
		n := 0
		for n < halves && hot[(i+n)%halves] {
			n++
		}
		if n > 0 {
			at := i % halves
			k := peak{days: []int{at / 48}, first: at % 48, last: at%48 + n}
			p.measure(&k)
			if n >= leastHalves || k.times >= steepTimes {
				found = append(found, k)
			}
		}
		i += max(n, 1)
	}
	found = p.together(found)
	return found[:min(len(found), maxPeaks)]
}

func (p *pattern) hot(i int) bool {
	c := &p.cells[i]
	if p.mean <= 0 || len(c.arrivals) < fewWeeks || c.typical < peakTimes*p.mean {
		return false
	}
	return float64(p.above(c)) >= steadyShare*float64(len(c.arrivals))
}

// above counts the weeks in which a half hour was above the mean.
func (p *pattern) above(c *halfOfWeek) int {
	n := 0
	for _, x := range c.arrivals {
		if x.v >= aboveTimes*p.mean {
			n++
		}
	}
	return n
}

// together merges peaks at about the same time of day, beginning with the
// largest, and sorts them by excess.
func (p *pattern) together(found []peak) []peak {
	order := func(a, b peak) int {
		return cmp.Or(cmp.Compare(b.excess(), a.excess()), cmp.Compare(a.days[0], b.days[0]), cmp.Compare(a.first, b.first))
	}
	slices.SortFunc(found, order)
	var out []peak
	for len(found) > 0 {
		k := found[0]
		like, rest := []peak{k}, []peak(nil)
		for _, o := range found[1:] {
			if overlap(k, o) >= 0.6 && !slices.Contains(daysOf(like), o.days[0]) {
				like = append(like, o)
			} else {
				rest = append(rest, o)
			}
		}
		found = rest
		k.days = daysOf(like)
		slices.Sort(k.days)
		k.first, k.last = middle(like)
		p.measure(&k)
		out = append(out, k)
	}
	slices.SortFunc(out, order)
	return out
}

func daysOf(list []peak) []int {
	var days []int
	for _, k := range list {
		days = append(days, k.days...)
	}
	return days
}

// overlap is what two stretches of the day share, of what they cover.
func overlap(a, b peak) float64 {
	shared := min(a.last, b.last) - max(a.first, b.first)
	return max(0, float64(shared)) / float64(max(a.last, b.last)-min(a.first, b.first))
}

// middle is the mean beginning and end.
func middle(list []peak) (first, last int) {
	var a, b float64
	for _, k := range list {
		a, b = a+float64(k.first), b+float64(k.last)
	}
	n := float64(len(list))
	first = int(math.Round(a / n))
	return first, max(first+1, int(math.Round(b/n)))
}

// each calls f with every half hour of a peak.
func (k *peak) each(f func(slot int)) {
	for _, day := range k.days {
		for i := k.first; i < k.last; i++ {
			f((day*48 + i) % halves)
		}
	}
}

// measure sets how many times the mean a peak has, and in how many weeks.
func (p *pattern) measure(k *peak) {
	sum, n := 0.0, 0.0
	var above, seen float64
	k.each(func(i int) {
		c := &p.cells[i]
		sum += c.typical
		n++
		above += float64(p.above(c))
		seen += float64(len(c.arrivals))
	})
	k.times = sum / n / p.mean
	k.weeks, k.seen = int(math.Round(above/n)), int(math.Round(seen/n))
}
