package main

import (
	"errors"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/redis"
)

func TestRedisConfig(t *testing.T) {
	c, err := redisConfig(&v1alpha1.RedisQueue{
		Addresses: []string{"h:1"}, DB: 2, Username: "u", Password: &v1alpha1.Credential{Env: "P"}, TLS: &v1alpha1.QueueTLS{ServerName: "n"}, Dead: "d",
		Sentinel: &v1alpha1.RedisSentinel{Master: "m"}, Stream: &v1alpha1.RedisStream{Name: "s", Group: "g", Body: "b", Shared: true, Adopt: "1h"},
	}, queueOptions{consumer: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Addresses[0] != "h:1" || c.DB != 2 || c.Username != "u" || c.Password == nil || !c.TLS.Enabled || c.TLS.ServerName != "n" || c.Dead != "d" || c.Consumer != "me" || c.Sentinel.Master != "m" || c.List != nil {
		t.Errorf("got %+v", c)
	}
	if *c.Stream != (redis.Stream{Name: "s", Group: "g", Body: "b", Shared: true, Adopt: time.Hour}) {
		t.Errorf("got %+v", c.Stream)
	}
	c, err = redisConfig(&v1alpha1.RedisQueue{List: &v1alpha1.RedisList{Name: "l", Push: "right", Shared: true}}, queueOptions{})
	if err != nil || *c.List != (redis.List{Name: "l", Push: redis.Right, Shared: true}) || c.Stream != nil {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := openSource(t.Context(), &v1alpha1.Queue{Type: "redis", Redis: &v1alpha1.RedisQueue{}}, queueOptions{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("an empty block: %v", err)
	}
	if _, err := redisConfig(&v1alpha1.RedisQueue{Stream: &v1alpha1.RedisStream{Adopt: "x"}}, queueOptions{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a bad duration: %v", err)
	}
}
