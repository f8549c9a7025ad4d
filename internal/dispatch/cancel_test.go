package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// leaseThen calls a function with each task that a lease delivers, before the
// dispatcher sees it.
type leaseThen struct {
	fleet.Queue
	then func(fleet.Task)
}

func (q leaseThen) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	got, err := q.Queue.Lease(ctx, r)
	for _, d := range got {
		q.then(d.Task)
	}
	return got, err
}

// claimAfter calls a function before a runner is given its task.
type claimAfter struct {
	fleet.Sandboxes
	first func(fleet.TaskID)
}

func (s claimAfter) Claim(ctx context.Context, id fleet.SandboxID, a fleet.Assignment, sink fleet.TaskSink) error {
	s.first(a.Task)
	return s.Sandboxes.Claim(ctx, id, a, sink)
}

// TestCancelBeforeTheRunnerHasIt cancels a task in each moment at which nobody
// could be told of it: it is ended all the same, by the runner, and soon.
func TestCancelBeforeTheRunnerHasIt(t *testing.T) {
	for name, where := range map[string]func(*Config, func(fleet.TaskID)){
		"leased and claimed": func(c *Config, cancel func(fleet.TaskID)) {
			c.Queue = leaseThen{c.Queue, func(t fleet.Task) { cancel(t.ID) }}
		},
		"being handed over": func(c *Config, cancel func(fleet.TaskID)) {
			c.Sandboxes = claimAfter{c.Sandboxes, cancel}
		},
	} {
		for secrets, names := range map[string][]string{"": nil, " with a secret": {"KEY"}} {
			t.Run(name+secrets, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, fake.Options{Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
						r.Running()
						<-ctx.Done()
						return fleet.RunReport{Reason: fleet.ReasonCancelled, ExitCode: 143}
					}}, 1)
					r.alter = func(c *Config) {
						where(c, func(id fleet.TaskID) {
							if _, err := r.d.Cancel(context.Background(), id, "ann"); err != nil {
								t.Error(err)
							}
						})
					}
					r.start()
					defer r.end()
					begin := time.Now()
					got := r.final(r.submit(func(s *fleet.TaskSpec) { s.Secrets = names }))
					if got.State != fleet.TaskCancelled || got.CancelBy != "ann" || time.Since(begin) > 10*time.Second {
						t.Errorf("%s by %q after %s: %s", got.State, got.CancelBy, time.Since(begin), got.Result.Message)
					}
					// No timer is left that would end the sandbox of another task.
					time.Sleep(2 * time.Minute)
					if n := len(r.d.cancelled); n > 0 {
						t.Errorf("%d cancellations are still remembered", n)
					}
				})
			})
		}
	}
}
