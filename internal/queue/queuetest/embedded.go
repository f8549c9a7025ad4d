package queuetest

import (
	"context"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Embedded is the subject for a queue that is part of a store.
func Embedded(s fleet.Store, q fleet.Queue) Subject {
	return Subject{
		Queue: q, Records: s,
		Submit: func(ctx context.Context, tasks ...fleet.Task) error {
			_, err := s.Submit(ctx, tasks)
			return err
		},
		Settle: func(ctx context.Context, d fleet.Delivery) error {
			_, err := s.Settle(ctx, d.Lease.Task, d.Lease.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()})
			return err
		},
	}
}
