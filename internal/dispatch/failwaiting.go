package dispatch

import (
	"context"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// FailWaiting settles the due tasks of a pool that can never start (its image
// does not exist, its prepare always fails), so that nobody waits in vain.
// They are leased first, so that each is settled under its fence. It returns
// how many it settled.
func (d *Dispatcher) FailWaiting(ctx context.Context, pool fleet.PoolKey, reason fleet.TaskReason, msg string) (int, error) {
	n := 0
	for {
		got, err := d.Queue.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{pool: 100}, Visibility: d.Visibility, Consumer: d.Consumer})
		if err != nil {
			return n, fmt.Errorf("lease the tasks that wait for %s: %w", pool, err)
		}
		if len(got) == 0 {
			return n, nil
		}
		for _, dl := range got {
			p := dl.Task.Phases
			t, err := d.Tasks.Settle(ctx, dl.Task.ID, dl.Lease.Fence, fleet.Settlement{
				State: StateOf(reason), Phases: p, EndedAt: d.Clock(),
				Result: fleet.Result{Reason: reason, Message: msg, ExitCode: -1},
			})
			if err != nil {
				return n, fmt.Errorf("settle task %s: %w", dl.Task.ID, err)
			}
			n++
			d.settled(t)
		}
	}
}
