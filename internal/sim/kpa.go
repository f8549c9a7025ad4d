package sim

import "math"

// kpa is the Knative Pod Autoscaler with its documented defaults: stable
// window 60 s, panic window 10 % of it, panic at 200 % of the ready capacity,
// target utilization 70 % of a concurrency of 1, tick 2 s, scale-down rate 2,
// scale to zero 30 s after the last request (knative.dev, "Autoscaling").
type kpa struct{ pools []kpaPool }

const (
	kpaTick        = 2 * second
	kpaStable      = 60 * second
	kpaPanic       = 6 * second
	kpaPanicAt     = 2.0
	kpaUtilization = 0.7
	kpaDownRate    = 2.0
	kpaGrace       = 30 * second
)

type kpaPool struct {
	areas      [kpaStable/kpaTick + 1]int64 // demand over time at the last ticks
	at         int
	panicUntil int64
	panicking  bool
	most       int // the largest want of this panic
	zeroSince  int64
}

func (k *kpa) Decide(now int64, w *World) int64 {
	if k.pools == nil {
		k.pools = make([]kpaPool, len(w.Pools))
	}
	for i := range w.Pools {
		w.Pools[i].Target = k.pools[i].tick(now, &w.Pools[i])
	}
	return after(now, kpaTick)
}

// tick is one round of the autoscaler for one pool.
func (k *kpaPool) tick(now int64, p *Pool) int {
	area := p.Area(now)
	back := func(window int64) float64 {
		n := min(window/kpaTick, int64(k.at))
		if n == 0 {
			return float64(p.Demand())
		}
		then := k.areas[(k.at-int(n))%len(k.areas)]
		return float64(area-then) / float64(n*kpaTick)
	}
	stable := int(math.Ceil(back(kpaStable)/kpaUtilization - 1e-9))
	urgent := int(math.Ceil(back(kpaPanic)/kpaUtilization - 1e-9))
	k.areas[k.at%len(k.areas)] = area
	k.at++
	ready := p.Ready + p.Running
	stable = max(stable, int(float64(ready)/kpaDownRate))
	if urgent > 0 && float64(urgent) >= kpaPanicAt*float64(max(1, ready)) {
		if !k.panicking {
			k.panicking, k.most = true, 0
		}
		k.panicUntil = now + kpaStable
	}
	if k.panicking && now >= k.panicUntil {
		k.panicking = false
	}
	want := stable
	if k.panicking { // never down while it lasts
		k.most = max(k.most, urgent, ready)
		want = max(want, k.most)
	}
	return k.atLeastOne(now, want, back(kpaStable) > 0)
}

// atLeastOne keeps the last sandbox for the grace period.
func (k *kpaPool) atLeastOne(now int64, want int, active bool) int {
	if want > 0 || active {
		k.zeroSince = now
		return max(1, want)
	}
	if now-k.zeroSince < kpaGrace {
		return 1
	}
	return 0
}
