package redis

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// each runs parts that need a stream of their own on one server.
func each(t *testing.T, shared bool, parts map[string]func(t *testing.T, s *Source, c *redis.Client)) {
	server := servers.StartRedis(t)
	c := client(t, server.Address)
	for name, run := range parts {
		t.Run(name, func(t *testing.T) {
			if err := c.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			s := open(t, Config{Addresses: []string{server.Address}, Stream: &Stream{Name: "q", Shared: shared}})
			defer s.Close()
			run(t, s, c)
		})
	}
}

func add(t *testing.T, c *redis.Client, body string) string {
	t.Helper()
	id, err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: "q", Values: []any{"body", body}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func do(t *testing.T, c *redis.Client, args ...any) any {
	t.Helper()
	v, err := c.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

func backlog(t *testing.T, s *Source, want, inFlight int64) {
	t.Helper()
	if st, err := s.Stats(t.Context()); err != nil || st.Backlog != want || st.InFlight != inFlight {
		t.Errorf("%+v, %v; want a backlog of %d and %d in flight", st, err, want, inFlight)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	each(t, false, map[string]func(t *testing.T, s *Source, c *redis.Client){
		"lag unknown": func(t *testing.T, s *Source, c *redis.Client) {
			backlog(t, s, 0, 0)
			add(t, c, "1")
			middle := add(t, c, "2")
			add(t, c, "3")
			take(t, s, time.Minute)
			do(t, c, "XDEL", "q", middle)
			groups, err := c.XInfoGroups(t.Context(), "q").Result()
			t.Logf("the server's lag: %+v, %v", groups, err)
			backlog(t, s, 1, 1)
		},
		"trimmed before it was read": func(t *testing.T, s *Source, c *redis.Client) {
			for range 5 {
				add(t, c, "x")
			}
			backlog(t, s, 5, 0)
			do(t, c, "XTRIM", "q", "MAXLEN", 2)
			backlog(t, s, 2, 0)
			do(t, c, "XTRIM", "q", "MAXLEN", 0)
			backlog(t, s, 0, 0)
		},
		"trimmed while worked on": func(t *testing.T, s *Source, c *redis.Client) {
			add(t, c, "a")
			add(t, c, "b")
			a, b := take(t, s, time.Minute), take(t, s, time.Minute)
			do(t, c, "XTRIM", "q", "MAXLEN", 0)
			for range 2 {
				if _, err := s.Extend(t.Context(), a, time.Minute); err != nil {
					t.Errorf("extend: %v", err)
				}
			}
			backlog(t, s, 0, 2)
			if err := s.Ack(t.Context(), a); err != nil {
				t.Errorf("ack: %v", err)
			}
			if err := s.DeadLetter(t.Context(), b, "why"); err != nil {
				t.Errorf("dead-letter: %v", err)
			}
			if dead, err := c.XRange(t.Context(), "q:dead", "-", "+").Result(); err != nil || len(dead) != 1 || dead[0].Values["body"] != "b" {
				t.Errorf("set aside: %v, %v", dead, err)
			}
			backlog(t, s, 0, 0)
		},
		"trimmed after it came back": func(t *testing.T, s *Source, c *redis.Client) {
			add(t, c, "a")
			if err := s.Nack(t.Context(), take(t, s, time.Minute), 0); err != nil {
				t.Fatal(err)
			}
			do(t, c, "XTRIM", "q", "MAXLEN", 0)
			if m, err := s.Receive(t.Context(), 1, time.Minute); err != nil || len(m) != 0 {
				t.Errorf("received %v, %v", m, err)
			}
			backlog(t, s, 0, 0)
		},
		"deleted while in use": func(t *testing.T, s *Source, c *redis.Client) {
			add(t, c, "a")
			m := take(t, s, time.Minute)
			do(t, c, "DEL", "q")
			if err := s.Ack(t.Context(), m); err != nil { // the work was done
				t.Errorf("ack: %v", err)
			}
			add(t, c, "b")
			backlog(t, s, 1, 0)
			if m := take(t, s, time.Minute); string(m.Body) != "b" {
				t.Errorf("received %s", m.Body)
			}
		},
		"claimed by a stranger": func(t *testing.T, s *Source, c *redis.Client) {
			id := add(t, c, "a")
			m := take(t, s, time.Minute)
			do(t, c, "XCLAIM", "q", "muster", "stranger", 0, id)
			_, err := s.Extend(t.Context(), m, time.Minute)
			fails(t, "extend", err, fleet.ErrFenced)
			fails(t, "ack", s.Ack(t.Context(), m), fleet.ErrFenced)
		},
		"left by a stranger": func(t *testing.T, s *Source, c *redis.Client) {
			backlog(t, s, 0, 0)
			id := add(t, c, "a")
			do(t, c, "XREADGROUP", "GROUP", "muster", "stranger", "STREAMS", "q", ">")
			backlog(t, s, 0, 1)
			adopt := func() {
				if _, err := s.run(t.Context(), "adopt", s.scripts.adopt, time.Hour.Milliseconds(), "-"); err != nil {
					t.Fatal(err)
				}
			}
			adopt()
			backlog(t, s, 0, 1)
			do(t, c, "XCLAIM", "q", "muster", "stranger", 0, id, "IDLE", (2 * time.Hour).Milliseconds(), "JUSTID")
			adopt()
			adopt()
			backlog(t, s, 1, 0)
			if m := take(t, s, time.Minute); m.Attempt != 2 || m.ID != id {
				t.Errorf("received %+v", m)
			}
		},
		"IDs that are no times": func(t *testing.T, s *Source, c *redis.Client) {
			do(t, c, "XADD", "q", "1-1", "task", "a")
			backlog(t, s, 1, 0)
			if st, err := s.Stats(t.Context()); err != nil || !st.Oldest.IsZero() {
				t.Errorf("oldest %s, %v", st.Oldest, err)
			}
			m := take(t, s, time.Minute)
			if m.ID != "1-1" || !m.At.IsZero() || len(m.Body) != 0 || m.Headers["task"] != "a" {
				t.Errorf("received %+v", m)
			}
		},
	})
}

func TestSharedStream(t *testing.T) {
	t.Parallel()
	each(t, true, map[string]func(t *testing.T, s *Source, c *redis.Client){
		"others read it too": func(t *testing.T, s *Source, c *redis.Client) {
			do(t, c, "XGROUP", "CREATE", "q", "audit", "0", "MKSTREAM")
			add(t, c, "a")
			add(t, c, "b")
			a, b := take(t, s, time.Minute), take(t, s, time.Minute)
			if err := s.Ack(t.Context(), a); err != nil {
				t.Error(err)
			}
			if err := s.DeadLetter(t.Context(), b, "why"); err != nil {
				t.Error(err)
			}
			if n := c.XLen(t.Context(), "q").Val(); n != 2 {
				t.Errorf("%d entries are left, want 2", n)
			}
			backlog(t, s, 0, 0)
		},
		"the last entry was deleted": func(t *testing.T, s *Source, c *redis.Client) {
			add(t, c, "a")
			last := add(t, c, "b")
			m := take(t, s, time.Minute)
			do(t, c, "XDEL", "q", last)
			backlog(t, s, 0, 1)
			if err := s.Ack(t.Context(), m); err != nil {
				t.Error(err)
			}
			backlog(t, s, 0, 0)
		},
	})
}
