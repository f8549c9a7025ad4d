package main

import (
	"context"
	"fmt"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/temporal"
)

func openTemporal(ctx context.Context, q *v1alpha1.TemporalSignal, _ queueOptions) (fleet.Signal, error) {
	timeout, err := spanOf("timeout", q.Timeout)
	if err != nil {
		return nil, fmt.Errorf("queue temporal: %w", err)
	}
	s, err := temporal.New(ctx, temporal.Config{
		Address: q.Address, Namespace: q.Namespace, TaskQueue: q.TaskQueue, Kinds: q.Kinds,
		APIKey: credential(q.APIKey), TLS: tlsOf(q.TLS), Timeout: timeout,
	})
	if err != nil {
		return nil, fmt.Errorf("queue temporal: %w", err)
	}
	return s, nil
}
