package forecast

import (
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// maxLeads bounds the sample; the newest are kept.
const maxLeads = 64

// LeadSample is one measured lead time.
type LeadSample struct {
	At   time.Time     `json:"at"`
	Lead time.Duration `json:"lead"`
}

// Leads is a bounded sample of lead times, oldest first.
type Leads struct {
	Samples []LeadSample `json:"samples"`
}

// Add keeps a measurement. Negative ones (the clock went back) are left out.
func (l *Leads) Add(at time.Time, lead time.Duration) {
	if lead < 0 {
		return
	}
	if len(l.Samples) >= maxLeads {
		l.Samples = slices.Delete(l.Samples, 0, len(l.Samples)-maxLeads+1)
	}
	l.Samples = append(l.Samples, LeadSample{at, lead})
}

// Quantiles are those of the samples younger than window, or of the newest few
// when there are fewer than that; the prior, with Samples 0, when there are
// none at all.
func (l *Leads) Quantiles(now time.Time, window time.Duration, prior fleet.Lead) fleet.Lead {
	const few = 5
	n := len(l.Samples)
	if n == 0 {
		prior.Samples = 0
		return prior
	}
	first := max(0, n-few)
	for first > 0 && now.Sub(l.Samples[first-1].At) <= window {
		first--
	}
	d := make([]time.Duration, 0, n-first)
	for _, s := range l.Samples[first:] {
		d = append(d, s.Lead)
	}
	slices.Sort(d)
	return fleet.Lead{P50: rank(d, 50), P95: rank(d, 95), P99: rank(d, 99), Samples: len(d)}
}

// rank is the nearest-rank percentile of sorted, non-empty values.
func rank(d []time.Duration, percent int) time.Duration {
	return d[max(0, (len(d)*percent+99)/100-1)]
}

// Percentile is the nearest-rank percentile of values in any order; 0 of none.
func Percentile(d []time.Duration, percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	return rank(s, percent)
}
