package main

import (
	"context"
	"fmt"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/prometheus"
)

func openPrometheus(ctx context.Context, q *v1alpha1.PrometheusSignal, _ queueOptions) (fleet.Signal, error) {
	timeout, err := spanOf("timeout", q.Timeout)
	if err != nil {
		return nil, fmt.Errorf("queue prometheus: %w", err)
	}
	stale, err := spanOf("staleAfter", q.StaleAfter)
	if err != nil {
		return nil, fmt.Errorf("queue prometheus: %w", err)
	}
	s, err := prometheus.New(ctx, prometheus.Config{
		URL: q.URL, Headers: q.Headers, Username: q.Username, Password: credential(q.Password), Token: credential(q.Token), TLS: tlsOf(q.TLS),
		Backlog: q.Backlog, InFlight: q.InFlight, Delayed: q.Delayed, Dead: q.Dead, Arrived: q.Arrived, Oldest: q.Oldest, AsOf: q.AsOf,
		EmptyIsZero: q.Empty == "zero", StaleAfter: stale, Timeout: timeout,
	})
	if err != nil {
		return nil, fmt.Errorf("queue prometheus: %w", err)
	}
	return s, nil
}
