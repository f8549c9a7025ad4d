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
	// hit clearly more often than the usual one, made anew once a share changed.
	hots   []int64
	stands []int64
	listed bool
}

// bin is the number of a time's bin since the epoch.
func (f *Fold) bin(t time.Time) int64 { return t.UnixNano() / int64(foldWidth) }

// Observe counts n arrivals at now.
func (f *Fold) Observe(now time.Time, n int64) {
	b, k := f.bin(now), int64(f.Period/foldWidth)
	if !f.Known {
		f.Known, f.Bin = true, b
		f.Share, f.Size = make([]float64, k), make([]float64, k)
	}
	if b < f.Bin || b-f.Bin > 20*k { // the clock went back, or a day has passed
		f.Bin, f.Count = b, 0
	}
	if f.Bin < b {
		i := f.Bin % k
		for ; f.Bin < b; f.Bin++ {
			f.close(i)
			if i++; i == k {
				i = 0
			}
		}
	}
	f.Count += n
}

func (f *Fold) close(i int64) {
	if f.Count == 0 && f.Share[i] == 0 {
		return
	}
	before := f.hot(i)
	hots := f.list() // before it changes
	old, hit := f.Share[i], 0.0
	if f.Count > 0 {
		hit = 1
		if f.Size[i] == 0 {
			f.Size[i] = float64(f.Count)
		}
		f.Size[i] += f.Alpha * (float64(f.Count) - f.Size[i])
	}
	f.listed = false
	f.Share[i] += f.Alpha * (hit - old)
	if f.Share[i] < 1e-6 {
		f.Share[i] = 0
	}
	f.Sum += f.Share[i] - old
	f.Count = 0
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

// usual is the share of an average phase.
func (f *Fold) usual() float64 { return f.Sum / float64(max(1, len(f.Share))) }

// hot tells a phase that was hit in more than a fifth of the cycles.
func (f *Fold) hot(i int64) bool { return f.Share[i] > 0.2 }

// Due is how many arrivals the clock announces for the time from now to the
// horizon: those of phases hit in more than a fifth of the cycles and clearly
// more often than the usual one.
func (f *Fold) Due(now time.Time, horizon time.Duration) float64 {
	if f.Hot == 0 {
		return 0
	}
	k, first, list := int64(len(f.Share)), f.bin(now), f.outstanding()
	usual, due := f.usual(), 0.0
	a, span := first%k, f.bin(now.Add(horizon))-first
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
		v := (f.Share[i] - usual) * min(f.Size[i], 64)
		if b == 0 {
			v = max(0, v-float64(f.Count)) // here already
		}
		due += v
	}
	return due
}

// Announced is how many arrivals the clock announced for the phase of now that
// are not here yet.
func (f *Fold) Announced(now time.Time) float64 {
	if f.Hot == 0 {
		return 0
	}
	b := f.bin(now)
	i := b % int64(len(f.Share))
	if _, stands := slices.BinarySearch(f.outstanding(), i); !stands {
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

// outstanding are the phases that Due counts.
func (f *Fold) outstanding() []int64 {
	if !f.listed {
		f.listed = true
		f.stands = f.stands[:0]
		bar := 0.2 + 2*f.usual()
		for _, i := range f.list() {
			if f.Share[i] > bar {
				f.stands = append(f.stands, i)
			}
		}
	}
	return f.stands
}

// Next is when Due may change next although nothing arrives; zero while no
// phase stands out.
func (f *Fold) Next(now time.Time, horizon time.Duration) time.Time {
	if f.Hot == 0 {
		return time.Time{}
	}
	list := f.outstanding()
	if len(list) == 0 {
		return time.Time{}
	}
	k := int64(len(f.Share))
	first, last := f.bin(now), f.bin(now.Add(horizon))
	// In how many bins a phase is left behind, and comes into sight.
	left, seen := ahead(list, first%k, k), ahead(list, (last+1)%k, k)
	d := min(left, seen)
	t := time.Unix(0, (last+1+d)*int64(foldWidth)).Add(-horizon)
	if left == d {
		if u := time.Unix(0, (first+1+d)*int64(foldWidth)); u.Before(t) || seen != d {
			t = u
		}
	}
	return t.UTC()
}

// ahead is how far it is from a phase to the next of the list, in a cycle of k.
func ahead(list []int64, from, k int64) int64 {
	at, _ := slices.BinarySearch(list, from)
	if at == len(list) {
		return list[0] + k - from
	}
	return list[at] - from
}
