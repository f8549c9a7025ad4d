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
	for ; f.Bin < b; f.Bin++ {
		f.close(f.Bin % k)
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
	for b := first; b <= f.bin(now.Add(horizon)); b++ {
		i := b % k
		if f.Share[i] <= 0.2+2*usual {
			continue
		}
		v := (f.Share[i] - usual) * min(f.Size[i], 64)
		if b == first {
			v = max(0, v-float64(f.Count)) // here already
		}
		due += v
	}
	return due
}

// Next is when Due may change next although nothing arrives; zero while no
// phase stands out.
func (f *Fold) Next(now time.Time, horizon time.Duration) time.Time {
	if f.Hot == 0 {
		return time.Time{}
	}
	k, usual := int64(len(f.Share)), f.usual()
	stands := func(b int64) bool { return f.Share[b%k] > 0.2+2*usual }
	first, last := f.bin(now), f.bin(now.Add(horizon))
	for d := int64(0); d <= k; d++ {
		// A phase is left behind, or one comes into sight.
		if stands(first+d) || stands(last+1+d) {
			t := time.Unix(0, (last+1+d)*int64(foldWidth)).Add(-horizon)
			if u := time.Unix(0, (first+1+d)*int64(foldWidth)); stands(first+d) && (u.Before(t) || !stands(last+1+d)) {
				t = u
			}
			return t.UTC()
		}
	}
	return time.Time{}
}
