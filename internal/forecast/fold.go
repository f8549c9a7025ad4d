package forecast

import "time"

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

	hots []int64 // those phases, sorted; made anew where it is not Hot long
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
	old, hit := f.Share[i], 0.0
	if f.Count > 0 {
		hit = 1
		if f.Size[i] == 0 {
			f.Size[i] = float64(f.Count)
		}
		f.Size[i] += f.Alpha * (float64(f.Count) - f.Size[i])
	}
	f.Share[i] += f.Alpha * (hit - old)
	if f.Share[i] < 1e-6 {
		f.Share[i] = 0
	}
	f.Sum += f.Share[i] - old
	f.Count = 0
	if after := f.hot(i); after != before {
		if after {
			f.Hot++
		} else {
			f.Hot--
		}
		f.hots = f.hots[:0]
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
	k, first := int64(len(f.Share)), f.bin(now)
	usual, due := f.usual(), 0.0
	i := first % k
	for b, last := first, f.bin(now.Add(horizon)); b <= last; b++ {
		if f.Share[i] > 0.2+2*usual {
			v := (f.Share[i] - usual) * min(f.Size[i], 64)
			if b == first {
				v = max(0, v-float64(f.Count)) // here already
			}
			due += v
		}
		if i++; i == k {
			i = 0
		}
	}
	return due
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

// Next is when Due may change next although nothing arrives; zero while no
// phase stands out.
func (f *Fold) Next(now time.Time, horizon time.Duration) time.Time {
	if f.Hot == 0 {
		return time.Time{}
	}
	k, usual := int64(len(f.Share)), f.usual()
	first, last := f.bin(now), f.bin(now.Add(horizon))
	// In how many bins a phase is left behind, and comes into sight.
	left, seen := k+1, k+1
	a, b := first%k, (last+1)%k
	for _, i := range f.list() {
		if f.Share[i] <= 0.2+2*usual {
			continue
		}
		left, seen = min(left, ahead(i-a, k)), min(seen, ahead(i-b, k))
	}
	d := min(left, seen)
	if d > k {
		return time.Time{}
	}
	t := time.Unix(0, (last+1+d)*int64(foldWidth)).Add(-horizon)
	if left == d {
		if u := time.Unix(0, (first+1+d)*int64(foldWidth)); u.Before(t) || seen != d {
			t = u
		}
	}
	return t.UTC()
}

// ahead brings the distance to a phase into a cycle.
func ahead(d, k int64) int64 {
	if d < 0 {
		return d + k
	}
	return d
}
