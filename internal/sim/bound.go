package sim

// bound is the clairvoyant zero-wait lower bound as a stream: feed it every
// change of the nodes needed, in order. The package comment has the proof.
// Times are in milliseconds; memory is one number for each node ever needed.
type bound struct {
	boot, bill  int64 // switching cost, least bill of a node
	open, close int64 // the window

	level int     // nodes needed now
	at    int64   // since when
	off   []int64 // when each level was last left; -1: never
	total int64   // node-milliseconds

	launches, peak int

	// The cluster is what lies between two pauses of the whole fleet that are
	// too long to keep any node through.
	cluster      int64 // its part of the total
	clusterFrom  int64
	clusterPeak  int
	clusterKnown bool
}

// pause is a gap no optimal schedule keeps a node through: boot again, and
// still come out at the least bill on both sides.
func (b *bound) pause() int64 { return b.boot + 2*b.slack() }

// slack is how much longer than needed a node may have to be paid for.
func (b *bound) slack() int64 { return max(0, b.bill-b.boot) }

// advance accounts for the level held until now.
func (b *bound) advance(now int64) {
	if d := min(now, b.close) - max(b.at, b.open); d > 0 {
		b.spend(d * int64(b.level))
		b.peak = max(b.peak, b.level)
	}
	b.at = now
}

func (b *bound) spend(ms int64) { b.total += ms; b.cluster += ms }

// need sets how many nodes are needed from now on.
func (b *bound) need(now int64, n int) {
	b.advance(now)
	for b.level > n {
		b.level--
		b.off[b.level] = now
	}
	for b.level < n {
		if b.level == len(b.off) {
			b.off = append(b.off, -1)
		}
		off := b.off[b.level]
		if b.level == 0 && (off < 0 || now-off >= b.pause()) {
			b.endCluster(off)
			b.clusterKnown, b.clusterFrom = true, now
		}
		b.rise(now, off)
		b.level++
		b.clusterPeak = max(b.clusterPeak, b.level)
	}
}

// rise charges what a level that comes on again costs at least: it was held
// through the gap, or booted; only what lies in the window counts.
func (b *bound) rise(now, off int64) {
	if now < b.open || now >= b.close {
		return
	}
	gap := now - b.open
	if off >= 0 {
		gap = now - max(off, b.open)
	}
	if off < 0 || now-off > b.boot {
		b.launches++
	}
	b.spend(min(gap, b.boot))
}

// endCluster raises the part of a cluster to the least bill of as many nodes
// as it needs at once. Clusters that the window cuts are left as they are.
func (b *bound) endCluster(off int64) {
	whole := b.clusterKnown && b.clusterFrom-max(b.bill, b.boot) >= b.open && off+b.slack() <= b.close
	if least := b.bill * int64(b.clusterPeak); whole && least > b.cluster {
		b.total += least - b.cluster
	}
	b.cluster, b.clusterPeak = 0, 0
}

// finish returns the bound in node-milliseconds.
func (b *bound) finish() int64 {
	b.advance(b.close)
	if b.level == 0 && len(b.off) > 0 {
		b.endCluster(b.off[0])
	}
	return b.total
}
