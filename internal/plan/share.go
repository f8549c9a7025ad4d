package plan

import (
	"cmp"
	"slices"
	"sort"

	"muster.dev/muster/internal/fleet"
)

// room is what the bounds leave.
type room struct {
	limit  int   // sandboxes of all pools in any state; -1: no bound
	bound  Bound // that gave the limit
	used   int   // sandboxes of all pools in any state
	spent  int64
	budget int64
}

// measureRoom finds the smallest bound on the count of sandboxes.
func (d *decision) measureRoom() room {
	r := room{limit: -1}
	busy := 0
	for i := range d.works {
		o := d.works[i].o
		r.used += o.Ready + o.Starting + o.Running + o.Releasing + len(o.Draining)
		busy += o.Running + o.Releasing
	}
	lower := func(n int, b Bound) {
		if r.limit < 0 || n < r.limit {
			r.limit, r.bound = max(0, n), b
		}
	}
	if d.p.Max > 0 {
		lower(d.p.Max, BoundMax)
	}
	if !d.p.Nodes.Scalable {
		if slots, bounded := d.slots(); bounded {
			lower(slots, BoundSlots)
		}
	}
	b := d.p.Budget
	over := func(spent, budget int64) {
		if budget > 0 && spent >= budget {
			r.spent, r.budget = spent, budget
			lower(busy, BoundBudget)
		}
	}
	over(d.o.Spend.HourMicroUSD, b.PerHour)
	over(d.o.Spend.DayMicroUSD, b.PerDay)
	return r
}

// slots adds up the places on nodes in service; not bounded when a node has no
// bound of its own.
func (d *decision) slots() (n int, bounded bool) {
	for i := range d.o.Nodes {
		if s := d.o.Nodes[i].State; s != fleet.NodeReady && s != fleet.NodeBooting {
			continue
		}
		if d.o.Nodes[i].Slots <= 0 {
			return 0, false
		}
		n += d.o.Nodes[i].Slots
	}
	return n, len(d.o.Nodes) > 0
}

// grantAll divides what the bounds allow: waiting tasks first, then floors,
// then the rest of the warm stock; within each, higher priority first and
// otherwise in proportion.
func (d *decision) grantAll() {
	left := -1 // no bound
	if d.room.limit >= 0 {
		left = d.room.limit
		for i := range d.works {
			left -= d.works[i].o.Running + d.works[i].o.Releasing
		}
		left = max(0, left)
	}
	d.asks = sized(d.asks, len(d.works))
	asks := d.asks
	for part := range 3 {
		total := 0
		for i := range d.works {
			asks[i] = 0
			if w := &d.works[i]; !w.o.Unknown {
				asks[i] = [3]int{w.need, w.floor, w.warm - w.floor}[part]
			}
			total += asks[i]
		}
		if left >= 0 && total > left {
			d.divide(asks, left)
			total = left
		}
		for i := range d.works {
			d.works[i].grant += asks[i]
		}
		if left >= 0 {
			left -= total
		}
	}
}

// fillRate is how many tasks a second a warm sandbox on a node that is paid for
// but carries next to nothing must be expected to start at once to be worth its
// own start: one a day. On nodes at work it is worth more than that: what comes
// may choose the node that it fits best.
const fillRate = 1.0 / 86400

// fill keeps the free slots of nodes that are paid for anyway warm, of those
// without work as far as tasks are expected, with sandboxes of the pool that
// most tasks come for: a task then starts at once on the node it fits best.
func (d *decision) fill() {
	if !d.p.Nodes.Scalable || d.p.Nodes.NoFill || d.signal != "" {
		return
	}
	free := d.counted.fillable
	var best *work
	exist, idle := 0, 0
	for i := range d.works {
		w := &d.works[i]
		o := w.o
		free -= max(0, w.grant-w.idle())
		exist += o.Running + o.Releasing + len(o.Draining) + max(w.grant, w.idle())
		idle += d.weight(o.Size) * max(0, max(w.grant, w.idle())-w.need)
		if o.Unknown || w.variant() || w.s.Breaker.Failures > 0 || d.weight(o.Size) > 1 {
			continue
		}
		if best == nil || w.s.Arrivals.Slow > best.s.Arrivals.Slow {
			best = w
		}
	}
	if d.room.limit >= 0 {
		free = min(free, d.room.limit-exist)
	}
	if best == nil || best.warm == 0 && best.need == 0 && best.o.Running == 0 {
		return
	}
	d.filler = best
	free = d.useful(idle, max(0, free), d.counted.young)
	best.filled = max(best.grant, best.idle()) + free - best.grant
	best.grant += best.filled
}

// useful is how many of so many free slots, beyond those that are warm, are
// worth a sandbox: all on nodes at work, and of the young ones those that are
// expected to start tasks at once. What is warm stays so, whatever is expected:
// to remove it saves nothing.
func (d *decision) useful(warm, free, young int) int {
	n := free
	if o := d.o.Outlook; o != nil {
		n = max(0, free-young)
		n += sort.Search(free-n, func(k int) bool { return o.Rate(warm+n+k, 1) < fillRate })
	}
	d.kept.warm, d.kept.spare = warm+n, free-n
	return n
}

// stays tells a node that is not about to go: an empty one is, and one whose
// tasks are over before a sandbox that is started there has served for long, but
// while it is paid for still.
func (d *decision) stays(n *Node) bool {
	if n.Running > 1 && (n.Residual <= 0 || n.Residual >= 2*d.longest) {
		return true
	}
	if d.now.Sub(n.Requested) >= d.p.Nodes.MinBill {
		return false
	}
	d.expect(n.Requested.Add(d.p.Nodes.MinBill))
	return true
}

// divide cuts the asks down to n in all: by priority, and within one priority
// in proportion to the ask, with at least one each while there is any.
func (d *decision) divide(asks []int, n int) {
	order := d.order[:0]
	for i, a := range asks {
		if a > 0 {
			order = append(order, i)
		}
	}
	d.order = order
	priority := func(i int) int { return max(d.works[i].d.Priority, d.works[i].t.Priority) }
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(asks[b], asks[a]))
	})
	for len(order) > 0 {
		k := 1
		for k < len(order) && priority(order[k]) == priority(order[0]) {
			k++
		}
		n -= proportional(asks, order[:k], n)
		order = order[k:]
	}
}

// proportional gives the group its share of n and returns what it took.
func proportional(asks, group []int, n int) int {
	total := 0
	for _, i := range group {
		total += asks[i]
	}
	if total <= n {
		return total
	}
	given := 0
	for k, i := range group { // the largest ask first
		ask := asks[i]
		share := 0
		if n > 0 && total > 0 {
			share = ask * n / total
			others := len(group) - k - 1
			if share == 0 && n > 0 {
				share = 1
			}
			if others == 0 {
				share = n
			}
		}
		share = min(share, ask, n)
		asks[i] = share
		given, n, total = given+share, n-share, total-ask
	}
	return given
}

// supply compares what is granted with what there is, and sets how many to
// take back and to start.
func (d *decision) supply(w *work) {
	want := w.grant
	if cover := min(w.stale, w.grant); cover > 0 {
		// Make before break: some replacements beside the stale ones.
		want += min(cover, max(1, int(d.p.Surge*float64(w.grant))))
	}
	w.missing = max(0, want-w.idle())
	d.takeBack(w, min(w.missing, w.urgent()))
	if !w.o.Unknown {
		w.starts = w.missing - w.undrain
		d.guard(w)
	}
	d.nameCuts(w)
}

// urgent is how many sandboxes waiting tasks want that are not on their way.
func (w *work) urgent() int { return max(0, w.need-w.idle()-w.undrain-w.placed) }

// takeBack un-drains up to n fresh ones, before anything new is started.
func (d *decision) takeBack(w *work, n int) {
	for ; w.looked < len(w.o.Draining) && n > 0; w.looked++ {
		if b := &w.o.Draining[w.looked]; !d.isStale(w, b) && !d.leaving(b.Node) {
			d.act(Action{Kind: UndrainSandbox, Pool: w.o.Key, Sandbox: b.ID, Node: b.Node})
			w.undrain++
			n--
		}
	}
}

// guard holds starts back where the breaker says so.
func (d *decision) guard(w *work) {
	if w.o.Revision != "" && !w.o.Proven && w.o.Started == 0 && w.o.Ready+w.o.Running == 0 {
		// Whether it starts at all is not known yet: only what waits and what
		// has to be there tries.
		w.starts = min(w.starts, max(w.urgent(), w.floor-w.idle()))
	}
	b := &w.s.Breaker
	if b.Failures == 0 {
		return
	}
	permitted := b.permits(d.now, &d.p.Breaker)
	if permitted < 0 {
		return
	}
	allowed := max(0, permitted-w.o.Starting)
	if allowed >= w.starts {
		return
	}
	w.starts = allowed
	w.detail = w.o.Failure
	w.wait = max(0, b.RetryAt.Sub(d.now))
	d.wake(b.RetryAt)
	if allowed > 0 || b.open() && w.o.Starting > 0 {
		w.because(CauseProbe, BoundBreaker, 0)
	} else {
		w.because(CauseBreaker, BoundBreaker, 0)
	}
	if b.Failures >= d.p.Breaker.GiveUp && !w.o.Proven && w.d.Backlog > 0 && d.signal == "" && givesUp(w.o.FailureReason) {
		w.failing = true
		w.because(CauseGiveUp, BoundBreaker, 0)
		d.act(Action{Kind: FailWaiting, Pool: w.o.Key, N: w.d.Backlog})
	}
}

// givesUp tells failures that lie in what was asked for from those of the
// infrastructure.
func givesUp(r fleet.TaskReason) bool {
	switch r {
	case fleet.ReasonImage, fleet.ReasonPrepare, fleet.ReasonTimeoutStartup, fleet.ReasonCommand:
		return true
	}
	return false
}

// nameCuts names the bound when a pool was granted less than it wants.
func (d *decision) nameCuts(w *work) {
	switch cut := w.need + w.warm - w.grant; {
	case w.o.Unknown && w.need > 0:
		w.because(CauseNoTemplate, BoundTemplate, 0)
	case w.cause != "" || cut <= 0 || w.o.Unknown:
	case d.room.bound == BoundBudget:
		w.because(CauseBudget, BoundBudget, 0)
		w.count = cut
	default:
		w.because(CauseCapacity, d.room.bound, d.room.limit)
		w.count = cut
	}
}
