package queuetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
)

// Options shape the queue under test.
type Options struct {
	Tenants map[fleet.TenantID]fleet.Share
}

// Subject is a queue under test.
type Subject struct {
	Queue fleet.Queue
	// Submit puts tasks in the queue, in order.
	Submit func(context.Context, ...fleet.Task) error
	// Settle records the completion of a delivery before Ack, where the queue
	// asks for that; nil where Ack alone removes a task.
	Settle func(context.Context, fleet.Delivery) error
	// Records is the store of the sandboxes that the queue is one with, and
	// claims from while it leases; nil where it is not.
	Records fleet.SandboxRecords
}

// Factory makes an empty queue and cleans up after the test.
type Factory func(t *testing.T, o Options) Subject

// Run runs the suite. Each test runs in a testing/synctest bubble: the queue
// must take its time and timers from the time package.
func Run(t *testing.T, open Factory) {
	tests := []struct {
		name string
		opt  Options
		run  func(*fixture)
	}{
		{"empty", Options{}, testEmpty},
		{"lifecycle", Options{}, testLifecycle},
		{"order", Options{}, testOrder},
		{"slots", Options{}, testSlots},
		{"fair share by weight", Options{Tenants: map[fleet.TenantID]fleet.Share{"a": {Weight: 3}, "b": {Weight: 1}}}, testWeights},
		{"a newcomer is served before the busy", Options{}, testNewcomer},
		{"caps", Options{Tenants: map[fleet.TenantID]fleet.Share{"a": {MaxRunning: 2}}}, testCaps},
		{"a tenant without money", Options{Tenants: map[fleet.TenantID]fleet.Share{"a": {Held: true, MaxRunning: 2}}}, testHeld},
		{"expiry", Options{}, testExpiry},
		{"extend", Options{}, testExtend},
		{"fencing", Options{}, testFencing},
		{"claim with the lease", Options{}, testClaim},
		{"nack with delay", Options{}, testNack},
		{"delayed start", Options{}, testDelayed},
		{"dead letter", Options{}, testDeadLetter},
		{"wake", Options{}, testWake},
		{"concurrent leases", Options{}, testConcurrent},
		{"ended context", Options{}, testContext},
		{"bad requests", Options{}, testInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, tt.opt)
				tt.run(&fixture{T: t, Subject: s, q: s.Queue, ctx: t.Context()})
			})
		})
	}
}

const visibility = 30 * time.Second

type fixture struct {
	*testing.T
	Subject
	q   fleet.Queue
	ctx context.Context
}

// task is a queued task named name; tests tell tasks apart by name.
func task(name string, tenant fleet.TenantID, priority int) fleet.Task {
	return fleet.Task{Spec: fleet.TaskSpec{
		Name: name, Tenant: tenant, Pool: "p", Template: "p", Priority: priority, Command: []string{"true"},
	}}
}

func (f *fixture) submit(tasks ...fleet.Task) {
	f.Helper()
	if err := f.Submit(f.ctx, tasks...); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) names(names ...string) {
	f.Helper()
	for _, n := range names {
		f.submit(task(n, "a", 0))
	}
}

func (f *fixture) lease(n int) []fleet.Delivery {
	f.Helper()
	d, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": n}, Visibility: visibility, Consumer: "test"})
	if err != nil {
		f.Fatal(err)
	}
	return d
}

func (f *fixture) one() fleet.Delivery {
	f.Helper()
	d := f.lease(1)
	if len(d) != 1 {
		f.Fatalf("leased %d tasks, want 1", len(d))
	}
	return d[0]
}

// want checks the names of deliveries, in order.
func (f *fixture) want(d []fleet.Delivery, names ...string) {
	f.Helper()
	got := []string{}
	for _, x := range d {
		got = append(got, x.Task.Spec.Name)
	}
	if diff := cmp.Diff(append([]string{}, names...), got); diff != "" {
		f.Fatalf("leased (-want +got):\n%s", diff)
	}
}

func (f *fixture) stats() fleet.QueueStats {
	f.Helper()
	st, err := f.q.Stats(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	return st
}

func (f *fixture) counts(backlog, delayed, inFlight, dead int) fleet.QueueStats {
	f.Helper()
	st := f.stats()
	got := [4]int{st.Backlog, st.Delayed, st.InFlight, st.Dead}
	if want := [4]int{backlog, delayed, inFlight, dead}; got != want {
		f.Fatalf("backlog, delayed, in flight, dead: got %v, want %v", got, want)
	}
	return st
}

// held checks what the tenants' caps hold back, and the highest priority of the
// rest of the backlog.
func (f *fixture) held(want, priority int) {
	f.Helper()
	st := f.stats()
	if len(st.Pools) != 1 || st.Pools[0].Held != want || st.Pools[0].Priority != priority {
		f.Fatalf("pools %+v, want one with %d held and priority %d", st.Pools, want, priority)
	}
}

func (f *fixture) done(d fleet.Delivery) {
	f.Helper()
	if f.Settle != nil {
		if err := f.Settle(f.ctx, d); err != nil {
			f.Fatal(err)
		}
	}
	if err := f.q.Ack(f.ctx, d.Lease); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) fenced(what string, err error) {
	f.Helper()
	if !errors.Is(err, fleet.ErrFenced) {
		f.Fatalf("%s with a lost lease: got %v, want ErrFenced", what, err)
	}
}

// awake waits for a wake-up, at most d.
func (f *fixture) awake(d time.Duration) bool {
	select {
	case <-f.q.Wake():
		return true
	case <-time.After(d):
		return false
	}
}

func (f *fixture) drain() {
	for f.awake(time.Millisecond) {
	}
}
