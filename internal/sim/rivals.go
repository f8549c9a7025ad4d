package sim

import "math"

// The rivals. Their constants are those their systems document; where a
// system leaves a choice to its user, the choice is the kinder one and is
// named here.

const second = 1000 // milliseconds

// fixed is a fleet of n nodes that never changes, warm in every free slot.
type fixed struct{ n int }

func (f fixed) Begin(w *World) { w.furnish(f.n) }

// Decide keeps every slot filled; the target is set again each time, since a
// failed node is replaced.
func (f fixed) Decide(_ int64, w *World) int64 {
	if lack := f.n - w.alive; lack > 0 {
		w.Launch(lack)
	}
	share(w, f.n*w.m.Slots)
	return Never
}

// share divides n sandboxes among the pools: to each its demand, and what is
// left evenly; of a single pool it is all.
func share(w *World, n int) {
	for i := range w.Pools {
		p := &w.Pools[i]
		p.Target = min(p.Demand(), n)
		n -= p.Target
	}
	for i := range w.Pools {
		k := n / (len(w.Pools) - i)
		w.Pools[i].Target += k
		n -= k
	}
}

// reactive starts a sandbox for every task that finds none, at once, and keeps
// no spare.
type reactive struct{}

func (reactive) Decide(_ int64, w *World) int64 {
	for i := range w.Pools {
		w.Pools[i].Target = w.Pools[i].Demand()
	}
	return Never
}

// scaler is the part of a HorizontalPodAutoscaler that KEDA and plain HPA
// share (kubernetes.io, "Horizontal Pod Autoscaling", algorithm details and
// default behavior): down only to the largest recommendation of the last 300 s;
// up by the larger of 4 pods and 100 % in 15 s.
type scaler struct {
	replicas int
	recent   [stabilization / hpaSync]int // the last recommendations
	at       int
	tolerance,
	perReplica float64 // wanted average of the metric
}

const (
	hpaSync       = 15 * second
	stabilization = 300 * second
)

// sync is one round of the controller with a reading of the metric, summed
// over all replicas.
func (s *scaler) sync(metric int) {
	want := int(math.Ceil(float64(metric)/s.perReplica - 1e-9))
	if s.replicas > 0 {
		ratio := float64(metric) / (float64(s.replicas) * s.perReplica)
		if math.Abs(ratio-1) <= s.tolerance {
			want = s.replicas
		}
	}
	s.recent[s.at%len(s.recent)] = want
	s.at++
	held := 0
	for _, r := range s.recent {
		held = max(held, r)
	}
	switch {
	case want > s.replicas:
		s.replicas = min(want, max(2*s.replicas, s.replicas+4))
	case held < s.replicas:
		s.replicas = held
	}
}

// hpa is a HorizontalPodAutoscaler (sync 15 s, tolerance 0.1, stabilization
// 300 s, at least one replica) on the number of tasks, waiting ones included.
// Its target of 1/1.1 tasks a replica is the largest with which the tolerance
// cannot leave a task waiting for ever.
type hpa struct{ pools []scaler }

func (h *hpa) Decide(now int64, w *World) int64 {
	if h.pools == nil {
		h.pools = make([]scaler, len(w.Pools))
		for i := range h.pools {
			h.pools[i] = scaler{replicas: 1, tolerance: 0.1, perReplica: 1 / 1.1}
		}
	}
	for i := range w.Pools {
		h.pools[i].sync(w.Pools[i].Demand())
		h.pools[i].replicas = max(1, h.pools[i].replicas)
		w.Pools[i].Target = h.pools[i].replicas
	}
	return after(now, hpaSync)
}

// keda is a KEDA ScaledObject: the queue is read every 30 s (pollingInterval)
// and the reading used until the next one (useCachedMetrics); KEDA itself
// turns 0 to 1 and, 300 s after the last activity, 1 to 0 (cooldownPeriod);
// in between an HPA acts on the reading every 15 s, one task a replica. The
// two clocks are independent; they are taken to be half a sync apart. The
// HPA's tolerance is taken as 0: with 0.1 some tasks would wait for another to
// end. The queue counts tasks in flight, which not every KEDA scaler does.
type keda struct {
	pools   []scaler
	reading []int
	active  []int64
}

const (
	kedaPoll     = 30 * second
	kedaCooldown = 300 * second
)

func (k *keda) Decide(now int64, w *World) int64 {
	if k.pools == nil {
		k.pools = make([]scaler, len(w.Pools))
		k.reading, k.active = make([]int, len(w.Pools)), make([]int64, len(w.Pools))
		for i := range k.pools {
			k.pools[i].perReplica = 1
		}
	}
	for i := range w.Pools {
		if now%kedaPoll == 0 {
			k.poll(now, i, w.Pools[i].Demand())
		}
		s := &k.pools[i]
		if now%hpaSync == hpaSync/2 && s.replicas > 0 {
			s.sync(k.reading[i])
			s.replicas = max(1, s.replicas) // an HPA does not go below
		}
		w.Pools[i].Target = s.replicas
	}
	return after(now, hpaSync/2)
}

// poll reads the queue, and turns the workload on or off.
func (k *keda) poll(now int64, i, demand int) {
	k.reading[i] = demand
	switch {
	case demand > 0:
		k.active[i] = now
		k.pools[i].replicas = max(1, k.pools[i].replicas)
	case now-k.active[i] >= kedaCooldown:
		k.pools[i] = scaler{perReplica: 1}
	}
}

// after is the next multiple of a period.
func after(now, period int64) int64 { return now - now%period + period }
