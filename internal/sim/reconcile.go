package sim

// reconcile brings the pools to their targets and the nodes to the pools: the
// part that every rival policy leaves to Kubernetes. Sandboxes without a slot
// are pending; nodes are asked for as soon as some are (a node autoscaler
// without delay), and are returned when empty for the hold. Only ready
// sandboxes are taken away, never busy ones: kinder than scaling a Deployment.
func (w *World) reconcile() {
	pending := 0
	for i := range w.Pools {
		p := &w.Pools[i]
		switch diff := p.Target - p.Ready - p.Starting - p.Running; {
		case diff > 0:
			p.pending = w.place(int32(i), diff)
		case diff < 0:
			p.pending = 0
			for ; diff < 0 && p.last >= 0; diff++ {
				w.Destroy(p.last) // the youngest, as a ReplicaSet does
			}
		default:
			p.pending = 0
		}
		pending += p.pending
	}
	if pending > 0 {
		w.Launch((pending+w.m.Slots-1)/w.m.Slots - w.booting)
	}
}

// place starts up to n sandboxes, best fit, and returns how many found no
// slot.
func (w *World) place(pool int32, n int) int {
	for ; n > 0; n-- {
		on := w.fullest()
		if on < 0 || !w.Start(pool, on) {
			break
		}
	}
	return n
}
