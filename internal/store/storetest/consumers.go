package storetest

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

func testWakeSandboxes(f *fixture) {
	awake := func(w <-chan struct{}) bool {
		select {
		case <-w:
			return true
		case <-time.After(time.Second):
			return false
		}
	}
	a, releaseA := f.s.WakeSandboxes()
	b, releaseB := f.s.WakeSandboxes()
	defer releaseB()
	if awake(a) {
		f.Error("woken without a record")
	}
	sb := f.ready("p")
	if !awake(a) || !awake(b) {
		f.Error("not woken")
	}
	if awake(a) || awake(b) {
		f.Error("woken twice by one record")
	}
	releaseA()
	releaseA()
	wakes := func(what string, want bool, err error) {
		f.Helper()
		if err != nil {
			f.Fatalf("%s: %v", what, err)
		}
		if got := awake(b); got != want {
			f.Errorf("%s: woken %t, want %t", what, got, want)
		}
		for awake(b) {
		}
	}
	f.submit(plain("p"), plain("p"), plain("p"), plain("p"))
	wakes("submission", false, nil)
	wakes("swap", true, f.s.SwapSandbox(f.ctx, sb, fleet.SandboxReady, ""))
	wakes("lost swap", false, func() error {
		f.is(f.s.SwapSandbox(f.ctx, sb, fleet.SandboxDraining, ""), fleet.ErrConflict, "swap")
		return nil
	}())
	_, _, err := f.s.TakeOver(f.ctx, sb.Spec.ID, "", "a")
	wakes("take-over", true, err)
	d := f.lease("p")
	wakes("lease", false, nil)
	wakes("nack of what has no sandbox", false, f.q.Nack(f.ctx, d.Lease, 0, ""))
	for _, end := range []struct {
		name string
		f    func(d fleet.Delivery) error
	}{
		{"settle", func(d fleet.Delivery) error {
			_, err := f.s.Settle(f.ctx, d.Task.ID, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()})
			return err
		}},
		{"retry", func(d fleet.Delivery) error {
			_, err := f.s.Retry(f.ctx, d.Task.ID, d.Lease.Fence, time.Now(), "")
			return err
		}},
		{"nack", func(d fleet.Delivery) error { return f.q.Nack(f.ctx, d.Lease, 0, "") }},
		{"dead-letter", func(d fleet.Delivery) error { return f.q.DeadLetter(f.ctx, d.Lease, "") }},
	} {
		d, box := f.lease("p"), f.ready("p")
		wakes("put", true, nil)
		_, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()})
		wakes("claim", true, err)
		wakes("change", false, f.s.Change(f.ctx, d.Task.ID, d.Lease.Fence, fleet.Change{State: fleet.TaskRunning}))
		wakes(end.name, true, end.f(d))
	}
	box := f.ready("p")
	wakes("put", true, nil)
	_, err = f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: visibility, Claim: func(fleet.Task) (fleet.Claim, bool) {
		return fleet.Claim{Sandbox: box.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()}, true
	}})
	wakes("lease with a claim", true, err)
}

func testConsumers(f *fixture) {
	f.is(f.s.PutConsumer(f.ctx, fleet.Consumer{}), fleet.ErrInvalid, "no name")
	put := func(c fleet.Consumer) {
		f.Helper()
		if err := f.s.PutConsumer(f.ctx, c); err != nil {
			f.Fatal(err)
		}
	}
	list := func() (out []fleet.Consumer, ages map[string]time.Duration) {
		f.Helper()
		out, err := f.s.Consumers(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		ages = map[string]time.Duration{}
		for i := range out {
			ages[out[i].Name] = out[i].Age
			if out[i].Age < 0 {
				f.Errorf("%s is %s old", out[i].Name, out[i].Age)
			}
			out[i].Age = 0
		}
		return out, ages
	}
	want := func(w ...fleet.Consumer) {
		f.Helper()
		got, _ := list()
		f.same("consumers", append([]fleet.Consumer{}, w...), got)
	}
	want()
	one := fleet.Consumer{Name: "one", Address: "10.0.0.1:8443", Leased: 3, Running: 2, ClaimP99: time.Millisecond}
	two := fleet.Consumer{Name: "two", Address: "[fd00::2]:8443", Leaving: true}
	put(two)
	aged := one
	aged.Age = time.Hour // is not what it says itself
	put(aged)
	want(one, two)
	// A store that goes by another clock than the test's ages, too, but slowly.
	age := func(least time.Duration) time.Duration {
		f.Helper()
		for range 100_000 {
			time.Sleep(time.Second)
			if _, ages := list(); ages["one"] >= least && ages["two"] >= ages["one"] {
				return ages["one"]
			}
		}
		f.Fatalf("none is %s old", least)
		return 0
	}
	before := age(500 * time.Millisecond)
	one.Leased, one.Leaving = 4, true
	put(one)
	if _, ages := list(); ages["one"] >= before || ages["two"] < before {
		f.Errorf("ages %v after one told anew, before: %s", ages, before)
	}
	want(one, two)
	if f.Reopen != nil {
		f.reopenTaken()
		want(one, two)
	}
	for range 2 {
		if err := f.s.DeleteConsumer(f.ctx, "one"); err != nil {
			f.Fatal(err)
		}
		want(two)
	}
	put(one)
	want(one, two)
}
