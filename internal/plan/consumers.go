package plan

import (
	"fmt"
	"math"
	"time"
)

// ConsumerPolicy bounds the consumer processes of a fleet.
type ConsumerPolicy struct {
	Min, Max  int // both at least 1
	Sandboxes int // most sandboxes that one carries; at least 1
}

// ConsumerLoad is what the consumers have to do.
type ConsumerLoad struct {
	Sandboxes int     // that the plan wants
	Rate      float64 // tasks leased a second, all together, at the 95th percentile of the last minutes
	// Each is how many tasks a second one consumer was seen to lease while its
	// claims kept the objective; 0: not seen yet.
	Each float64
}

// ConsumerTarget is how many consumers there shall be, and why.
type ConsumerTarget struct {
	N      int
	Reason string
	// since is since when fewer would do; zero: they would not.
	since time.Time
	known bool
}

const (
	// eachPrior is what one consumer is trusted with before it was measured: a
	// claim is one transaction of a store of which a slow one does 200 a second.
	eachPrior = 100.0
	fillTo    = 0.6             // of what it can do, so that a burst finds room
	fillFrom  = 0.4             // below which one can go
	calm      = 5 * time.Minute // that it must have lasted
)

// Consumers decides how many consumers there shall be after those of before:
// more at once, one fewer at a time and only after five calm minutes, since
// every one that goes hands its runners over.
func Consumers(now time.Time, l *ConsumerLoad, p *ConsumerPolicy, before ConsumerTarget) ConsumerTarget {
	each := l.Each
	if each <= 0 {
		each = eachPrior
	}
	need := func(fill float64) int {
		return max(1, int(math.Ceil(l.Rate/(each*fill))), int(math.Ceil(float64(l.Sandboxes)/float64(max(1, p.Sandboxes)))))
	}
	bound := func(n int) int { return max(p.Min, min(n, p.Max)) }
	want := need(fillTo)
	t := ConsumerTarget{N: bound(want), known: true}
	if before.known && t.N < before.N {
		fewer := bound(need(fillFrom))
		switch {
		case before.N > p.Max:
			// The bound itself has come down.
		case fewer >= before.N:
			t.N = before.N
		case before.since.IsZero() || now.Before(before.since):
			t.N, t.since = before.N, now
		case now.Sub(before.since) < calm:
			t.N, t.since = before.N, before.since
		default:
			t.N, t.since = before.N-1, now
		}
	}
	t.Reason = fmt.Sprintf("%.1f tasks leased a second, %.0f a second for each at most; %d sandboxes, %d for each at most: %d",
		l.Rate, each*fillTo, l.Sandboxes, p.Sandboxes, want)
	switch {
	case want > p.Max:
		t.Reason += fmt.Sprintf(", bounded by maxReplicas %d", p.Max)
	case want < p.Min:
		t.Reason += fmt.Sprintf(", raised to minReplicas %d", p.Min)
	case t.N > want:
		t.Reason += fmt.Sprintf(", %d kept for now", t.N)
	}
	return t
}
