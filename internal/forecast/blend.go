package forecast

import (
	"math"
	"math/bits"
)

// blend says how the weight is shared among samples.
type blend struct {
	recent float64 // of the windows just before now, of all
	other  float64 // of the other days, of the rest
}

// usual is the blend until there is a past to choose one from, and the one to
// be beaten.
func usual() blend { return blend{recent: 0.5, other: 0.4} }

// blends are those that are tried: how much a fleet follows its hours, and how
// different its days are, are habits of its own.
func blends() []blend {
	var out []blend
	for _, recent := range []float64{0.05, 0.2, 0.5, 0.8} {
		for _, other := range []float64{0.03, 0.4} {
			out = append(out, blend{recent, other})
		}
	}
	return out
}

const (
	// nowMemory is how many minutes ahead the present demand says more than the
	// last hours: tasks that run now still run in a minute.
	nowMemory = 15.0
	// trials is how many forecasts of the past a blend is chosen by, leastTrials
	// how many it takes to leave the usual one, and betterBy how much less loss.
	trials      = 40
	leastTrials = 12
	betterBy    = 0.97
)

// weigh shares a weight of one among samples.
func (b blend) weigh(all []sample, of measure, t target) {
	var sums, want [origins]float64
	for _, x := range all {
		sums[x.kind] += x.w
	}
	recent := b.recent
	if of == ofDemand {
		recent += (1 - recent) * math.Exp(-(t.lead()-1)/nowMemory)
	}
	want[fromRecent] = recent
	want[fromSameDay], want[fromOtherDay] = (1-recent)*(1-b.other), (1-recent)*b.other
	var by [origins]float64
	for i := range sums {
		if sums[i] > 0 {
			by[i] = want[i] / sums[i]
		}
	}
	total := 0.0
	for i := range all {
		total += all[i].w * by[all[i].kind]
	}
	if total <= 0 { // only such samples as the blend has no use for
		return
	}
	for i := range all {
		all[i].w *= by[all[i].kind] / total
	}
}

// contestKey is what blends are chosen for apart: a lead to within a doubling.
type contestKey struct {
	of   measure
	n    int
	lead int
}

// blendFor is the blend with the least pinball loss over forecasts like this
// one that could have been made in the last weeks.
func (m model) blendFor(of measure, t target) blend {
	key := contestKey{of, t.n, bits.Len64(uint64(max(t.lead(), 1)))}
	if b, found := m.blend[key]; found {
		return b
	}
	b := m.choose(of, t)
	if m.blend != nil {
		m.blend[key] = b
	}
	return b
}

func (m model) choose(of measure, t target) blend {
	// Where the past is too short for that, habits show in nearer forecasts too.
	for ahead := t.from - t.now; ; ahead /= 4 {
		if b, ok := m.try(of, t, ahead); ok || ahead == 0 {
			return b
		}
	}
}

// try chooses by forecasts of windows that begin so many minutes ahead; ok is
// false, and the blend the usual one, when there were too few.
func (m model) try(of measure, t target, ahead int64) (b blend, ok bool) {
	tried := append(blends(), usual())
	losses, n := make([]float64, len(tried)), 0
	for i := range int64(trials) {
		past := target{now: t.now - ahead - int64(t.n) - i*stride, n: t.n, zone: t.zone}
		past.from = past.now + ahead
		if past.now < m.s.start+week {
			break
		}
		actual, ok := m.s.value(of, past.from, t.n)
		if !ok {
			continue
		}
		all := model{s: m.s.before(past.now), older: m.older}.samples(of, past)
		if len(all) == 0 {
			continue
		}
		n++
		weights := make([]float64, len(all))
		for j := range all {
			weights[j] = all[j].w
		}
		for j, b := range tried {
			for k := range all {
				all[k].w = weights[k]
			}
			b.weigh(all, of, past)
			losses[j] += lossOf(all, actual)
		}
	}
	best := len(tried) - 1
	if n < leastTrials {
		return tried[best], false
	}
	limit := losses[best] * betterBy
	for j, l := range losses {
		if l < limit {
			best, limit = j, l
		}
	}
	return tried[best], true
}

// lossOf is the pinball loss of the samples' quantiles, over all of them.
func lossOf(sorted []sample, actual float64) float64 {
	total, loss := 0.0, 0.0
	for _, x := range sorted {
		total += x.w
	}
	for _, p := range quantiles() {
		loss += pinball(p, empirical(sorted, total, p), actual)
	}
	return loss
}
