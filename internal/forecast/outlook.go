package forecast

import (
	"math"
	"time"
)

// Outlook is what Ranks expects of the next lead time, as plain numbers: small
// enough to be part of every journaled observation.
type Outlook struct {
	Lead   time.Duration `json:"lead"`   // the horizon
	Mean   float64       `json:"mean"`   // arrivals expected in it at the recent rate
	Recent int           `json:"recent"` // arrivals in the last one
	Due    float64       `json:"due,omitempty"`
	// Prior is the weight of the geometric prior, from 0 to 1.
	Prior float64 `json:"prior"`
	// Rates are arrivals a second by bin of their rank less Mean; zeros at the
	// end are left out.
	Rates []float32 `json:"rates,omitempty"`
	// Next is when the outlook changes although nothing happens; zero: not.
	Next time.Time `json:"next,omitzero"`
}

// Outlook sums up what was learned for the context of now, into the memory of
// the one given.
func (r *Ranks) Outlook(now time.Time, lead time.Duration, into *Outlook) {
	*into = Outlook{Lead: lead, Prior: 1, Rates: into.Rates[:0]}
	if !r.Known || len(r.Past) == r.head {
		return
	}
	m := &r.Past[len(r.Past)-1]
	a := r.ask(now, lead)
	ahead := lead.Seconds()
	into.Mean, into.Recent, into.Due = r.Rate*ahead, a.recent, a.due
	fine, coarse := r.known(0, m.Fine), r.known(1, m.Coarse)
	wide := priorTime
	if coarse != nil {
		wide += coarse.Seconds / r.Weight
	}
	narrow := backing
	if fine != nil {
		narrow += fine.Seconds / r.Weight
	}
	into.Prior = backing / narrow * priorTime / wide
	if coarse != nil {
		into.Rates = rates(into.Rates, fine, coarse, 1/(r.Weight*narrow), backing/(r.Weight*narrow*wide))
	}
	into.Next = r.next(now, lead, m)
}

// rates mixes what was counted in two contexts, up to the last rank at which
// anything came.
func rates(out []float32, fine, coarse *RankHist, f, c float64) []float32 {
	if fine == nil {
		fine = &RankHist{}
	}
	last := max(fine.counted(), coarse.counted()) - 1
	if cap(out) < last {
		out = make([]float32, 0, rankBins)
	}
	out = out[:last]
	a, b := fine.N[1:][:last], coarse.N[1:][:last]
	for i := range out {
		out[i] = float32(f*float64(a[i]) + c*float64(b[i]))
	}
	return out
}

// next is when the context changes by itself: an arrival becomes older than
// one lead time, a rate falls below the edge of its bucket, or the clock
// announces something.
func (r *Ranks) next(now time.Time, lead time.Duration, m *Moment) time.Time {
	var at time.Time
	ahead := lead.Seconds()
	soon := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for i := r.head + 1; i < len(r.Past); i++ {
		if r.Past[i].Arrived > r.Past[i-1].Arrived {
			if t := r.Past[i].At.Add(lead); t.After(now) {
				soon(t)
				break
			}
		}
	}
	for i := range r.Folds {
		soon(r.Folds[i].Next(now, lead+2*time.Second))
	}
	falls := func(mean, edge, tau float64) {
		if mean <= edge {
			return
		}
		// ln(x) is more than 2(x-1)/(x+1): mostly that is late enough to tell.
		if x := mean / edge; at.IsZero() || tau*2*(x-1)/(x+1)*1e9 < float64(between(now, at)) {
			soon(now.Add(time.Duration(tau*math.Log(x)*1e9) + time.Millisecond))
		}
	}
	if b := rateBucket(m.Mean); b > 0 {
		falls(r.Rate*ahead, math.Ldexp(1, b-4), rateTau)
	}
	if b := r.quietBucket(m.Mean, ahead); b > 1 {
		falls(r.Hour*ahead, quietEdge(b), hourTau)
	}
	return at
}

// Rate is the rate, in tasks a second, of arrivals that n more slots would
// start at once where free ones are there already. free may be negative: tasks
// wait.
func (o *Outlook) Rate(free, n int) float64 {
	x := float64(free) - o.Mean
	y := x + float64(n)
	s := 0.0
	i := max(1, rankBin(x))
	if i > 1 && lowRank(i) > x { // rounded
		i--
	}
	for lo := lowRank(i); i <= len(o.Rates) && lo < y; i++ {
		hi := lo + 1
		if i > singleBins {
			hi = lowRank(i + 1)
		}
		switch v := float64(o.Rates[i-1]); {
		case v <= 0:
		case i <= singleBins && lo >= x && hi <= y: // all of one rank
			s += v
		default:
			s += v * max(0, min(hi, y)-max(lo, x)) / (hi - lo)
		}
		lo = hi
	}
	if o.Prior < 1e-4 || o.Lead <= 0 {
		return s
	}
	// The prior: geometric ranks with the mean of what was seen last.
	mu := max(float64(o.Recent), o.Mean)
	q := mu / (1 + mu)
	return s + o.Prior*mu/o.Lead.Seconds()*(power(q, max(0, free))-power(q, max(0, free+n)))
}

// power is x to the power of n.
func power(x float64, n int) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			p *= x
		}
		x *= x
	}
	return p
}
