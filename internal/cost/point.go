package cost

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// Point says what the book of one step has, as one point over time; the step
// begins at at.
func (b *Book) Point(at time.Time) fleet.CostPoint {
	p := fleet.CostPoint{At: at.UTC(), MicroUSD: int64(b.Total()), Idle: make(map[string]int64, len(idleCauses))}
	var nodes, busy, peak int64
	for k, s := range b.Lines {
		if k.Cause == CauseTask {
			p.TaskMicroUSD += int64(s.Amount)
			busy += s.Millis
			continue
		}
		p.Idle[string(k.Cause)] += int64(s.Amount)
	}
	for _, h := range b.Hours {
		nodes, peak = nodes+h.Nodes, max(peak, h.Peak)
	}
	p.NodeHours, p.BusyHours, p.PeakNodes = inHours(nodes), inHours(busy), int(peak)
	return p
}
