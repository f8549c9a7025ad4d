package forecast

import (
	"slices"
	"time"
)

// foldWidth is the width of a phase.
const foldWidth = 5 * time.Second

// Fold learns arrivals that keep to the clock, as those of cron jobs do: in
// which share of the cycles something arrived, by phase of the cycle.
type Fold struct {
	Period time.Duration `json:"period"`
	Alpha  float64       `json:"alpha"` // weight of the newest cycle
	Known  bool          `json:"known"`
	Bin    int64         `json:"bin"` // being counted, since the epoch
	Count  int64         `json:"count"`
	Share  []float64     `json:"share"` // by phase, 0 to 1
	Size   []float64     `json:"size"`  // arrivals when there were any
	Sum    float64       `json:"sum"`   // of Share
	Hot    int           `json:"hot"`   // phases that stand out

	// Those phases, sorted, made anew where they are not Hot; and of them those
	// above low, among which are all that Due counts, made anew when that is no
	// longer so.
	hots  []int64
	above []int64
	low   float64

	seen sight // what was asked last
}

// sight is what a fold says of one span of bins, kept while no share changes:
// it is asked several times for the same one.
type sight struct {
	first, last int64
	horizon     time.Duration
	due         float64
	next        time.Time
	hasDue      bool
	hasNext     bool
}

// look is the sight of now; what it has is still so.
func (f *Fold) look(now time.Time, horizon time.Duration) *sight {
	nanos := now.UnixNano()
	first, last := binOf(nanos), binOf(nanos+int64(horizon))
	if v := &f.seen; v.first != first || v.last != last || v.horizon != horizon {
		*v = sight{first: first, last: last, horizon: horizon}
	}
	return &f.seen
}

// bin is the number of a time's bin since the epoch.
func (f *Fold) bin(t time.Time) int64 { return binOf(t.UnixNano()) }

func binOf(nanos int64) int64 { return nanos / int64(foldWidth) }

// Observe counts n arrivals at now.
func (f *Fold) Observe(now time.Time, n int64) {
	b, k := f.bin(now), int64(f.Period/foldWidth)
	if !f.Known {
		f.Known, f.Bin = true, b
		f.Share, f.Size = make([]float64, k), make([]float64, k)
	}
	before := f.Bin
	if b < f.Bin || b-f.Bin > 20*k { // the clock went back, or a day has passed
		f.Bin, f.Count = b, 0
	}
	f.seen.hasDue = f.seen.hasDue && n == 0 && b >= before // what is here already is not due
	if f.Bin < b {
		f.seen.hasDue, f.seen.hasNext = false, false
		f.close(f.Bin % k)
		f.pass(f.Bin+1, b)
		f.Bin = b
	}
	f.Count += n
}

// pass closes the bins from one to before another, in which nothing arrived.
func (f *Fold) pass(from, to int64) {
	sum := f.Sum
	for i := int(from % int64(len(f.Share))); from < to; from++ {
		switch old := f.Share[i]; {
		case hot(old):
			f.Sum = sum
			f.close(int64(i))
			sum = f.Sum
		case old != 0:
			now := f.fade(old)
			f.Share[i] = now
			sum += now - old
		}
		if i++; i == len(f.Share) {
			i = 0
		}
	}
	f.Sum = sum
}

func (f *Fold) close(i int64) {
	old, hit := f.Share[i], 0.0
	if f.Count == 0 && !hot(old) {
		f.Share[i] = f.fade(old)
		f.Sum += f.Share[i] - old
		return
	}
	before := f.hot(i)
	hots := f.list() // before it changes
	if f.Count > 0 {
		hit = 1
		if f.Size[i] == 0 {
			f.Size[i] = float64(f.Count)
		}
		f.Size[i] += f.Alpha * (float64(f.Count) - f.Size[i])
	}
	f.Share[i] = fading(old + f.Alpha*(hit-old))
	f.Sum += f.Share[i] - old
	f.Count = 0
	f.lift(i, old)
	if after := f.hot(i); after != before {
		at, _ := slices.BinarySearch(hots, i)
		if after {
			f.Hot++
			f.hots = slices.Insert(hots, at, i)
		} else {
			f.Hot--
			f.hots = slices.Delete(hots, at, at+1)
		}
	}
}

// fade is what becomes of a share in a cycle without an arrival.
func (f *Fold) fade(share float64) float64 { return fading(share - f.Alpha*share) }

// fading is a share, or nothing where it is next to nothing.
func fading(share float64) float64 {
	if share < 1e-6 {
		return 0
	}
	return share
}

// usual is the share of an average phase.
func (f *Fold) usual() float64 { return f.Sum / float64(max(1, len(f.Share))) }

// hot tells a phase that was hit in more than a fifth of the cycles.
func (f *Fold) hot(i int64) bool { return hot(f.Share[i]) }

func hot(share float64) bool { return share > 0.2 }

// Due is how many arrivals the clock announces for the time from now to the
// horizon: those of phases hit in more than a fifth of the cycles and clearly
// more often than the usual one.
func (f *Fold) Due(now time.Time, horizon time.Duration) float64 {
	if f.Hot == 0 {
		return 0
	}
	v := f.look(now, horizon)
	if !v.hasDue {
		v.hasDue, v.due = true, f.dueIn(v.first, v.last)
	}
	return v.due
}

// dueIn is Due for the bins from the first to the last one.
func (f *Fold) dueIn(first, last int64) float64 {
	k, list := int64(len(f.Share)), f.candidates()
	usual, due := f.usual(), 0.0
	bar := f.bar()
	a, span := first%k, last-first
	at, _ := slices.BinarySearch(list, a)
	for turn := int64(0); len(list) > 0; at++ {
		if at == len(list) { // the next cycle
			at, turn = 0, turn+k
		}
		i := list[at]
		b := i + turn - a
		if b > span {
			break
		}
		if f.Share[i] <= bar {
			continue
		}
		v := (f.Share[i] - usual) * min(f.Size[i], 64)
		if b == 0 {
			v = max(0, v-float64(f.Count)) // here already
		}
		due += v
	}
	return due
}

// bar is the share above which a phase is hit clearly more often than the usual
// one.
func (f *Fold) bar() float64 { return 0.2 + 2*f.usual() }

// Announced is how many arrivals the clock announced for the phase of now that
// are not here yet.
func (f *Fold) Announced(now time.Time) float64 {
	if f.Hot == 0 {
		return 0
	}
	b := f.bin(now)
	i := b % int64(len(f.Share))
	if !f.hot(i) || f.Share[i] <= f.bar() {
		return 0
	}
	v := f.Share[i] * min(f.Size[i], 64)
	if b == f.Bin {
		v -= float64(f.Count)
	}
	return max(0, v)
}

// list are the phases that are hot.
func (f *Fold) list() []int64 {
	if len(f.hots) != f.Hot {
		f.hots = f.hots[:0]
		for i := range f.Share {
			if f.hot(int64(i)) {
				f.hots = append(f.hots, int64(i))
			}
		}
	}
	return f.hots
}

// slack is how far below the bar candidates are looked for, so that they need
// not be looked for again with each move of the bar.
const slack = 0.05

// candidates are the phases that may be above the bar: those that are, and few
// others.
func (f *Fold) candidates() []int64 {
	if bar := f.bar(); f.low == 0 || bar < f.low || bar > f.low+2*slack {
		f.low = bar - slack
		f.above = f.above[:0]
		for _, i := range f.list() {
			if f.Share[i] > f.low {
				f.above = append(f.above, i)
			}
		}
	}
	return f.above
}

// lift keeps candidates up to date with a phase whose share was another.
func (f *Fold) lift(i int64, old float64) {
	was, is := hot(old) && old > f.low, f.hot(i) && f.Share[i] > f.low
	if was == is || f.low == 0 {
		return
	}
	at, _ := slices.BinarySearch(f.above, i)
	if is {
		f.above = slices.Insert(f.above, at, i)
	} else {
		f.above = slices.Delete(f.above, at, at+1)
	}
}

// Next is when Due may change next although nothing arrives; zero while no
// phase stands out.
func (f *Fold) Next(now time.Time, horizon time.Duration) time.Time {
	if f.Hot == 0 {
		return time.Time{}
	}
	v := f.look(now, horizon)
	if !v.hasNext {
		v.hasNext, v.next = true, f.nextIn(v.first, v.last, horizon)
	}
	return v.next
}

// nextIn is Next where the bins from the first to the last one are in sight.
func (f *Fold) nextIn(first, last int64, horizon time.Duration) time.Time {
	k := int64(len(f.Share))
	// In how many bins a phase is left behind, and comes into sight.
	list, bar := f.candidates(), f.bar()
	left := f.ahead(first%k, list, bar)
	if left < 0 {
		return time.Time{}
	}
	seen := f.ahead((last+1)%k, list, bar)
	d := min(left, seen)
	t := (last+1+d)*int64(foldWidth) - int64(horizon)
	if left == d {
		if u := (first + 1 + d) * int64(foldWidth); u < t || seen != d {
			t = u
		}
	}
	return time.Unix(0, t).UTC()
}

// ahead is how far it is from a phase to the next one of the list above the bar;
// -1 when there is none.
func (f *Fold) ahead(from int64, list []int64, bar float64) int64 {
	first, _ := slices.BinarySearch(list, from)
	for at := first; at < len(list); at++ {
		if f.Share[list[at]] > bar {
			return list[at] - from
		}
	}
	for at := range first { // in the next cycle
		if f.Share[list[at]] > bar {
			return list[at] + int64(len(f.Share)) - from
		}
	}
	return -1
}
