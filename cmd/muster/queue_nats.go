package main

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/nats"
)

func openNATS(ctx context.Context, q *v1alpha1.NATSQueue, o queueOptions) (fleet.Source, error) {
	c := nats.Config{
		Servers: q.Servers, Stream: q.Stream, Consumer: q.Consumer, Bind: q.Bind, Subject: q.Subject,
		MaxAckPending: q.MaxAckPending, DeadStream: q.DeadStream, DeadSubject: q.DeadSubject,
		User: q.User, Password: credential(q.Password), Token: credential(q.Token),
		NKeySeed: credential(q.NKeySeed), Credentials: credential(q.Credentials), TLS: tlsOf(q.TLS),
		Domain: q.Domain, APIPrefix: q.APIPrefix, InboxPrefix: q.InboxPrefix, Name: o.consumer,
		ReadOnly: o.readOnly,
	}
	if q.AckWait != "" {
		d, err := time.ParseDuration(q.AckWait)
		if err != nil {
			return nil, fmt.Errorf("ackWait: %w: %w", fleet.ErrInvalid, err)
		}
		c.AckWait = d
	}
	return nats.New(ctx, c)
}
