package sim

import "math"

// Waits is a histogram of waits in bounded memory: steps of 10 ms up to 200 s,
// then of half a percent.
type Waits struct {
	fine   [fineBins]int64
	coarse [coarseBins]int64
	n      int64
	over10 int64
	over60 int64
	most   int64 // milliseconds
	sum    int64 // likewise
}

const (
	binMillis  = 10
	fineBins   = 20_000
	fineTop    = binMillis * fineBins
	growth     = 1.005
	coarseBins = 4_000 // up to 200 s * 1.005^4000: beyond any century
)

// add counts a wait of ms milliseconds.
func (w *Waits) add(ms int64) {
	w.n++
	if ms < fineTop {
		w.fine[max(0, ms)/binMillis]++
	} else {
		w.coarse[min(coarseBins-1, int(math.Log(float64(ms)/fineTop)/math.Log(growth)))]++
	}
	if ms > 10_000 {
		w.over10++
		if ms > 60_000 {
			w.over60++
		}
	}
	w.most = max(w.most, ms)
	w.sum += ms
}

// quantile is the nearest-rank quantile in seconds, rounded down to the step;
// 0 of nothing.
func (w *Waits) quantile(q float64) float64 {
	rank := int64(math.Ceil(q * float64(w.n)))
	for i, c := range &w.fine {
		if rank -= c; rank <= 0 && w.n > 0 {
			return float64(i*binMillis) / 1000
		}
	}
	for i, c := range &w.coarse {
		if rank -= c; rank <= 0 && w.n > 0 {
			return min(fineTop*math.Pow(growth, float64(i)), float64(w.most)) / 1000
		}
	}
	return 0
}

// above counts the waits of more than ms milliseconds, to the step.
func (w *Waits) above(ms int64) int64 {
	n := w.n
	for i, c := range &w.fine {
		if int64(i) > ms/binMillis {
			return n
		}
		n -= c
	}
	for i, c := range &w.coarse {
		if fineTop*math.Pow(growth, float64(i)) > float64(ms) {
			break
		}
		n -= c
	}
	return n
}

// share is part of all, 0 of nothing.
func (w *Waits) share(part int64) float64 {
	if w.n == 0 {
		return 0
	}
	return float64(part) / float64(w.n)
}
