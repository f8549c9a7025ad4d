package main

import (
	"context"
	"fmt"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/postgres"
)

func openPostgres(ctx context.Context, q *v1alpha1.PostgresQueue, o queueOptions) (fleet.Source, error) {
	if q.SQL != nil && q.SQL.Lease == "" && !o.readOnly {
		return nil, fmt.Errorf("spec.queue.postgres.sql has only stats: this queue can only be read, not worked off: %w", fleet.ErrInvalid)
	}
	s, err := postgres.New(ctx, postgresConfig(q, o))
	if err != nil {
		return nil, fmt.Errorf("queue postgres: %w", err)
	}
	return s, nil
}

func postgresConfig(q *v1alpha1.PostgresQueue, o queueOptions) postgres.Config {
	c := postgres.Config{
		URL: q.URL, Host: q.Host, Port: q.Port, Database: q.Database, User: q.User,
		Password: credential(q.Password), TLS: tlsOf(q.TLS),
		Table: q.Table, Create: q.Create, Poll: q.Poll, Connections: q.Connections,
		Consumer: o.consumer, ReadOnly: o.readOnly, Log: o.log,
	}
	if s := q.SQL; s != nil {
		c.SQL = &postgres.SQL{
			Stats: s.Stats, Tells: s.Tells, Lease: s.Lease, Extend: s.Extend, Ack: s.Ack, Nack: s.Nack,
			DeadLetter: s.DeadLetter, Text: s.Text, Channel: s.Channel,
		}
	}
	return c
}
