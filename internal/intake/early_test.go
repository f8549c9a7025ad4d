package intake

import (
	"context"
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

type tasks = fleet.Tasks

// slowDisk returns from a submission only after its tasks were leased, as where
// the dispatcher is quicker than the disk.
type slowDisk struct {
	tasks
	w    *world
	then func(fleet.Delivery)
}

// Submit implements fleet.Tasks.
func (s slowDisk) Submit(ctx context.Context, all []fleet.Task) ([]fleet.Task, error) {
	out, err := s.tasks.Submit(ctx, all)
	if err != nil {
		return out, err
	}
	got, err := s.w.q.Lease(ctx, fleet.LeaseRequest{
		Slots: map[fleet.PoolKey]int{"p": 100}, Visibility: time.Hour,
		Claim: func(fleet.Task) (fleet.Claim, bool) { return fleet.Claim{}, false },
	})
	for _, d := range got {
		s.w.ran[d.Task.Spec.Command[0]]++
		s.then(d)
	}
	return out, err
}

// early runs a test in a world where tasks are leased before their submission
// returns.
func early(t *testing.T, then func(*world, fleet.Delivery), f func(*world)) {
	t.Helper()
	run(t, func(w *world) {
		w.stop()
		w.config = func(c *Config) {
			c.Tasks = slowDisk{c.Tasks, w, func(d fleet.Delivery) { then(w, d) }}
		}
		w.slots["p"] = 100
		w.start()
		f(w)
	})
}

// Tasks that are leased before their submission returns do not count as waiting
// for a sandbox: with as many of them as may wait, messages would be left where
// they are, however many sandboxes are free.
func TestLeasedBeforeSubmitted(t *testing.T) {
	early(t, func(*world, fleet.Delivery) {}, func(w *world) {
		for i := range 2 * ahead {
			w.publish(fmt.Sprintf("p task%d", i))
			w.slots["p"] = 1 // only one is free at a time
			w.lease()
		}
		if len(w.ran) != 2*ahead {
			w.Errorf("%d tasks were leased, want %d", len(w.ran), 2*ahead)
		}
		w.outside(0, 2*ahead, 0)
	})
}

// A task that is over before its submission returns has its message settled at
// once, not when what is over is looked for the next time.
func TestOverBeforeSubmitted(t *testing.T) {
	end := func(w *world, d fleet.Delivery) {
		d.Task.State = fleet.TaskSucceeded
		w.q.Settled(d.Task)
	}
	early(t, end, func(w *world) {
		w.publish("p quick")
		w.lease()
		w.outside(0, 0, 0)
	})
}
