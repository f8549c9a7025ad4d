package queuetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

func testEmpty(f *fixture) {
	st := f.counts(0, 0, 0, 0)
	if !st.Oldest.IsZero() || st.Arrived != 0 || len(st.Pools) != 0 || st.AsOf.IsZero() {
		f.Errorf("stats of an empty queue: %+v", st)
	}
	if d := f.lease(3); d == nil || len(d) != 0 {
		f.Errorf("leased %v from an empty queue, want an empty slice", d)
	}
}

func testLifecycle(f *fixture) {
	f.names("one")
	due := time.Now()
	time.Sleep(3 * time.Second)
	st := f.counts(1, 0, 0, 0)
	if !st.Oldest.Equal(due) {
		f.Errorf("oldest %s, want %s", st.Oldest, due)
	}
	if len(st.Pools) != 1 || st.Pools[0] != (fleet.PoolDemand{Pool: "p", Backlog: 1, Oldest: st.Oldest, Arrived: 1}) {
		f.Errorf("pools: %+v", st.Pools)
	}
	d := f.one()
	if d.Lease.Attempt != 1 || d.Lease.Fence < 1 || d.Lease.Task != d.Task.ID || !d.Lease.Until.Equal(time.Now().Add(visibility)) {
		f.Errorf("lease %+v", d.Lease)
	}
	if d.Task.Attempt != d.Lease.Attempt || d.Task.Fence != d.Lease.Fence || d.Task.Phases.Queue != 3*time.Second {
		f.Errorf("delivered task %+v", d.Task)
	}
	st = f.counts(0, 0, 1, 0)
	if !st.Oldest.IsZero() {
		f.Errorf("oldest %s with no backlog", st.Oldest)
	}
	f.want(f.lease(5))
	f.done(d)
	if st = f.counts(0, 0, 0, 0); st.Arrived != 1 {
		f.Errorf("arrived %d", st.Arrived)
	}
	time.Sleep(2 * visibility)
	f.want(f.lease(5))
	if err := f.q.Nack(f.ctx, d.Lease, 0, "late"); !errors.Is(err, fleet.ErrFenced) {
		f.Errorf("nack of an acknowledged task: %v", err)
	}
}

func testOrder(f *fixture) {
	f.submit(task("low", "a", -5), task("first", "a", 0))
	time.Sleep(time.Second)
	f.submit(task("second", "a", 0), task("third", "a", 0), task("urgent", "a", 10))
	f.want(f.lease(2), "urgent", "first")
	f.want(f.lease(9), "second", "third", "low")
}

func testSlots(f *fixture) {
	other := task("other", "a", 5)
	other.Spec.Pool = "q"
	f.submit(other, task("p1", "a", 0), task("p2", "a", 0), task("p3", "a", 0))
	f.want(f.lease(2), "p1", "p2")
	d, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 0, "q": 2, "none": 4}, Visibility: visibility})
	if err != nil {
		f.Fatal(err)
	}
	f.want(d, "other")
	st := f.counts(1, 0, 3, 0)
	if len(st.Pools) != 2 || st.Pools[0].Pool != "p" || st.Pools[0].InFlight != 2 || st.Pools[1].InFlight != 1 {
		f.Errorf("pools: %+v", st.Pools)
	}
	d, err = f.q.Lease(f.ctx, fleet.LeaseRequest{Visibility: visibility})
	if err != nil || len(d) != 0 {
		f.Errorf("lease without slots: %v, %v", d, err)
	}
}

func testWeights(f *fixture) {
	for range 20 {
		f.submit(task("a", "a", 0))
	}
	for range 20 {
		f.submit(task("b", "b", 0))
	}
	running := map[fleet.TenantID]int{}
	for _, d := range f.lease(16) {
		running[d.Task.Spec.Tenant]++
	}
	if running["a"] != 12 || running["b"] != 4 {
		f.Errorf("16 slots at weights 3 and 1: %v, want 12 and 4", running)
	}
	// Priority goes before fairness.
	f.submit(task("urgent", "a", 1))
	f.want(f.lease(1), "urgent")
}

func testNewcomer(f *fixture) {
	f.names("a1", "a2", "a3", "a4")
	held := f.lease(2)
	f.want(held, "a1", "a2")
	time.Sleep(time.Minute / 4)
	f.submit(task("b1", "b", 0), task("b2", "b", 0))
	f.want(f.lease(4), "b1", "b2", "a3", "a4")
	f.done(held[0])
	f.done(held[1])
}

func testCaps(f *fixture) {
	f.names("a1", "a2", "a3", "a4")
	f.submit(task("b1", "b", -1))
	f.held(2, 0)
	held := f.lease(9)
	f.want(held, "a1", "a2", "b1")
	f.counts(2, 0, 3, 0)
	f.held(2, 0)
	f.drain()
	f.done(held[0])
	if !f.awake(time.Second) {
		f.Error("no wake-up when a tenant fell below its cap")
	}
	f.want(f.lease(9), "a3")
	if err := f.q.Nack(f.ctx, held[1].Lease, 0, ""); err != nil {
		f.Fatal(err)
	}
	f.want(f.lease(1), "a4")
}

// Of a tenant whose money is used up nothing is leased, and it is no demand;
// the others go on.
func testHeld(f *fixture) {
	f.names("a1", "a2", "a3")
	f.held(3, 0)
	f.want(f.lease(9))
	f.submit(task("b1", "b", -1))
	f.held(3, -1)
	f.want(f.lease(9), "b1")
	f.counts(3, 0, 1, 0)
}

func testExpiry(f *fixture) {
	f.names("one")
	first := f.one()
	f.drain()
	time.Sleep(visibility - time.Second)
	f.want(f.lease(1))
	if !f.awake(2 * time.Second) {
		f.Error("no wake-up when a lease ended")
	}
	f.counts(1, 0, 0, 0)
	f.fenced("extend", extend(f, first.Lease))
	second := f.one()
	if second.Lease.Task != first.Lease.Task || second.Lease.Fence <= first.Lease.Fence || second.Lease.Attempt != 2 {
		f.Errorf("delivered again as %+v after %+v", second.Lease, first.Lease)
	}
	f.fenced("ack", f.q.Ack(f.ctx, first.Lease))
	f.counts(0, 0, 1, 0)
	f.done(second)
}

func extend(f *fixture, l fleet.Lease) error {
	_, err := f.q.Extend(f.ctx, l, visibility)
	return err
}

func testExtend(f *fixture) {
	f.names("one")
	d := f.one()
	for range 5 {
		time.Sleep(visibility - time.Second)
		l, err := f.q.Extend(f.ctx, d.Lease, visibility)
		if err != nil {
			f.Fatal(err)
		}
		if l.Fence != d.Lease.Fence || !l.Until.Equal(time.Now().Add(visibility)) {
			f.Errorf("extended to %+v", l)
		}
		d.Lease = l
		f.want(f.lease(1))
	}
	f.done(d)
	f.fenced("extend", extend(f, d.Lease))
}

func testFencing(f *fixture) {
	f.names("one")
	var old []fleet.Lease
	for range 3 {
		d := f.one()
		for _, l := range old {
			if l.Fence >= d.Lease.Fence {
				f.Fatalf("fence %d after %d", d.Lease.Fence, l.Fence)
			}
			f.fenced("extend", extend(f, l))
			f.fenced("ack", f.q.Ack(f.ctx, l))
			f.fenced("nack", f.q.Nack(f.ctx, l, 0, ""))
			f.fenced("dead-letter", f.q.DeadLetter(f.ctx, l, ""))
		}
		f.counts(0, 0, 1, 0)
		old = append(old, d.Lease)
		time.Sleep(visibility + time.Millisecond) // not in the very moment in which the backend returns it
	}
	made := fleet.Lease{Task: old[0].Task, Fence: old[2].Fence + 1}
	f.fenced("ack of a made-up fence", f.q.Ack(f.ctx, made))
}

func testNack(f *fixture) {
	f.names("one", "two")
	d := f.one()
	f.want([]fleet.Delivery{d}, "one")
	if err := f.q.Nack(f.ctx, d.Lease, 10*time.Second, "not now"); err != nil {
		f.Fatal(err)
	}
	f.fenced("second nack", f.q.Nack(f.ctx, d.Lease, 0, ""))
	f.counts(1, 1, 0, 0)
	f.want(f.lease(5), "two")
	f.drain()
	if f.awake(8 * time.Second) {
		f.Error("woken before the delay was over")
	}
	if !f.awake(3 * time.Second) {
		f.Error("not woken when the delay was over")
	}
	again := f.one()
	f.want([]fleet.Delivery{again}, "one")
	if again.Lease.Attempt != 2 || again.Lease.Fence <= d.Lease.Fence {
		f.Errorf("lease after a nack: %+v", again.Lease)
	}
	// At once, and in its place by due time.
	if err := f.q.Nack(f.ctx, again.Lease, 0, ""); err != nil {
		f.Fatal(err)
	}
	f.want(f.lease(5), "one")
}

func testDelayed(f *fixture) {
	later, soon := task("later", "a", 9), task("soon", "a", 0)
	later.Spec.NotBefore = time.Now().Add(time.Hour)
	soon.Spec.NotBefore = time.Now().Add(time.Minute)
	f.submit(later, soon, task("now", "a", 0))
	f.counts(1, 2, 0, 0)
	now := f.one()
	f.want([]fleet.Delivery{now}, "now")
	f.done(now)
	f.drain()
	start := time.Now()
	for f.stats().Backlog == 0 {
		if !f.awake(2 * time.Hour) {
			f.Fatal("never woken")
		}
	}
	if got := time.Since(start); got > time.Minute+time.Second {
		f.Errorf("woken for the first after %s, want one minute", got)
	}
	f.counts(1, 1, 0, 0)
	second := f.one()
	f.want([]fleet.Delivery{second}, "soon")
	f.done(second)
	for f.stats().Backlog == 0 {
		if !f.awake(2 * time.Hour) {
			f.Fatal("never woken")
		}
	}
	f.want(f.lease(5), "later")
}

func testDeadLetter(f *fixture) {
	f.names("bad", "good")
	d := f.lease(2)
	if err := f.q.DeadLetter(f.ctx, d[0].Lease, "unreadable"); err != nil {
		f.Fatal(err)
	}
	f.counts(0, 0, 1, 1)
	f.fenced("nack", f.q.Nack(f.ctx, d[0].Lease, 0, ""))
	time.Sleep(2 * visibility)
	f.want(f.lease(5), "good")
	f.counts(0, 0, 1, 1)
}

func testWake(f *fixture) {
	f.drain()
	if f.awake(time.Minute) {
		f.Error("woken with nothing to do")
	}
	f.names("one", "two", "three")
	if !f.awake(time.Second) {
		f.Fatal("not woken by a submission")
	}
	f.drain()
	if n := len(f.lease(9)); n != 3 {
		f.Errorf("after merged wake-ups %d tasks, want 3", n)
	}
}

func testConcurrent(f *fixture) {
	const tasks, consumers = 60, 6
	for range tasks {
		f.names("t")
	}
	type got struct {
		ids []fleet.TaskID
		err error
	}
	results := make(chan got)
	for range consumers {
		go func() {
			var g got
			for {
				d, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 3}, Visibility: visibility})
				if err != nil || len(d) == 0 {
					g.err = err
					results <- g
					return
				}
				for _, x := range d {
					g.ids = append(g.ids, x.Task.ID)
				}
			}
		}()
	}
	var all []fleet.TaskID
	for range consumers {
		g := <-results
		if g.err != nil {
			f.Error(g.err)
		}
		all = append(all, g.ids...)
	}
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != tasks || len(all) != tasks {
		f.Errorf("%d deliveries of %d tasks, want each of %d once", len(all), n, tasks)
	}
	f.counts(0, 0, tasks, 0)
}

func testContext(f *fixture) {
	f.names("one")
	d := f.one()
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	calls := map[string]func() error{
		"stats":       func() error { _, err := f.q.Stats(ctx); return err },
		"lease":       func() error { _, err := f.q.Lease(ctx, fleet.LeaseRequest{Visibility: 1}); return err },
		"extend":      func() error { _, err := f.q.Extend(ctx, d.Lease, 1); return err },
		"ack":         func() error { return f.q.Ack(ctx, d.Lease) },
		"nack":        func() error { return f.q.Nack(ctx, d.Lease, 0, "") },
		"dead-letter": func() error { return f.q.DeadLetter(ctx, d.Lease, "") },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			f.Errorf("%s with an ended context: %v", name, err)
		}
	}
	f.counts(0, 0, 1, 0)
	f.done(d)
}

func testInvalid(f *fixture) {
	f.names("one")
	if _, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}}); !errors.Is(err, fleet.ErrInvalid) {
		f.Errorf("lease for no time: %v", err)
	}
	d := f.one()
	if _, err := f.q.Extend(f.ctx, d.Lease, 0); !errors.Is(err, fleet.ErrInvalid) {
		f.Errorf("extend by nothing: %v", err)
	}
	none := fleet.Lease{Task: fleet.TaskID("t" + strings.Repeat("0", 20)), Fence: 1}
	for name, err := range map[string]error{
		"ack": f.q.Ack(f.ctx, none), "nack": f.q.Nack(f.ctx, none, 0, ""), "extend": extend(f, none),
	} {
		if !errors.Is(err, fleet.ErrFenced) && !errors.Is(err, fleet.ErrNotFound) {
			f.Errorf("%s of a task that does not exist: %v", name, err)
		}
	}
}
