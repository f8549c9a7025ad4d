package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// space is what is free on one node.
type space struct {
	node  int32 // index in the observation
	slots int32
	size  Size
	// prefer is the order of nodes; see Prefer.
	prefer float64
}

const unbounded = 1 << 30

// fit is how many sandboxes of a size fit, and what stops the next one.
func (s *space) fit(z Size) (n int, b Bound) {
	n, b = int(s.slots), BoundSlots
	limit := func(free, ask int64, name Bound) {
		if ask > 0 && int(max(0, free)/ask) < n {
			n, b = int(max(0, free)/ask), name
		}
	}
	limit(s.size.MilliCPU, z.MilliCPU, BoundCPU)
	limit(s.size.MemoryBytes, z.MemoryBytes, BoundMemory)
	limit(s.size.DiskBytes, z.DiskBytes, BoundDisk)
	return max(0, n), b
}

func (s *space) take(n int, z Size) {
	s.slots -= int32(n)
	s.size.MilliCPU -= int64(n) * z.MilliCPU
	s.size.MemoryBytes -= int64(n) * z.MemoryBytes
	s.size.DiskBytes -= int64(n) * z.DiskBytes
}

// Prefer orders nodes for new work, the highest first: the node that is
// expected to be busy longest anyway, and of those the fuller. So short tasks
// join long ones, and nodes empty together.
func Prefer(n *Node) float64 {
	if n.Running == 0 {
		return 0
	}
	last := 0.0 // of so many, how much later the last one ends than one alone
	for k := range min(n.Running, 64) {
		last += 1 / float64(k+1)
	}
	return (n.Residual + time.Second).Seconds() * last * (1 + float64(n.Running)/float64(max(1, n.Slots)))
}

// listSpaces lists the nodes in service in the order of Prefer, those equal
// fullest first, so that emptying nodes empty.
func (d *decision) listSpaces() []space {
	out := d.spaces[:0]
	for i := range d.o.Nodes {
		n := &d.o.Nodes[i]
		if n.State != fleet.NodeReady {
			continue
		}
		slots := unbounded
		if n.Slots > 0 {
			slots = max(0, n.Slots-n.Used)
		}
		if slots == 0 {
			continue
		}
		out = append(out, space{node: int32(i), slots: int32(slots), prefer: Prefer(n), size: Size{
			MilliCPU:    n.Capacity.MilliCPU - n.UsedSize.MilliCPU,
			MemoryBytes: n.Capacity.MemoryBytes - n.UsedSize.MemoryBytes,
			DiskBytes:   n.Capacity.DiskBytes - n.UsedSize.DiskBytes,
		}})
	}
	slices.SortFunc(out, func(a, b space) int {
		switch {
		case a.prefer != b.prefer:
			return cmp.Compare(b.prefer, a.prefer)
		case a.slots != b.slots:
			return cmp.Compare(a.slots, b.slots)
		}
		return cmp.Compare(a.node, b.node)
	})
	d.spaces = out
	return out
}

// placeAll finds nodes for what is to be started: sandboxes for waiting tasks
// of all pools first, warm stock only if those all found room.
func (d *decision) placeAll() {
	any := false
	for i := range d.works {
		any = any || d.works[i].missing > 0
	}
	if !any {
		return
	}
	spaces := d.listSpaces()
	free := unbounded
	if d.room.limit >= 0 {
		free = max(0, d.room.limit-d.room.used)
	}
	d.placeUrgent(&free, spaces)
	if d.scarce > 0 {
		return
	}
	for i := range d.works {
		w := &d.works[i]
		d.takeBack(w, w.missing-w.undrain-w.placed)
		d.place(w, min(w.starts, w.missing-w.undrain)-w.placed, &free, spaces)
	}
}

// placeUrgent starts what waiting tasks want: higher priority first, and within
// one priority in proportion, so that no pool takes all of what is free; what a
// share leaves goes to whoever can use it.
func (d *decision) placeUrgent(free *int, spaces []space) {
	slots := 0
	for i := range spaces {
		slots = min(*free, slots+int(spaces[i].slots))
	}
	d.asks = sized(d.asks, len(d.works))
	for i := range d.works {
		w := &d.works[i]
		d.asks[i] = min(w.starts, w.urgent())
	}
	d.divide(d.asks, slots)
	for _, i := range d.order {
		got, _ := d.spread(&d.works[i], min(d.asks[i], *free), spaces)
		*free -= got
	}
	for _, i := range d.order {
		w := &d.works[i]
		rest := min(w.starts-w.placed, w.urgent())
		if got := d.place(w, rest, free, spaces); got < rest && d.hopeless(w) == "" {
			d.scarce += rest - got
		}
	}
}

// place starts up to n of a pool on nodes with room and returns how many
// found one.
func (d *decision) place(w *work, n int, free *int, spaces []space) int {
	if n <= 0 {
		return 0
	}
	ask := min(n, *free)
	got, bound := d.spread(w, ask, spaces)
	*free -= got
	if got < n && w.cause == "" {
		if got == ask { // the count was the bound, not the nodes
			w.because(CauseCapacity, d.room.bound, d.room.limit)
		} else {
			w.because(CauseCapacity, bound, 0)
			w.detail = or(d.hopeless(w), d.onTheWay())
		}
		w.count = n - got
	}
	return got
}

// spread starts up to so many of a pool on nodes with room, in their order, and
// says what stopped the next one.
func (d *decision) spread(w *work, ask int, spaces []space) (got int, bound Bound) {
	bound = BoundNodes
	for i := range spaces {
		if got == ask {
			break
		}
		k, b := spaces[i].fit(w.o.Size)
		if k = min(k, ask-got); k == 0 {
			bound = b
			continue
		}
		spaces[i].take(k, w.o.Size)
		got += k
		on := &d.o.Nodes[spaces[i].node]
		d.act(Action{Kind: StartSandboxes, Pool: w.o.Key, Node: on.ID, N: k})
		d.kept.loose = d.kept.loose || !d.stays(on) // fill did not count its slots
		if _, b := spaces[i].fit(w.o.Size); got < ask {
			bound = b
		}
	}
	w.placed += got
	return got, bound
}

// onTheWay says how many nodes boot; empty when none does.
func (d *decision) onTheWay() string {
	n := 0
	for i := range d.o.Nodes {
		if d.o.Nodes[i].State == fleet.NodeBooting {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return plural(n, "node is booting", "nodes are booting")
}

// hopeless says so when a sandbox is larger than every node, and than a new
// one.
func (d *decision) hopeless(w *work) string {
	if d.fitsNew(w.o.Size) {
		return ""
	}
	var best Size
	if d.p.Nodes.Scalable {
		best = d.p.Nodes.Size
	}
	for i := range d.o.Nodes {
		c := d.o.Nodes[i].Capacity
		if c.MilliCPU >= w.o.Size.MilliCPU && c.MemoryBytes >= w.o.Size.MemoryBytes && c.DiskBytes >= w.o.Size.DiskBytes {
			return ""
		}
		best.MilliCPU = max(best.MilliCPU, c.MilliCPU)
		best.MemoryBytes = max(best.MemoryBytes, c.MemoryBytes)
		best.DiskBytes = max(best.DiskBytes, c.DiskBytes)
	}
	if len(d.o.Nodes) == 0 && !d.p.Nodes.Scalable {
		return "there is no node"
	}
	return fmt.Sprintf("one sandbox asks for %d mCPU, %d MiB memory, %d MiB disk; the largest node has %d, %d, %d",
		w.o.Size.MilliCPU, w.o.Size.MemoryBytes>>20, w.o.Size.DiskBytes>>20, best.MilliCPU, best.MemoryBytes>>20, best.DiskBytes>>20)
}
