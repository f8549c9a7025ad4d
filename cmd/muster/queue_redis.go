package main

import (
	"context"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/redis"
)

func openRedis(ctx context.Context, q *v1alpha1.RedisQueue, o queueOptions) (fleet.Source, error) {
	c, err := redisConfig(q, o)
	if err != nil {
		return nil, err
	}
	return redis.New(ctx, c)
}

func redisConfig(q *v1alpha1.RedisQueue, o queueOptions) (redis.Config, error) {
	c := redis.Config{
		Addresses: q.Addresses, Cluster: q.Cluster, DB: q.DB,
		Username: q.Username, Password: credential(q.Password), TLS: tlsOf(q.TLS),
		Dead: q.Dead, Consumer: o.consumer, ReadOnly: o.readOnly,
	}
	if s := q.Sentinel; s != nil {
		c.Sentinel = &redis.Sentinel{Master: s.Master, Username: s.Username, Password: credential(s.Password)}
	}
	if l := q.List; l != nil {
		c.List = &redis.List{Name: l.Name, Push: redis.End(l.Push), Shared: l.Shared}
	}
	if s := q.Stream; s != nil {
		c.Stream = &redis.Stream{Name: s.Name, Group: s.Group, Body: s.Body, Shared: s.Shared}
		if s.Adopt != "" {
			d, err := time.ParseDuration(s.Adopt)
			if err != nil {
				return redis.Config{}, &fleet.FieldError{Field: "spec.queue.redis.stream.adopt", Wrong: "is not a duration", Right: "a duration such as 12h"}
			}
			c.Stream.Adopt = d
		}
	}
	return c, nil
}
