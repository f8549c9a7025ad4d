package queues

import (
	"context"
	"crypto/sha1" //nolint:gosec // as the adapter names a body
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

const redisPassword = "s3cret-pa55"

func startRedis(t testing.TB) (*servers.Redis, *redis.Client) {
	t.Helper()
	s := servers.StartRedis(t, "--requirepass", redisPassword)
	c := redis.NewClient(&redis.Options{Addr: s.Address, Password: redisPassword, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return s, c
}

func redisBlock(t testing.TB, s *servers.Redis, kind string) string {
	t.Helper()
	return fmt.Sprintf(`type: redis, redis: {addresses: ["%s"], password: {file: %q}, %s: {name: tasks}}`, s.Address, secret(t, redisPassword), kind)
}

func openRedisList(t testing.TB) *Queue {
	t.Helper()
	s, c := startRedis(t)
	return &Queue{
		Block: redisBlock(t, s, "list"),
		Send: func(ctx context.Context, bodies ...string) error {
			values := make([]any, len(bodies))
			for i, b := range bodies {
				values[i] = b
			}
			return c.LPush(ctx, "tasks", values...).Err()
		},
		Count: func(ctx context.Context) (n Count, err error) {
			if n.Waiting, err = c.LLen(ctx, "tasks").Result(); err == nil {
				n.Held, err = c.HLen(ctx, "{tasks}:muster:leases").Result()
			}
			return n, err
		},
		Dead: func(ctx context.Context) (out []Dead, err error) {
			bodies, err := c.LRange(ctx, "tasks:dead", 0, -1).Result()
			for _, b := range bodies {
				sum := sha1.Sum([]byte(b)) //nolint:gosec // as the adapter names a body
				why, err := c.HGet(ctx, "{tasks}:muster:why", hex.EncodeToString(sum[:])).Result()
				if err != nil {
					return nil, err
				}
				out = append(out, Dead{b, why})
			}
			return out, err
		},
		Stop: s.Stop, Start: s.Process.Start,
	}
}

func openRedisStream(t testing.TB) *Queue {
	t.Helper()
	s, c := startRedis(t)
	return &Queue{
		Block: redisBlock(t, s, "stream"),
		Others: func(ctx context.Context) error {
			return c.XGroupCreateMkStream(ctx, "tasks", "muster", "0").Err()
		},
		Send: func(ctx context.Context, bodies ...string) error {
			_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, b := range bodies {
					p.XAdd(ctx, &redis.XAddArgs{Stream: "tasks", Values: []any{"body", b}})
				}
				return nil
			})
			return err
		},
		Count: func(ctx context.Context) (n Count, err error) {
			if n.Waiting, err = c.XLen(ctx, "tasks").Result(); err != nil || n.Waiting == 0 {
				return n, err
			}
			held, err := c.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: "tasks", Group: "muster", Start: "-", End: "+", Count: 1000}).Result()
			if err != nil {
				return n, err
			}
			n.Held = int64(len(held))
			n.Waiting -= n.Held
			for _, h := range held {
				n.Deliveries = max(n.Deliveries, h.RetryCount)
			}
			return n, nil
		},
		Dead: func(ctx context.Context) (out []Dead, err error) {
			all, err := c.XRange(ctx, "tasks:dead", "-", "+").Result()
			for _, e := range all {
				out = append(out, Dead{fmt.Sprint(e.Values["body"]), fmt.Sprint(e.Values["muster-reason"])})
			}
			return out, err
		},
		Stop: s.Stop, Start: s.Process.Start,
	}
}
