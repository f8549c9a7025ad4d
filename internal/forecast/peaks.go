package forecast

import (
	"cmp"
	"math"
	"slices"
)

const (
	// A half hour is part of a peak when it and its neighbours have peakTimes
	// the mean of the week, and itself busyTimes.
	peakTimes = 1.5
	busyTimes = 1.2
	// chance is how likely a peak may be by chance: that as many of its weeks
	// are busy though it is no different from the rest of the week.
	chance = 0.05
	// leastHalves is the shortest peak; a shorter one counts only at steepTimes
	// the mean.
	leastHalves = 2
	steepTimes  = 3.0
	// leastTasks is how many tasks come in one at least.
	leastTasks = 3.0
	// fewWeeks is how many weeks make a pattern.
	fewWeeks = 2
	// alike is the share of their time that peaks of several days have in common
	// when they are told as one.
	alike = 0.6
	// maxPeaks is how many are told.
	maxPeaks = 6
)

// peak is a stretch of half hours on some days of the week.
type peak struct {
	days        []int // Monday is 0; of the beginning
	first, last int   // half hours of the day, last not included; beyond 48 on the next day
	times       float64
	weeks, seen int // busy weeks, of those seen
	tries, hits int // the same, each day for itself
}

// excess is how much more comes in a peak than on average, in hours of the
// mean.
func (k *peak) excess() float64 {
	return (k.times - 1) * float64(k.last-k.first) / 2 * float64(len(k.days))
}

// each calls f with every half hour of a peak.
func (k *peak) each(f func(slot int)) {
	for _, day := range k.days {
		for i := k.first; i < k.last; i++ {
			f((day*48 + i) % halves)
		}
	}
}

// peaks finds the stretches well above the mean, week after week; those at
// about the same time of several days are one. The steepest is first.
func (p *pattern) peaks() []peak {
	if p.mean <= 0 {
		return nil
	}
	var found []peak
	for _, r := range p.stretches() {
		found = append(found, p.split(r[0], r[1])...)
	}
	found = slices.DeleteFunc(p.together(found), func(k peak) bool {
		short := k.last-k.first < leastHalves && k.times < steepTimes
		few := k.times*p.mean*float64(k.last-k.first)/2 < leastTasks
		return short || few || k.times < peakTimes || k.seen < fewWeeks || tail(k.tries, k.hits, p.base) > chance
	})
	return found[:min(len(found), maxPeaks)]
}

// stretches are the runs of half hours that may be part of a peak, as first and
// length; they may go over the end of the week.
func (p *pattern) stretches() [][2]int {
	var hot [halves]bool
	cold := -1 // a half hour in no peak, to begin at
	for i := range p.cells {
		around := p.typical(i-1)/4 + p.typical(i)/2 + p.typical(i+1)/4
		hot[i] = around >= peakTimes*p.mean && p.typical(i) >= busyTimes*p.mean
		if !hot[i] {
			cold = i
		}
	}
	if cold < 0 {
		return nil
	}
	var out [][2]int
	for i := cold; i < cold+halves; i++ {
		n := 0
		for n < halves && hot[(i+n)%halves] {
			n++
		}
		if n > 0 {
			out = append(out, [2]int{i % halves, n})
			i += n
		}
	}
	return out
}

func (p *pattern) typical(i int) float64 { return p.cells[(i+halves)%halves].typical }

// split divides a stretch around its highest half hour where what is at least
// half as high has twice what the rest has, and is long enough: a rush at nine is not the same as
// the office day behind it.
func (p *pattern) split(first, n int) []peak {
	if n <= 0 {
		return nil
	}
	top := 0
	for i := range n {
		if p.typical(first+i) > p.typical(first+top) {
			top = i
		}
	}
	a, b := top, top+1
	for a > 0 && 2*p.typical(first+a-1) >= p.typical(first+top) {
		a--
	}
	for b < n && 2*p.typical(first+b) >= p.typical(first+top) {
		b++
	}
	core, rest := 0.0, 0.0
	for i := range n {
		if i >= a && i < b {
			core += p.typical(first+i) / float64(b-a)
		} else {
			rest += p.typical(first+i) / float64(n-b+a)
		}
	}
	if b-a >= leastHalves && b-a < n && core >= 2*rest {
		return slices.Concat(p.split(first, a), p.split(first+a, b-a), p.split(first+b, n-b))
	}
	at := first % halves
	k := peak{days: []int{at / 48}, first: at % 48, last: at%48 + n}
	p.measure(&k)
	return []peak{k}
}

// together merges peaks at about the same time of day, beginning with the
// largest, and sorts them by their height.
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
			comparable := o.times <= 2*k.times && k.times <= 2*o.times
			if comparable && overlap(k, o) >= alike && !slices.Contains(daysOf(like), o.days[0]) {
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
	slices.SortFunc(out, func(a, b peak) int { return cmp.Or(cmp.Compare(b.times, a.times), order(a, b)) })
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

// measure sets how many times the mean a peak has, and in how many weeks it is
// busy: on each of its days for itself, and over all of them.
func (p *pattern) measure(k *peak) {
	k.times = 0
	k.each(func(i int) { k.times += p.cells[i].typical })
	k.times /= float64(len(k.days)*(k.last-k.first)) * p.mean
	k.hits, k.tries = 0, 0
	for _, day := range k.days {
		one := peak{days: []int{day}, first: k.first, last: k.last}
		hits, tries := p.busyWeeks(&one)
		k.hits, k.tries = k.hits+hits, k.tries+tries
	}
	k.weeks, k.seen = p.busyWeeks(k)
}

// busyWeeks counts the weeks in which a peak was above busyTimes the mean, of
// those in which at least half of it was looked at.
func (p *pattern) busyWeeks(k *peak) (busy, seen int) {
	var sums, counts [RawWeeks + 1]float64
	k.each(func(i int) {
		for _, x := range p.cells[i].arrivals {
			if x.age >= 0 && x.age <= RawWeeks {
				sums[x.age] += x.v
				counts[x.age]++
			}
		}
	})
	for age, n := range counts {
		if 2*n < float64(len(k.days)*(k.last-k.first)) {
			continue
		}
		seen++
		if sums[age]/n >= busyTimes*p.mean {
			busy++
		}
	}
	return busy, seen
}

// tail is the probability of at least k successes in n trials of p each.
func tail(n, k int, p float64) float64 {
	if k <= 0 {
		return 1
	}
	sum := 0.0
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}
