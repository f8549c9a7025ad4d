package main

import (
	"context"
	"fmt"
	"log/slog"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// queueOptions is what opening an outside queue takes beside its block.
type queueOptions struct {
	log *slog.Logger
	// consumer names this process to the queue, the same after a restart; other
	// control planes have other names.
	consumer string
	// readOnly: others take the messages. Nothing may be taken, created or
	// written, not even for a moment.
	readOnly bool
}

// openSource connects to the queue that tasks are taken from. It does not wait
// for the server: one that is down is reported by the first reading.
func openSource(ctx context.Context, q *v1alpha1.Queue, o queueOptions) (fleet.Source, error) {
	switch {
	case q.Redis != nil:
		return openRedis(ctx, q.Redis, o)
	case q.RabbitMQ != nil:
		return openRabbitMQ(ctx, q.RabbitMQ, o)
	case q.SQS != nil:
		return openSQS(ctx, q.SQS, o)
	case q.NATS != nil:
		return openNATS(ctx, q.NATS, o)
	case q.Postgres != nil:
		return openPostgres(ctx, q.Postgres, o)
	case q.Kafka != nil:
		return openKafka(ctx, q.Kafka, o)
	}
	return nil, fmt.Errorf("a queue of type %q can only be read, not worked off: %w", q.Type, fleet.ErrInvalid)
}

// credential is how an adapter reads a secret; nil for none.
func credential(c *v1alpha1.Credential) connect.Credential {
	switch {
	case c == nil:
		return nil
	case c.Env != "":
		return connect.Env(c.Env)
	case c.File != "":
		return connect.File(c.File)
	case c.Secret != nil:
		return connect.KubernetesSecret(c.Secret.Namespace, c.Secret.Name, c.Secret.Key)
	}
	return nil
}

func tlsOf(t *v1alpha1.QueueTLS) connect.TLS {
	if t == nil {
		return connect.TLS{}
	}
	return connect.TLS{Enabled: true, CAFile: t.CA, CertFile: t.Cert, KeyFile: t.Key, ServerName: t.ServerName, Insecure: t.InsecureSkipVerify}
}
