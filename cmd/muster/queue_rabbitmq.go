package main

import (
	"context"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/rabbitmq"
)

func openRabbitMQ(ctx context.Context, q *v1alpha1.RabbitMQQueue, o queueOptions) (fleet.Source, error) {
	heartbeat, err := duration("heartbeat", q.Heartbeat)
	if err != nil {
		return nil, err
	}
	return rabbitmq.New(ctx, rabbitmq.Config{
		Addresses: q.Addresses, VHost: q.VHost, Queue: q.Queue,
		Username: q.Username, Password: credential(q.Password), External: q.External, TLS: tlsOf(q.TLS),
		Create: q.Create, DeadQueue: q.DeadQueue, UseDLX: q.UseDLX, ReadOnly: o.readOnly,
		Management: q.Management, Timestamps: q.Timestamps, Heartbeat: heartbeat, Name: o.consumer,
	})
}
