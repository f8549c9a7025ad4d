package forecast

import "time"

// Series is a stretch of minutes made ready for questions about windows: sums
// of arrivals in O(1), peaks in O(minutes of the window). It is not changed
// after it was made and may be read from several goroutines.
type Series struct {
	start    int64     // minute of the first
	arrivals []int64   // running sums; one longer than peaks
	demand   []float64 // likewise, of the minutes' means
	known    []int32   // likewise, of minutes looked at
	peaks    []int32   // -1: nobody looked
}

// NewSeries makes a series of consecutive minutes, the first of which begins
// at start (cut to the minute).
func NewSeries(start time.Time, minutes []Minute) *Series {
	s := newSeries(minuteOf(start), len(minutes))
	for _, m := range minutes {
		s.push(m.cell())
	}
	return s
}

func newSeries(start int64, n int) *Series {
	return &Series{
		start: start, arrivals: make([]int64, 1, n+1), demand: make([]float64, 1, n+1),
		known: make([]int32, 1, n+1), peaks: make([]int32, 0, n),
	}
}

func (s *Series) push(c cell) {
	i := len(s.peaks)
	known, peak := int32(0), int32(-1)
	if c.known {
		known, peak = 1, c.peak
	}
	s.arrivals = append(s.arrivals, s.arrivals[i]+int64(c.arrivals))
	s.demand = append(s.demand, s.demand[i]+float64(c.mean)/meanParts)
	s.known = append(s.known, s.known[i]+known)
	s.peaks = append(s.peaks, peak)
}

// Span is the time from the first minute to the end of the last.
func (s *Series) Span() (from, until time.Time) {
	return timeOf(s.start), timeOf(s.end())
}

func (s *Series) end() int64 { return s.start + int64(len(s.peaks)) }

// Known is the number of minutes that were looked at.
func (s *Series) Known() int { return int(s.known[len(s.peaks)] - s.known[0]) }

// window is what is known of the minutes [from, from+n).
type window struct {
	known    int     // minutes looked at
	arrivals float64 // in those
	demand   float64 // the mean over those
	peak     float64 // the largest of those
}

// rates reads a window without its peak, which is dear.
func (s *Series) rates(from int64, n int) window {
	a := int(min(max(from-s.start, 0), int64(len(s.peaks))))
	b := int(min(max(from+int64(n)-s.start, 0), int64(len(s.peaks))))
	if a >= b {
		return window{}
	}
	w := window{known: int(s.known[b] - s.known[a]), arrivals: float64(s.arrivals[b] - s.arrivals[a])}
	if w.known > 0 {
		w.demand = (s.demand[b] - s.demand[a]) / float64(w.known)
	}
	return w
}

// read reads a window.
func (s *Series) read(from int64, n int) window {
	w := s.rates(from, n)
	if w.known == 0 {
		return w
	}
	a := int(max(from-s.start, 0))
	b := int(min(from+int64(n)-s.start, int64(len(s.peaks))))
	for _, p := range s.peaks[a:b] {
		w.peak = max(w.peak, float64(p))
	}
	return w
}

// measure is what a forecast is of.
type measure int

const (
	ofArrivals measure = iota // tasks submitted in a window
	ofDemand                  // the most tasks waiting or running at once in it
)

// value is the measure of a window, scaled up for minutes nobody looked at; ok
// is false when that were more than half of them.
func (s *Series) value(m measure, from int64, n int) (v float64, ok bool) {
	if m == ofArrivals {
		w := s.rates(from, n)
		if 2*w.known < n || w.known == 0 {
			return 0, false
		}
		return w.arrivals * float64(n) / float64(w.known), true
	}
	w := s.read(from, n)
	return w.peak, w.known > 0 && 2*w.known >= n
}

// before is the part of the series that was known at a minute.
func (s *Series) before(minute int64) *Series {
	n := int(min(max(minute-s.start, 0), int64(len(s.peaks))))
	return &Series{start: s.start, arrivals: s.arrivals[:n+1], demand: s.demand[:n+1], known: s.known[:n+1], peaks: s.peaks[:n]}
}

// after is the part of the series from a minute on.
func (s *Series) after(minute int64) *Series {
	n := int(min(max(minute-s.start, 0), int64(len(s.peaks))))
	return &Series{start: s.start + int64(n), arrivals: s.arrivals[n:], demand: s.demand[n:], known: s.known[n:], peaks: s.peaks[n:]}
}

// Tasks is the number of arrivals in the minutes that were looked at.
func (s *Series) Tasks() int { return int(s.arrivals[len(s.peaks)] - s.arrivals[0]) }
