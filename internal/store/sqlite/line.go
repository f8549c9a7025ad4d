package sqlite

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// line is the queue as it stands, in memory: who waits in which order, who is
// held, and the counts. It does not lock; DB.mu guards it.
type line struct {
	shares  map[fleet.TenantID]fleet.Share
	pools   map[fleet.PoolKey]*pool
	delayed waitHeap               // not yet due
	removed map[int64]struct{}     // left the line, still in a heap
	holds   map[fleet.TaskID]*hold // leased, sandbox claimed or not
	fresh   map[fleet.TaskID]*hold // the part of holds without a sandbox
	running map[fleet.TenantID]int // holds by tenant
	ended   map[fleet.TaskID]*hold // released in the transaction that is open: it may be undone
	waiting int                    // delayed included
	horizon int64                  // delayed holds exactly the waiting tasks due after it
	dead    int
	lastSeq int64
}

// pool is the part of the line that wants one pool.
type pool struct {
	key                        fleet.PoolKey
	arrived                    int64
	backlog, delayed, inFlight int
	rows                       map[rowKey]*row
}

// rowKey names a row: tasks that differ in due time only.
type rowKey struct {
	tenant   fleet.TenantID
	priority int
}

// row is a heap of due tasks, earliest due first, then earliest submitted.
type row struct {
	pool *pool
	key  rowKey
	due  spotHeap
}

// spot is one waiting task.
type spot struct {
	due, seq int64
}

// wait is one delayed task with the row it will join.
type wait struct {
	spot
	row *row
}

// hold is one leased task.
type hold struct {
	seq     int64
	id      fleet.TaskID
	tenant  fleet.TenantID
	pool    *pool
	attempt int
	fence   int64
	state   fleet.TaskState
	until   time.Time // the lease's end; of no meaning once a sandbox is claimed
	rec     *record   // the task as it is; nil until it is needed after a rebuild
}

type spotHeap []spot

func (h spotHeap) Len() int           { return len(h) }
func (h spotHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h spotHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *spotHeap) Push(x any)        { *h = append(*h, x.(spot)) }
func (h *spotHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

type waitHeap []wait

func (h waitHeap) Len() int           { return len(h) }
func (h waitHeap) Less(i, j int) bool { return h[i].before(h[j].spot) }
func (h waitHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *waitHeap) Push(x any)        { *h = append(*h, x.(wait)) }
func (h *waitHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (s spot) before(o spot) bool {
	return cmp.Or(cmp.Compare(s.due, o.due), cmp.Compare(s.seq, o.seq)) < 0
}

func newLine(shares map[fleet.TenantID]fleet.Share) *line {
	return &line{
		shares: shares, pools: map[fleet.PoolKey]*pool{}, removed: map[int64]struct{}{},
		holds: map[fleet.TaskID]*hold{}, fresh: map[fleet.TaskID]*hold{}, running: map[fleet.TenantID]int{},
		ended: map[fleet.TaskID]*hold{},
	}
}

func (l *line) pool(key fleet.PoolKey) *pool {
	p := l.pools[key]
	if p == nil {
		p = &pool{key: key, rows: map[rowKey]*row{}}
		l.pools[key] = p
	}
	return p
}

// join puts a waiting task in line.
func (l *line) join(s spot, key fleet.PoolKey, in rowKey) {
	p := l.pool(key)
	r := l.row(p, in)
	l.waiting++
	if s.due > l.horizon {
		p.delayed++
		heap.Push(&l.delayed, wait{s, r})
		return
	}
	p.backlog++
	heap.Push(&r.due, s)
}

// leave takes a waiting task that was not leased out of line.
func (l *line) leave(s spot, key fleet.PoolKey, in rowKey) {
	p := l.pools[key]
	l.waiting--
	if r := p.rows[in]; r != nil && len(r.due) > 0 && r.due[0] == s {
		p.backlog--
		heap.Pop(&r.due)
		l.tidy(r)
		return
	}
	l.removed[s.seq] = struct{}{}
	if s.due > l.horizon {
		p.delayed--
	} else {
		p.backlog--
	}
	if len(l.removed) > 1024 && len(l.removed) > l.waiting/2 {
		l.compact()
	}
}

// advance moves what has become due by now to the rows.
func (l *line) advance(now time.Time) {
	if l.horizon-now.UnixNano() > int64(step) {
		l.rewind()
	}
	l.horizon = max(l.horizon, now.UnixNano())
	for len(l.delayed) > 0 && l.delayed[0].due <= l.horizon {
		w := heap.Pop(&l.delayed).(wait)
		if l.forget(w.seq) {
			continue
		}
		w.row.pool.delayed--
		w.row.pool.backlog++
		r := l.row(w.row.pool, w.row.key) // w.row may have been emptied and dropped
		heap.Push(&r.due, w.spot)
	}
}

// step is how far the clock may be set back before tasks that became due by
// the old time are delayed again.
const step = 2 * time.Second

// rewind puts every waiting task among the delayed, for advance to sort anew.
func (l *line) rewind() {
	for _, p := range l.pools {
		for _, r := range p.rows {
			for _, s := range r.due {
				if !l.forget(s.seq) {
					l.delayed = append(l.delayed, wait{s, r})
					p.backlog--
					p.delayed++
				}
			}
		}
		clear(p.rows)
	}
	heap.Init(&l.delayed)
	l.horizon = 0
}

func (l *line) row(p *pool, key rowKey) *row {
	r := p.rows[key]
	if r == nil {
		r = &row{pool: p, key: key}
		p.rows[key] = r
	}
	return r
}

// forget reports whether a task taken from a heap had left the line before.
func (l *line) forget(seq int64) bool {
	_, gone := l.removed[seq]
	delete(l.removed, seq)
	return gone
}

// tidy drops what has left from the top of a row, and the row when nothing is
// due in it.
func (l *line) tidy(r *row) {
	for len(r.due) > 0 {
		if _, gone := l.removed[r.due[0].seq]; !gone {
			return
		}
		l.forget(heap.Pop(&r.due).(spot).seq)
	}
	delete(r.pool.rows, r.key)
}

// compact rids the heaps of tasks that have left, so that cancelling a long
// queue does not keep its memory.
func (l *line) compact() {
	l.delayed = slices.DeleteFunc(l.delayed, func(w wait) bool { return l.forget(w.seq) })
	heap.Init(&l.delayed)
	for _, p := range l.pools {
		for _, r := range p.rows {
			r.due = slices.DeleteFunc(r.due, func(s spot) bool { return l.forget(s.seq) })
			heap.Init(&r.due)
			if len(r.due) == 0 {
				delete(p.rows, r.key)
			}
		}
	}
}

// next is the row whose first task is to be leased now: the highest priority,
// then the tenant with the least in flight for its weight, then the earliest
// due, then the earliest submitted. Nil when none fits.
func (l *line) next(slots map[fleet.PoolKey]int) *row {
	var best *row
	var load float64
	for key, n := range slots {
		p := l.pools[key]
		if n <= 0 || p == nil {
			continue
		}
		for _, r := range p.rows {
			l.tidy(r)
			share := l.shares[r.key.tenant]
			running := l.running[r.key.tenant]
			if left, bounded := share.Left(running); len(r.due) == 0 || bounded && left == 0 {
				continue
			}
			weight := share.Weight
			if weight <= 0 {
				weight = 1
			}
			mine := float64(running) / weight
			if best == nil || cmp.Or(
				cmp.Compare(best.key.priority, r.key.priority),
				cmp.Compare(mine, load),
				cmp.Compare(r.due[0].due, best.due[0].due),
				cmp.Compare(r.due[0].seq, best.due[0].seq)) < 0 {
				best, load = r, mine
			}
		}
	}
	return best
}

// take leases the first task of a row.
func (l *line) take(r *row) spot {
	s := heap.Pop(&r.due).(spot)
	l.waiting--
	r.pool.backlog--
	l.tidy(r)
	return s
}

// keep records a task as held.
func (l *line) keep(h *hold) {
	l.holds[h.id] = h
	if h.state == fleet.TaskQueued {
		l.fresh[h.id] = h
	}
	h.pool.inFlight++
	l.running[h.tenant]++
}

// claim says a held task has claimed a sandbox.
func (l *line) claim(h *hold) {
	h.state = fleet.TaskClaimed
	delete(l.fresh, h.id)
}

// release ends a hold.
func (l *line) release(h *hold) {
	delete(l.holds, h.id)
	delete(l.fresh, h.id)
	l.ended[h.id] = h
	h.pool.inFlight--
	if l.running[h.tenant]--; l.running[h.tenant] == 0 {
		delete(l.running, h.tenant)
	}
}

// expired lists the holds whose lease ended before a sandbox was claimed.
func (l *line) expired(now time.Time) []*hold {
	var out []*hold
	for _, h := range l.fresh {
		if !h.until.After(now) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *hold) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// change is when the line next changes by itself; zero when it does not.
func (l *line) change() time.Time {
	var next time.Time
	if len(l.delayed) > 0 {
		next = time.Unix(0, l.delayed[0].due)
	}
	for _, h := range l.fresh {
		if next.IsZero() || h.until.Before(next) {
			next = h.until
		}
	}
	return next
}

// spare is how many more tasks each capped tenant may have leased now.
func (l *line) spare() map[fleet.TenantID]int {
	var out map[fleet.TenantID]int
	for tenant, share := range l.shares {
		if left, bounded := share.Left(l.running[tenant]); bounded {
			if out == nil {
				out = make(map[fleet.TenantID]int, len(l.shares))
			}
			out[tenant] = left
		}
	}
	return out
}

// rank looks at the rows of a pool, those of higher priority first: what the
// tenants' caps hold back, and the highest priority of the rest.
func (p *pool) rank(spare map[fleet.TenantID]int, d *fleet.PoolDemand) {
	rows := slices.SortedFunc(maps.Values(p.rows), func(a, b *row) int {
		return cmp.Or(cmp.Compare(b.key.priority, a.key.priority), cmp.Compare(a.key.tenant, b.key.tenant))
	})
	first := true
	for _, r := range rows {
		n := len(r.due)
		if left, capped := spare[r.key.tenant]; capped {
			n = min(n, left)
			spare[r.key.tenant] -= n
		}
		d.Held += len(r.due) - n
		if n > 0 && first {
			d.Priority, first = r.key.priority, false
		}
	}
	// A row may still hold some that were cancelled.
	d.Held = min(d.Held, d.Backlog)
}

// stats reads the counts.
func (l *line) stats(now time.Time) fleet.QueueStats {
	st := fleet.QueueStats{AsOf: now, Dead: l.dead}
	spare := l.spare()
	for _, key := range slices.Sorted(maps.Keys(l.pools)) {
		p := l.pools[key]
		d := fleet.PoolDemand{Pool: key, Backlog: p.backlog, Delayed: p.delayed, InFlight: p.inFlight, Arrived: p.arrived}
		for _, r := range p.rows {
			l.tidy(r)
			if len(r.due) > 0 {
				d.Oldest = earliest(d.Oldest, fromNano(r.due[0].due))
			}
		}
		if len(p.rows) > 0 {
			p.rank(spare, &d)
		}
		if !d.Oldest.IsZero() {
			st.Oldest = earliest(st.Oldest, d.Oldest)
		}
		st.Backlog += d.Backlog
		st.Delayed += d.Delayed
		st.InFlight += d.InFlight
		st.Arrived += d.Arrived
		st.Pools = append(st.Pools, d)
	}
	return st
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
