package forecast

import (
	"math"
	"math/bits"
	"time"
)

// Constants of Ranks. They are round numbers; docs/policy.md says what halving
// or doubling them does.
const (
	rateTau    = 450.0           // s, memory of the arrival rate
	hourTau    = 3600.0          // s, memory of the rate that tells quiet times apart
	quietBelow = 1.0             // arrivals in one lead time, at the recent rate
	ranksHalf  = 7 * 24 * 3600.0 // s, half-life of what was learned
	backing    = 300.0           // s the coarse context counts for in the fine one
	priorTime  = 60.0            // s the prior counts for in the coarse one
	rankBins   = 48
	firstRank  = -8 // lower ranks share a bin
	singleBins = 24 // bins of one rank each, from firstRank on; then two a doubling
	mostRanks  = 2000
)

// Ranks learns at which rank tasks arrive: how many slots beyond those taken
// one lead time before an arrival would have been needed to start it at once.
// A slot that is asked for now is there one lead time later, so that the rate
// of arrivals at rank k is the rate at which the k-th spare slot saves a task
// from waiting. Completions meanwhile lower the rank: that running tasks make
// room is part of what is learned, and no distribution is assumed.
//
// The rates are kept by context: what the clock announces (see Fold), the
// arrivals within the last lead time, and in the fine one also the arrival
// rate, and in quiet times that of the last hour without what the clock
// announced. A context seen for a short time only leans on the coarser one, and that
// on a geometric prior. What was learned is forgotten with a half-life of a
// week. An observation costs O(arrivals), an outlook O(1).
//
// The zero value has seen nothing. It encodes as JSON of at most about 300 kB.
type Ranks struct {
	Known    bool      `json:"known"`
	At       time.Time `json:"at"`
	Since    time.Time `json:"since"` // of the first observation
	Arrived  int64     `json:"arrived"`
	Finished int64     `json:"finished"`
	Rate     float64   `json:"rate"` // tasks a second, recent
	Hour     float64   `json:"hour"` // tasks a second in the last hour, less those that the clock announced
	// Weight is what a new observation counts; it grows, where otherwise all the
	// old ones would have to be decayed.
	Weight float64           `json:"weight"`
	Past   []Moment          `json:"past"` // of the last lead time, oldest first
	Hists  map[int]*RankHist `json:"hists"`
	Folds  []Fold            `json:"folds"`

	head int // of Past: what is before it is over

	// The contexts looked up last, the fine one first: a map is slow to ask.
	last [2]struct {
		k int
		h *RankHist
	}

	asked asked
}

// asked is what the clock announced, and how much came in the last lead time,
// when that was asked last.
type asked struct {
	at     time.Time
	lead   time.Duration // -1: no longer so
	due    float64
	recent int
}

// Moment is how things stood at one time.
type Moment struct {
	At       time.Time `json:"at"`
	Arrived  int64     `json:"arrived"`
	Finished int64     `json:"finished"`
	Fine     int       `json:"fine"` // contexts
	Coarse   int       `json:"coarse"`
	Mean     float64   `json:"mean"` // arrivals expected in one lead time
}

// RankHist counts, for one context, at which rank arrivals came, and the time
// spent in it; both weighted.
type RankHist struct {
	Seconds float64           `json:"seconds"`
	N       [rankBins]float32 `json:"n"`

	end int // of what is not zero in N; 0: not known
}

// count counts an arrival.
func (h *RankHist) count(bin int, weight float32) {
	h.N[bin] += weight
	if h.end > 0 {
		h.end = max(h.end, bin+1)
	}
}

// counted is where what is not zero ends, at least 1.
func (h *RankHist) counted() int {
	if h.end == 0 {
		h.end = rankBins
		for h.end > 1 && h.N[h.end-1] == 0 {
			h.end--
		}
	}
	return h.end
}

// rankBin is the bin of a rank relative to the expected arrivals.
func rankBin(d float64) int {
	switch i := d - firstRank + 1; {
	case i < 1:
		return 0
	case i < singleBins+1:
		return int(i)
	}
	return min(rankBins-1, singleBins+1+int(2*math.Log2((d-firstRank)/singleBins)))
}

// lowRank is the lower edge of a bin.
func lowRank(i int) float64 {
	if i <= singleBins {
		return float64(firstRank + i - 1)
	}
	x := singleBins << ((i - singleBins - 1) / 2)
	if (i-singleBins-1)%2 == 0 {
		return float64(x + firstRank)
	}
	return float64(x)*math.Sqrt2 + firstRank
}

// Observe takes a reading of the counters of arrivals and of finished tasks in,
// and of the lead time to plan for. Counters that fell were reset; a clock that
// went back teaches nothing.
func (r *Ranks) Observe(now time.Time, arrived, finished int64, lead time.Duration) {
	if !r.Known {
		*r = Ranks{Known: true, At: now, Since: now, Arrived: arrived, Finished: finished, Weight: 1, Hists: map[int]*RankHist{}, Folds: []Fold{
			{Period: 10 * time.Minute, Alpha: 0.15}, {Period: time.Hour, Alpha: 0.2},
		}}
		r.note(now, lead)
		return
	}
	dt := between(r.At, now).Seconds()
	n := arrived - r.Arrived
	if n < 0 || finished < r.Finished || dt < 0 {
		r.At, r.Arrived, r.Finished = now, arrived, finished
		r.Unwatched()
		return
	}
	if dt > 0 {
		r.pass(dt)
	}
	r.Rate += float64(n) / rateTau
	r.Hour += r.unannounced(now, n) / hourTau
	for i := range r.Folds {
		r.Folds[i].Observe(now, n)
	}
	r.asked.lead = -1
	if n > 0 {
		r.learn(now, n, finished, lead)
	}
	r.At, r.Arrived, r.Finished = now, arrived, finished
	r.note(now, lead)
}

// Unwatched says that nobody looked for a while: what came meanwhile cannot be
// told from what came just now.
func (r *Ranks) Unwatched() { r.Past, r.head, r.asked.lead = r.Past[:0], 0, -1 }

// pass lets time go by.
func (r *Ranks) pass(dt float64) {
	r.Rate *= math.Exp(-dt / rateTau)
	r.Hour *= math.Exp(-dt / hourTau)
	if k := len(r.Past); k > r.head {
		l := &r.Past[k-1]
		r.hist(0, l.Fine).Seconds += dt * r.Weight
		r.hist(1, l.Coarse).Seconds += dt * r.Weight
	}
	r.Weight *= math.Exp2(dt / ranksHalf)
	const large = 1e9
	if r.Weight < large {
		return
	}
	for k, h := range r.Hists {
		h.Seconds /= r.Weight
		for i := range h.N {
			h.N[i] /= float32(r.Weight)
		}
		h.end = 0
		if h.Seconds < 1 {
			delete(r.Hists, k)
		}
	}
	clear(r.last[:])
	r.Weight = 1
}

// learn counts n arrivals at their ranks, in the context of one lead ago.
func (r *Ranks) learn(now time.Time, n, finished int64, lead time.Duration) {
	w := r.before(now.Add(-lead))
	if w == nil {
		return
	}
	f, c := r.hist(0, w.Fine), r.hist(1, w.Coarse)
	rank := float64(r.Arrived-w.Arrived-(finished-w.Finished)) - w.Mean
	for j := int64(1); j <= min(n, mostRanks); j++ {
		b := rankBin(rank + float64(j))
		f.count(b, float32(r.Weight))
		c.count(b, float32(r.Weight))
	}
}

// before is the newest moment not after t; nil when there is none.
func (r *Ranks) before(t time.Time) *Moment {
	for r.head+1 < len(r.Past) && !r.Past[r.head+1].At.After(t) {
		r.head++
	}
	if r.head > 256 {
		r.Past = r.Past[:copy(r.Past, r.Past[r.head:])]
		r.head = 0
	}
	if r.head >= len(r.Past) || r.Past[r.head].At.After(t) {
		return nil
	}
	return &r.Past[r.head]
}

// hist is a context's, made where it is new; i is 0 for a fine context and 1
// for a coarse one.
func (r *Ranks) hist(i, k int) *RankHist {
	h := r.known(i, k)
	if h == nil {
		h = &RankHist{}
		r.Hists[k] = h
	}
	return h
}

// known is a context's; nil where it is new.
func (r *Ranks) known(i, k int) *RankHist {
	l := &r.last[i]
	if l.h == nil || l.k != k {
		l.k, l.h = k, r.Hists[k]
	}
	return l.h
}

// recent is the count of arrivals within the last lead time.
func (r *Ranks) recent(now time.Time, lead time.Duration) int {
	if w := r.before(now.Add(-lead)); w != nil {
		return int(r.Arrived - w.Arrived)
	}
	if r.head < len(r.Past) {
		return int(r.Arrived - r.Past[r.head].Arrived)
	}
	return 0
}

// ask is what the clock announces for the next lead time, and how much came in
// the last one.
func (r *Ranks) ask(now time.Time, lead time.Duration) *asked {
	a := &r.asked
	if lead == a.lead && now.Equal(a.at) {
		return a
	}
	*a = asked{at: now, lead: lead, recent: r.recent(now, lead)}
	for i := range r.Folds {
		a.due = max(a.due, r.Folds[i].Due(now, lead+2*time.Second))
	}
	return a
}

// note keeps how things stand, at most one moment for each step.
func (r *Ranks) note(now time.Time, lead time.Duration) {
	step, ahead := min(time.Second, lead/32), lead.Seconds()
	m := Moment{At: now, Arrived: r.Arrived, Finished: r.Finished, Mean: r.Rate * ahead}
	a := r.ask(now, lead)
	m.Coarse = countBucket(int(a.due+0.5))*16 + countBucket(a.recent)
	m.Fine = (m.Coarse+1)*256 + rateBucket(m.Mean)*16 + r.quietBucket(m.Mean, ahead)
	if k := len(r.Past); k > r.head+1 && between(r.Past[k-1].At, now) < step && between(r.Past[k-2].At, r.Past[k-1].At) < step {
		r.Past[k-1] = m
		return
	}
	r.Past = append(r.Past, m)
}

// between is how long it is from one time to another of the wall clock, both
// of this age: Time.Sub also cares for others, and takes several times as long.
func between(from, to time.Time) time.Duration { return time.Duration(to.UnixNano() - from.UnixNano()) }

// unannounced is how many of n arrivals the clock did not announce: what keeps
// to the clock says nothing of when the rest comes.
func (r *Ranks) unannounced(now time.Time, n int64) float64 {
	if n == 0 {
		return 0
	}
	known := 0.0
	for i := range r.Folds {
		known = max(known, r.Folds[i].Announced(now))
	}
	return max(0, float64(n)-known)
}

// quietBucket tells quiet times apart by the rate of the last hour, in steps of
// four; lead is in seconds. Where less than one arrival is expected in a lead time, the recent rate
// has hardly a task to go by, and calls a lull of a busy hour and a dead night
// the same. What was watched for less than an hour is not told apart: else the
// first burst would teach that bursts come where nothing has come for long.
func (r *Ranks) quietBucket(mean, lead float64) int {
	if mean >= quietBelow || between(r.Since, r.At) < hourTau*time.Second {
		return 0 // not a quiet time, or not known to be one
	}
	x := r.Hour * lead
	if x < quietEdge(2) {
		return 1
	}
	return min(7, (int(math.Float64bits(x)>>52)-1023+10)/2+2)
}

// quietEdge is the lower edge of a bucket from the second on.
func quietEdge(b int) float64 { return math.Ldexp(1, 2*(b-2)-10) }

func rateBucket(x float64) int {
	if x < 0.125 {
		return 0
	}
	return min(12, int(math.Float64bits(x)>>52)-1023+4) // the exponent
}

func countBucket(n int) int {
	if n <= 2 {
		return max(0, n)
	}
	return min(10, bits.Len(uint(n-1))+1)
}
