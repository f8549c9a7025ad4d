package forecast

import (
	"math"
	"time"
)

const (
	fastTau      = 30 * time.Second // memory of the fast rate
	slowTau      = 10 * time.Minute // memory of the slow rate
	momentsHalf  = 10 * time.Minute // half-life of the dispersion
	burstHalf    = time.Hour        // half-life of the burst sizes
	minWindows   = 5.0              // windows seen before dispersion is believed
	priorIDC     = 2.0              // until then: twice Poisson
	maxIDC       = 1e4
	burstBuckets = 24
)

// Arrivals summarizes the arrivals of one pool. The zero value has seen
// nothing. It is a plain value: copy it freely.
type Arrivals struct {
	Known bool      `json:"known"`
	At    time.Time `json:"at"`   // of the last reading
	Seen  int64     `json:"seen"` // the counter at the last reading
	Last  time.Time `json:"last"` // reading that last saw an arrival
	Fast  float64   `json:"fast"` // tasks a second over about 30 s
	Slow  float64   `json:"slow"` // tasks a second over about 10 min

	Window time.Time `json:"window"` // start of the window being counted
	Count  int64     `json:"count"`  // arrivals in it
	Weight float64   `json:"weight"` // windows seen, forgetting
	Sum    float64   `json:"sum"`    // of counts
	Square float64   `json:"square"` // of squared counts
	// Bursts weighs tasks by the size of the window they came in.
	Bursts [burstBuckets]float32 `json:"bursts"`
}

// Observe takes a reading of a monotonic counter of arrivals. Counts are
// gathered in windows of the given length, which should be the lead time.
// A counter that fell was reset and becomes the new baseline; a clock that
// stood still or went back adds counts and changes no rate.
func (a *Arrivals) Observe(now time.Time, counter int64, window time.Duration) {
	window = max(window, 100*time.Millisecond)
	if !a.Known || counter < a.Seen {
		if !a.Known {
			a.Window = now
		}
		a.Known, a.At, a.Seen = true, now, counter
		return
	}
	n := counter - a.Seen
	dt := between(a.At, now)
	a.At, a.Seen = now, counter
	if dt > 0 {
		s := dt.Seconds()
		a.Fast = decay(a.Fast, float64(n), s, fastTau.Seconds())
		a.Slow = decay(a.Slow, float64(n), s, slowTau.Seconds())
	}
	if n > 0 {
		a.Last = now
	}
	if k := int64(dt / window); k >= 3 && dt > unwatched {
		// Nobody looked for a while: how the tasks were spread is not known, and
		// all at once is the least likely.
		a.roll(now, window)
		a.spread(n, k, window)
		return
	}
	a.roll(now, window)
	a.Count += n
}

// unwatched is a gap between readings too long for what came in it to be taken
// for one burst.
const unwatched = 5 * time.Second

// spread counts n arrivals as evenly spread over the last k windows, which
// were rolled as empty.
func (a *Arrivals) spread(n, k int64, window time.Duration) {
	if n == 0 {
		return
	}
	g := math.Exp2(-window.Seconds() / momentsHalf.Seconds())
	each, remembered := float64(n)/float64(k), (1-math.Pow(g, float64(k)))/(1-g)
	a.Sum += each * remembered
	a.Square += each * each * remembered
	keep := math.Exp2(-window.Seconds() * float64(k) / burstHalf.Seconds() / 2)
	a.Bursts[bucketOf((n+k-1)/k)] += float32(float64(n) * keep)
}

// decay is an exponentially weighted rate sampled at irregular times: n events
// in dt seconds replace the share of the past that dt forgets.
func decay(rate, n, dt, tau float64) float64 {
	keep := math.Exp(-dt / tau)
	return rate*keep + n/dt*(1-keep)
}

// roll closes the windows that ended before now.
func (a *Arrivals) roll(now time.Time, window time.Duration) {
	since := between(a.Window, now)
	if since < 0 { // the clock went back
		a.Window = now
		return
	}
	k := int64(since / window)
	if k == 0 {
		return
	}
	a.Window = a.Window.Add(time.Duration(k) * window)
	g := math.Exp2(-window.Seconds() / momentsHalf.Seconds())
	c := float64(a.Count)
	a.Weight, a.Sum, a.Square = a.Weight*g+1, a.Sum*g+c, a.Square*g+c*c
	if empty := float64(k - 1); empty > 0 { // windows without arrivals
		gk := math.Pow(g, empty)
		a.Weight = a.Weight*gk + (1-gk)/(1-g)
		a.Sum, a.Square = a.Sum*gk, a.Square*gk
	}
	keep := float32(math.Exp2(-window.Seconds() * float64(k) / burstHalf.Seconds()))
	for i := range a.Bursts {
		a.Bursts[i] *= keep
	}
	if a.Count > 0 {
		a.Bursts[bucketOf(a.Count)] += float32(a.Count)
	}
	a.Count = 0
}

// Rate is the recent arrival rate in tasks a second: the larger of the fast
// and the slow one, so that a pause of seconds is not taken for the night.
func (a *Arrivals) Rate() float64 { return max(a.Fast, a.Slow) }

// Dispersion is the measured index of dispersion of window counts (variance
// over mean; 1 is Poisson), at least 1.
func (a *Arrivals) Dispersion() float64 {
	if a.Weight < minWindows || a.Sum <= 0 {
		return priorIDC
	}
	mean := a.Sum / a.Weight
	v := a.Square/a.Weight - mean*mean
	return min(max(v/mean, 1), maxIDC)
}

// Quantile is the smallest count that arrivals within the horizon stay at or
// under with probability q, from the recent rate and dispersion.
func (a *Arrivals) Quantile(q float64, horizon time.Duration) int {
	return NegativeBinomial(q, a.Rate()*horizon.Seconds(), a.Dispersion())
}

// Burst is the size of window that a share q of the recent tasks came in or
// below; 0 with nothing seen. It answers "how many come together", which a
// rate cannot: ten tasks every ten minutes are nothing a second.
func (a *Arrivals) Burst(q float64) int {
	var total float32
	for _, w := range a.Bursts {
		total += w
	}
	if total < 0.5 { // less than half a task remembered
		return 0
	}
	var sum float32
	for i, w := range a.Bursts {
		sum += w
		if float64(sum) >= q*float64(total) {
			return bucketTop(i)
		}
	}
	return bucketTop(burstBuckets - 1)
}

// Burst sizes are kept in buckets 1, 2, 3, 4, 6, 8, 12, 16, …: two a doubling.
func bucketTop(i int) int {
	switch {
	case i < 2:
		return i + 1
	case i%2 == 0:
		return 3 << ((i - 2) / 2)
	}
	return 4 << ((i - 3) / 2)
}

func bucketOf(n int64) int {
	for i := range burstBuckets {
		if n <= int64(bucketTop(i)) {
			return i
		}
	}
	return burstBuckets - 1
}

// NegativeBinomial is the q-quantile of an over-dispersed count with the given
// mean and variance mean*dispersion: a Poisson count whose rate is gamma
// distributed. Large means use the normal approximation with the
// Cornish-Fisher correction for skewness.
func NegativeBinomial(q, mean, dispersion float64) int {
	if !(mean > 0) || math.IsInf(mean, 0) || q <= 0 {
		return 0
	}
	q = min(q, 0.999999)
	sd := math.Sqrt(mean * max(dispersion, 1))
	if mean > 256 {
		z := math.Sqrt2 * math.Erfinv(2*q-1)
		skew := (2*max(dispersion, 1) - 1) / sd
		return int(max(0, math.Ceil(mean+sd*(z+(z*z-1)*skew/6))))
	}
	p, r := 1.0, 0.0
	pk := math.Exp(-mean)
	if dispersion > 1+1e-6 {
		p, r = 1/dispersion, mean/(dispersion-1)
		pk = math.Pow(p, r)
	}
	limit := int(mean+60*sd) + 64
	cum, k := pk, 0
	for ; cum < q && k < limit; k++ {
		if r > 0 {
			pk *= (float64(k) + r) / float64(k+1) * (1 - p)
		} else {
			pk *= mean / float64(k+1)
		}
		cum += pk
	}
	return k
}
