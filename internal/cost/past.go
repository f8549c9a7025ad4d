package cost

import "muster.dev/muster/internal/fleet"

// Past says what the books of one step, merged into b, know of the fleet; false
// where that is nothing. Of the step only known is charged: the ledger may have
// begun later, and its last hour may not be over. An hour that no book names is
// one in which nobody looked, and counts to no mean.
func (b *Book) Past(step, known Span) (fleet.PastPoint, bool) {
	p := fleet.PastPoint{At: step.From.UTC(), MicroUSD: int64(b.Total())}
	var busy, nodes, warm, peak int64
	for at, h := range b.Hours {
		hours := known.in(at).hours()
		if hours <= 0 {
			continue
		}
		p.KnownHours += hours
		busy, nodes, peak = busy+h.Busy, nodes+h.Nodes, max(peak, h.Peak)
		p.RunningPeak = max(p.RunningPeak, inHours(h.Busy)/hours)
	}
	if p.KnownHours == 0 {
		return fleet.PastPoint{}, false
	}
	for k, s := range b.Lines {
		switch k.Cause {
		case CauseTask:
			p.Ended += s.Settled
		case CauseWarm:
			warm += s.Millis
		}
	}
	p.Running, p.Warm, p.Nodes, p.NodesPeak = inHours(busy)/p.KnownHours, inHours(warm)/p.KnownHours, inHours(nodes)/p.KnownHours, int(peak)
	return p, true
}
