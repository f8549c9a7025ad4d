package dispatch

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// A task that has cost what it may is ended with that as its reason; one
// without a bound, or whose cost cannot be read, goes on.
func TestMoneyUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{Script: func(ctx context.Context, run *fake.Run) fleet.RunReport {
			run.Running()
			if err := run.Sleep(ctx, time.Hour); err != nil {
				return fleet.RunReport{ExitCode: -1, Signal: "SIGTERM"}
			}
			return fleet.RunReport{}
		}}, 3)
		var began atomic.Int64 // 0: costs cannot be read
		r.alter = func(c *Config) {
			c.Costs = func(_ context.Context, ids []fleet.TaskID) (out []fleet.TaskCost, err error) {
				since := began.Load()
				if since == 0 {
					return nil, errors.New("the store is away")
				}
				for _, id := range ids { // a cent a minute
					out = append(out, fleet.TaskCost{Task: id, MicroUSD: int64(time.Since(time.Unix(0, since)).Minutes() * 10_000)})
				}
				return out, nil
			}
		}
		r.start()
		bounded := r.submit(func(s *fleet.TaskSpec) { s.MaxMicroUSD = 50_000 })
		free := r.submit(nil)
		look := func(id fleet.TaskID) fleet.Task {
			x, err := r.store.Task(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		time.Sleep(10 * time.Minute)
		if x := look(bounded); x.State != fleet.TaskRunning {
			t.Errorf("with nobody to say what it cost it is %s", x.State)
		}
		start := time.Now()
		began.Store(start.UnixNano())
		time.Sleep(4*time.Minute + 50*time.Second)
		if x := look(bounded); x.State != fleet.TaskRunning {
			t.Errorf("before its money was used up it is %s", x.State)
		}
		time.Sleep(time.Minute)
		x := look(bounded)
		if x.State != fleet.TaskFailed || x.Result.Reason != fleet.ReasonBudget || !strings.Contains(x.Result.Message, "budget.maxUSD of $0.05") {
			t.Errorf("it is %s (%s): %s", x.State, x.Result.Reason, x.Result.Message)
		}
		if late := x.EndedAt.Sub(start) - 5*time.Minute; late < 0 || late > 25*time.Second {
			t.Errorf("it ended %s after its money was used up", late)
		}
		if x := look(free); x.State != fleet.TaskRunning {
			t.Errorf("the one without a bound is %s", x.State)
		}
		r.end()
	})
}

func TestMemoryByteSeconds(t *testing.T) {
	t0 := time.Unix(1000, 0)
	var m held
	for i, c := range []struct {
		after int
		bytes int64
		want  int64
	}{
		{2, 100, 200},  // the first reading counts from the claim on
		{4, 300, 600},  // 2 s at 200 on average
		{4, 999, 600},  // no time has passed
		{3, 999, 600},  // a clock that went back takes nothing away
		{6, 300, 1200}, // 2 s at 300
	} {
		if got := m.add(t0, fleet.Usage{At: t0.Add(time.Duration(c.after) * time.Second), MemoryBytes: c.bytes}); got != c.want {
			t.Errorf("reading %d: %d byte-seconds, want %d", i, got, c.want)
		}
	}
}
