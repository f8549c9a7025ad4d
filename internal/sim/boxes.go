package sim

// Start starts a sandbox of a pool on a node; false where there is no slot.
func (w *World) Start(pool, on int32) bool {
	n := &w.nodes[on]
	if n.state != nodeReady || int(n.used) >= w.m.Slots {
		return false
	}
	i := w.newBox(pool, on)
	b := &w.boxes[i]
	b.state = boxStarting
	w.Pools[pool].Starting++
	w.nodes[on].starting++
	w.events.push(newEvent(w.now+w.m.ColdStart.draw(w.chance), boxStarted, b.gen, i))
	return true
}

// newBox takes a slot.
func (w *World) newBox(pool, on int32) int32 {
	var i int32
	if k := len(w.spareBoxes); k > 0 {
		i = w.spareBoxes[k-1]
		w.spareBoxes = w.spareBoxes[:k-1]
	} else {
		i = int32(len(w.boxes))
		w.boxes = append(w.boxes, box{})
	}
	w.boxes[i] = box{gen: w.boxes[i].gen + 1, node: on, pool: pool, next: -1, prev: -1, created: w.now}
	w.shelve(on, false)
	n := &w.nodes[on]
	w.boxes[i].place = n.used
	w.carried[int(on)*w.m.Slots+int(n.used)] = i
	n.used++
	n.empty = Never
	w.shelve(on, true)
	w.touch(on)
	return i
}

// freeBox gives the slot back.
func (w *World) freeBox(i int32) {
	b := &w.boxes[i]
	on := b.node
	b.state = boxGone
	b.gen++
	w.spareBoxes = append(w.spareBoxes, i)
	w.shelve(on, false)
	n := &w.nodes[on]
	n.used--
	last := w.carried[int(on)*w.m.Slots+int(n.used)]
	w.carried[int(on)*w.m.Slots+int(b.place)] = last
	w.boxes[last].place = b.place
	w.shelve(on, true)
	w.touch(on)
	if n.used == 0 && (n.state == nodeReady || n.state == nodeCordoned) {
		w.emptied(on)
	}
}

// started makes a sandbox ready, or failed; a task that waits gets it at once.
func (w *World) started(i int32) {
	b := &w.boxes[i]
	p := &w.Pools[b.pool]
	p.Starting--
	w.nodes[b.node].starting--
	w.touch(b.node)
	if w.m.StartFailures > 0 && w.chance.Float64() < w.m.StartFailures {
		p.Failed++
		w.freeBox(i)
		return
	}
	p.Started++
	w.lastLead = w.now - b.created
	if p.queue.n > 0 {
		w.run(i, p.queue.pop(), p)
		w.waiting--
		return
	}
	w.shelveReady(i)
}

// shelveReady appends a sandbox to the ready ones of its pool.
func (w *World) shelveReady(i int32) {
	b := &w.boxes[i]
	p := &w.Pools[b.pool]
	b.state, b.since = boxReady, w.now
	b.prev, b.next = p.last, -1
	if p.last >= 0 {
		w.boxes[p.last].next = i
	} else {
		p.first = i
	}
	p.last = i
	p.Ready++
	w.moved(p, i, false)
}

func (w *World) unshelveReady(i int32) {
	b := &w.boxes[i]
	p := &w.Pools[b.pool]
	if b.prev >= 0 {
		w.boxes[b.prev].next = b.next
	} else {
		p.first = b.next
	}
	if b.next >= 0 {
		w.boxes[b.next].prev = b.prev
	} else {
		p.last = b.prev
	}
	p.Ready--
	w.moved(p, i, true)
}

// moved notes what the planner has to name, or no longer; beyond a few it looks
// at them all.
func (w *World) moved(p *Pool, i int32, gone bool) {
	if b := &w.boxes[i]; w.watch && len(p.moves) <= mostMoves {
		p.moves = append(p.moves, move{named{i, b.gen, b.created, b.since}, gone})
	}
}

// pick is the ready sandbox that is claimed next, as in dispatch: on the node
// that the planner prefers, and there the one that has been ready longest.
func (w *World) pick(p *Pool) int32 {
	best := p.first
	if best < 0 || !w.watch {
		return best
	}
	for i := w.boxes[best].next; i >= 0; i = w.boxes[i].next {
		if w.nodes[w.boxes[i].node].prefer > w.nodes[w.boxes[best].node].prefer {
			best = i
		}
	}
	return best
}

// arrive takes a task in. As in dispatch, it gets the sandbox that has been
// ready longest, or waits in line.
func (w *World) arrive(pool int32, t task) {
	p := &w.Pools[pool]
	p.settleArea(w.now)
	p.Arrived++
	if i := w.pick(p); i >= 0 {
		w.unshelveReady(i)
		w.run(i, t, p)
		return
	}
	p.queue.push(t)
	w.waiting++
}

// dispatch gives ready sandboxes to tasks that wait.
func (w *World) dispatch(p *Pool) {
	for p.first >= 0 && p.queue.n > 0 {
		i := w.pick(p)
		w.unshelveReady(i)
		w.waiting--
		w.run(i, p.queue.pop(), p)
	}
}

// run gives a sandbox its task.
func (w *World) run(i int32, t task, p *Pool) {
	b := &w.boxes[i]
	b.state, b.task, b.since = boxRunning, t, w.now
	p.Running++
	w.running++
	w.nodes[b.node].running++
	w.nodes[b.node].begins(i)
	w.touch(b.node)
	if !t.again {
		w.begun++
		if w.now-t.arrived > w.objective {
			w.late++
		}
	}
	if !t.again && t.arrived >= w.open && t.arrived < w.close {
		w.waits.add(w.now - t.arrived)
		if w.series != nil {
			w.series.waited(t.arrived, w.now-t.arrived)
		}
	}
	w.events.push(newEvent(w.now+t.work, taskDone, b.gen, i))
}

// done ends a task and its sandbox.
func (w *World) done(i int32) {
	b := &w.boxes[i]
	p := &w.Pools[b.pool]
	p.settleArea(w.now)
	p.Running--
	p.Finished++
	if w.watch {
		w.ended = append(w.ended, b.task.work)
	}
	w.running--
	w.nodes[b.node].running--
	w.nodes[b.node].ends(i)
	w.freeBox(i)
}

// loseBox ends a sandbox whose node died.
func (w *World) loseBox(i int32) {
	b := &w.boxes[i]
	p := &w.Pools[b.pool]
	switch b.state {
	case boxStarting:
		p.Starting--
		w.nodes[b.node].starting--
	case boxReady:
		w.unshelveReady(i)
	case boxDraining:
		p.Draining--
	case boxRunning:
		p.Running--
		w.running--
		w.nodes[b.node].running--
		w.nodes[b.node].ends(i)
		t := b.task
		t.again = true
		p.queue.pushFront(t)
		w.waiting++
		if t.arrived >= w.open && t.arrived < w.close {
			w.lost++
		}
	}
	w.freeBox(i)
}

// Drain takes a ready sandbox out of dispatch; Undrain puts it back.
func (w *World) Drain(i int32) {
	if b := &w.boxes[i]; b.state == boxReady {
		w.unshelveReady(i)
		b.state, b.since = boxDraining, w.now
		w.Pools[b.pool].Draining++
	}
}

// Undrain puts a drained sandbox back; a task that waits gets it.
func (w *World) Undrain(i int32) {
	b := &w.boxes[i]
	if b.state != boxDraining {
		return
	}
	p := &w.Pools[b.pool]
	p.Draining--
	if p.queue.n > 0 {
		w.run(i, p.queue.pop(), p)
		w.waiting--
		return
	}
	w.shelveReady(i)
}

// Destroy removes a sandbox that is ready or drained.
func (w *World) Destroy(i int32) {
	switch b := &w.boxes[i]; b.state {
	case boxReady:
		w.unshelveReady(i)
	case boxDraining:
		w.Pools[b.pool].Draining--
	default:
		return
	}
	w.freeBox(i)
}

// furnish puts n nodes into service at once, with ready sandboxes of the first
// pool in every slot: what a fleet of fixed size looks like.
func (w *World) furnish(n int) {
	for range n {
		i := w.newNode()
		w.nodes[i].state, w.nodes[i].requested = nodeReady, w.now
		w.shelve(i, true)
		w.touch(i)
		w.doom(i)
		w.countLaunch()
		for range w.m.Slots {
			if len(w.Pools) > 1 {
				break // who needs them will start them
			}
			w.shelveReady(w.newBox(0, i))
		}
	}
}

// ring is a queue of tasks in one slice that grows as needed.
type ring struct {
	buf     []task
	head, n int
}

func (r *ring) grow() {
	if r.n < len(r.buf) {
		return
	}
	next := make([]task, max(16, 2*len(r.buf)))
	k := copy(next, r.buf[r.head:])
	copy(next[k:], r.buf[:r.head])
	r.buf, r.head = next, 0
}

func (r *ring) push(t task) {
	r.grow()
	i := r.head + r.n
	if i >= len(r.buf) {
		i -= len(r.buf)
	}
	r.buf[i] = t
	r.n++
}

func (r *ring) pushFront(t task) {
	r.grow()
	r.head--
	if r.head < 0 {
		r.head += len(r.buf)
	}
	r.buf[r.head] = t
	r.n++
}

func (r *ring) pop() task {
	t := r.buf[r.head]
	r.head++
	if r.head == len(r.buf) {
		r.head = 0
	}
	r.n--
	return t
}

// front is when the first in line arrived; only with n > 0.
func (r *ring) front() int64 { return r.buf[r.head].arrived }
