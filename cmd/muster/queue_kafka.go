package main

import (
	"context"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/kafka"
)

func openKafka(ctx context.Context, q *v1alpha1.KafkaQueue, o queueOptions) (fleet.Source, error) {
	c, err := kafkaConfig(q, o)
	if err != nil {
		return nil, err
	}
	return kafka.New(ctx, c)
}

func kafkaConfig(q *v1alpha1.KafkaQueue, o queueOptions) (kafka.Config, error) {
	c := kafka.Config{
		Brokers: q.Brokers, Topic: q.Topic, Group: q.Group, DeadTopic: q.DeadTopic,
		Mechanism: q.Mechanism, User: q.User, Password: credential(q.Password), TLS: tlsOf(q.TLS), Log: o.log,
		ReadOnly: o.readOnly,
	}
	var err error
	if c.Session, err = duration("spec.queue.kafka.session", q.Session); err != nil {
		return c, err
	}
	if q.Handover != "" {
		d, err := duration("spec.queue.kafka.handover", q.Handover)
		if err != nil {
			return c, err
		}
		c.Handover = &d
	}
	if q.Static && !o.readOnly {
		c.Member = o.consumer
	}
	return c, nil
}
