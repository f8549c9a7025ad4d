package main

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/http"
)

func openHTTP(ctx context.Context, q *v1alpha1.HTTPSignal, _ queueOptions) (fleet.Signal, error) {
	timeout, err := spanOf("timeout", q.Timeout)
	if err != nil {
		return nil, fmt.Errorf("queue http: %w", err)
	}
	s, err := http.New(ctx, http.Config{
		URL: q.URL, Method: q.Method, Body: q.Body, Headers: q.Headers,
		Username: q.Username, Password: credential(q.Password), Token: credential(q.Token),
		APIKey: credential(q.APIKey), APIKeyHeader: q.APIKeyHeader, APIKeyQuery: q.APIKeyQuery, TLS: tlsOf(q.TLS),
		Backlog: q.Backlog, InFlight: q.InFlight, Delayed: q.Delayed, Dead: q.Dead, Arrived: q.Arrived,
		Oldest: q.Oldest, OldestAt: q.OldestAt, Timeout: timeout,
	})
	if err != nil {
		return nil, fmt.Errorf("queue http: %w", err)
	}
	return s, nil
}

// spanOf reads a duration of a block; zero where it is not said.
func spanOf(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", field, fleet.ErrInvalid, err)
	}
	return d, nil
}
