package forecast

import (
	"math"
	"time"
)

const (
	lifeBins = 48                // three a doubling, from 1 s to 18 h
	lifeHalf = 7 * 24 * 3600.0   // s, half-life of what was learned
	lifeRate = 3.0               // bins a doubling
	lifeHope = 300 * time.Second // residual life before anything was learned
	lifeKeep = 2000              // look-ups for which the table holds
)

// Lifetimes learns how long tasks go on that have run for some time already:
// an empirical distribution of durations in logarithmic bins, forgotten with a
// half-life of a week. The zero value expects what has run for t to run for
// another t + 5 min.
type Lifetimes struct {
	At time.Time         `json:"at"`
	N  [lifeBins]float64 `json:"n"`

	means [lifeBins]time.Duration // mean residual life by age
	until [lifeBins]time.Duration // upper edges of age
	left  int                     // look-ups before the table is made anew
}

func lifeBin(age time.Duration) int {
	if age < time.Second {
		return 0
	}
	// The exponent and the thirds of a doubling: the logarithm without taking it.
	bits := math.Float64bits(float64(age) / float64(time.Second))
	i := int(lifeRate) * (int(bits>>52) - 1023)
	switch m := math.Float64frombits(bits&(1<<52-1) | 1023<<52); {
	case m >= twoThirds:
		i += 2
	case m >= oneThird:
		i++
	}
	return min(lifeBins-1, i)
}

// 2 to the power of one third and of two.
const (
	oneThird  = 1.2599210498948732
	twoThirds = 1.5874010519681994
)

// lifeEdge is the upper edge of a bin in seconds.
func lifeEdge(i int) float64 { return math.Exp2(float64(i+1) / lifeRate) }

// Done counts a task that ended after the duration. Durations below zero are
// left out.
func (l *Lifetimes) Done(now time.Time, d time.Duration) {
	if d < 0 {
		return
	}
	if l.At.IsZero() {
		l.At = now
	}
	const step = 1000 * time.Second
	if dt := now.Sub(l.At); dt > step {
		keep := math.Exp2(-dt.Seconds() / lifeHalf)
		for i := range l.N {
			l.N[i] *= keep
		}
		l.At = now
	}
	l.N[lifeBin(d)]++
}

// Residual is the mean time that a task of this age goes on.
func (l *Lifetimes) Residual(age time.Duration) time.Duration {
	left, _ := l.Expect(age)
	return left
}

// Expect is Residual, and the age before which it stays as it is.
func (l *Lifetimes) Expect(age time.Duration) (left, until time.Duration) {
	if l.left <= 0 {
		var at, edge [lifeBins]float64
		for i := range at {
			at[i], edge[i] = math.Exp2((float64(i)+0.5)/lifeRate), lifeEdge(i)
		}
		for i := range l.means {
			l.means[i] = time.Duration(l.residual(i, &at, &edge) * float64(time.Second))
			l.until[i] = time.Duration(edge[i] * float64(time.Second))
		}
		l.until[lifeBins-1] = math.MaxInt64
		l.left = lifeKeep
	}
	l.left--
	i := lifeBin(max(0, age))
	return l.means[i], l.until[i]
}

// residual is the mean residual life at the middle of a bin, in seconds; at are
// the middles of the bins, edge their upper edges. The prior counts as one task.
func (l *Lifetimes) residual(b int, at, edge *[lifeBins]float64) float64 {
	age := at[b]
	weight, sum := 1.0, age+lifeHope.Seconds()
	for i := b; i < lifeBins; i++ {
		n := l.N[i]
		x := at[i] - age
		if i == b {
			lo, hi := 1.0, edge[i]
			if i > 0 {
				lo = edge[i-1]
			}
			n *= (hi - age) / (hi - lo)
			x = (hi - age) / 2
		}
		weight += n
		sum += n * max(0, x)
	}
	return sum / weight
}
