package redis

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait more than they work, each on a server of its own.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const password = "s3cret-pa55"

// client is what a producer would use.
func client(t testing.TB, address string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: address, Password: password, Protocol: 2, DisableIdentity: true, MaxRetries: -1, ReadTimeout: time.Minute})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func open(t testing.TB, c Config) *Source {
	t.Helper()
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fixture runs the suite on one server: each test has a queue of its own.
func fixture(server *servers.Redis, c *redis.Client, mode func(n int) Config) queuetest.OutsideFactory {
	n := 0
	return func(t *testing.T) queuetest.Outside {
		n++
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		cfg := mode(n)
		cfg.Addresses, cfg.Password = []string{server.Address}, connect.Fixed(password)
		f := queuetest.Outside{
			Open:      func(t *testing.T) fleet.Source { return open(t, cfg) },
			Forbidden: []string{password},
			Restart: func(down time.Duration) {
				server.Stop()
				time.Sleep(down)
				server.Process.Start()
			},
		}
		if cfg.List != nil {
			onList(&f, c, cfg)
		} else {
			onStream(&f, c, cfg)
		}
		return f
	}
}

func onList(f *queuetest.Outside, c *redis.Client, cfg Config) {
	push := c.LPush
	if cfg.List.Push == Right {
		push = c.RPush
	}
	f.Publish = func(ctx context.Context, sent ...queuetest.Sent) error {
		bodies := make([]any, len(sent))
		for i, m := range sent {
			bodies[i] = m.Body
		}
		return push(ctx, cfg.List.Name, bodies...).Err()
	}
	f.Fill = filler(c, cfg.List.Name, `redis.call('LPUSH', KEYS[1], i)`)
	f.Dead = func(ctx context.Context) (out []queuetest.Sent, why []string, _ error) {
		_ = cfg.check()
		bodies, err := c.LRange(ctx, cfg.Dead, 0, -1).Result()
		for _, b := range bodies {
			sum := sha(ctx, c, b)
			reason, err := c.HGet(ctx, cfg.keys()[9], sum).Result()
			if err != nil {
				return nil, nil, err
			}
			out, why = append(out, queuetest.Sent{Body: []byte(b)}), append(why, strings.ReplaceAll(reason, `\n`, "\n"))
		}
		return out, why, err
	}
}

// filler runs the command many times on the server, without a journal.
func filler(c *redis.Client, key, command string) func(context.Context, int) error {
	return func(ctx context.Context, n int) error {
		if err := c.ConfigSet(ctx, "appendonly", "no").Err(); err != nil {
			return err
		}
		for range n / 100_000 {
			if err := c.Eval(ctx, "for i = 1, 100000 do "+command+" end return 1", []string{key}).Err(); err != nil {
				return err
			}
		}
		return nil
	}
}

func sha(ctx context.Context, c *redis.Client, s string) string {
	return c.Eval(ctx, "return redis.sha1hex(ARGV[1])", nil, s).Val().(string)
}

func onStream(f *queuetest.Outside, c *redis.Client, cfg Config) {
	_ = cfg.check()
	f.Headers = true
	f.Publish = func(ctx context.Context, sent ...queuetest.Sent) error {
		for _, m := range sent {
			values := []any{}
			for k, v := range m.Headers {
				values = append(values, k, v)
			}
			values = append(values, cfg.Stream.Body, m.Body)
			if err := c.XAdd(ctx, &redis.XAddArgs{Stream: cfg.Stream.Name, Values: values}).Err(); err != nil {
				return err
			}
		}
		return nil
	}
	f.Fill = filler(c, cfg.Stream.Name, `redis.call('XADD', KEYS[1], '*', 'body', i)`)
	f.Dead = func(ctx context.Context) (out []queuetest.Sent, why []string, _ error) {
		entries, err := c.XRange(ctx, cfg.Dead, "-", "+").Result()
		for _, e := range entries {
			m := queuetest.Sent{Headers: map[string]string{}}
			for k, v := range e.Values {
				m.Headers[k] = fmt.Sprint(v)
			}
			m.Body = []byte(m.Headers[cfg.Stream.Body])
			out, why = append(out, m), append(why, m.Headers["muster-reason"])
		}
		return out, why, err
	}
}

func TestConformance(t *testing.T) {
	modes := map[string]func(n int) Config{
		"list": func(n int) Config {
			// Both ends, and keys with and without a hash tag.
			if n%2 == 0 {
				return Config{List: &List{Name: "agents"}}
			}
			return Config{List: &List{Name: "{fleet}:agents", Push: Right}}
		},
		"stream": func(n int) Config {
			return Config{Stream: &Stream{Name: "agents", Group: "muster", Shared: n%2 == 0}}
		},
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // on a server of its own; the suite mostly waits
			server := servers.StartRedis(t, "--requirepass", password)
			queuetest.RunSource(t, fixture(server, client(t, server.Address), mode))
		})
	}
}

// within waits until ok, at most 10 s.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func fails(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if err != nil && strings.Contains(err.Error(), password) {
		t.Errorf("%s: the error shows the password: %v", what, err)
	}
}
