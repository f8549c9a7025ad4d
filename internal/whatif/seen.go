package whatif

import (
	"cmp"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Shape is what a node holds.
type Shape struct {
	MilliCPU    int64 // that sandboxes may have; 0: not known
	MemoryBytes int64 // likewise
	Slots       int   // most sandboxes, whatever their size; 0: no such bound
}

// Seen is what a fleet shows of its world.
type Seen struct {
	Shape       Shape // of the kind of node it has most of; zero where it has none now
	Kind        fleet.NodeKind
	Nodes       int // of that kind
	Total       int // of all kinds
	Kinds       map[fleet.NodeKind]Shape
	Boot        time.Duration // median of the nodes there are
	BootSamples int           // 0: none was measured
	Cold        time.Duration // median start of a sandbox
	ColdSamples int           // 0: none was measured
}

// Look reads a view.
func Look(v *fleet.View) Seen {
	s := Seen{Kinds: map[fleet.NodeKind]Shape{}}
	counts := map[fleet.NodeKind]int{}
	var boots []time.Duration
	for i := range v.Nodes {
		n := &v.Nodes[i].Node
		if n.State != fleet.NodeReady && n.State != fleet.NodeCordoned {
			continue
		}
		counts[n.Kind]++
		s.Total++
		s.Kinds[n.Kind] = Shape{MilliCPU: n.MilliCPU, MemoryBytes: n.MemoryBytes, Slots: n.Slots}
		if d := n.ReadyAt.Sub(n.RequestedAt); d > 0 && !n.RequestedAt.IsZero() {
			boots = append(boots, d)
		}
		if counts[n.Kind] > s.Nodes || counts[n.Kind] == s.Nodes && before(n.Kind, s.Kind) {
			s.Kind, s.Nodes = n.Kind, counts[n.Kind]
		}
	}
	s.Shape = s.Kinds[s.Kind]
	if len(boots) > 0 {
		slices.Sort(boots)
		s.Boot, s.BootSamples = boots[len(boots)/2], len(boots)
	}
	for i := range v.Pools { // of the pool whose starts were measured most often
		if l := v.Pools[i].StartLead; l.Samples > s.ColdSamples {
			s.Cold, s.ColdSamples = l.P50, l.Samples
		}
	}
	return s
}

func before(a, b fleet.NodeKind) bool {
	return cmp.Or(cmp.Compare(a.InstanceType, b.InstanceType), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Capacity, b.Capacity)) < 0
}

// slots is how many sandboxes of a size a node holds; at least one, since what
// fits no node would not have run.
func (s Shape) slots(milliCPU, memory float64) int {
	n := s.Slots
	fit := func(have int64, each float64) {
		if have > 0 && each > 0 {
			if k := int(float64(have)/each + 1e-9); n == 0 || k < n {
				n = max(1, k)
			}
		}
	}
	fit(s.MilliCPU, milliCPU)
	fit(s.MemoryBytes, memory)
	return min(n, mostSlots)
}

// Holds is how many sandboxes of a size a node holds, and most at most.
func (s Shape) Holds(milliCPU, memory float64, most int) int {
	s.Slots = most
	return s.slots(milliCPU, memory)
}

// mostSlots is what the simulator takes for a node.
const mostSlots = 10_000
