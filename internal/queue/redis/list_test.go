package redis

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestList(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	c := client(t, server.Address)
	cfg := Config{Addresses: []string{server.Address}, List: &List{Name: "q"}}
	parts := map[string]func(t *testing.T, s *Source){
		"oldest first, what came back before it": func(t *testing.T, s *Source) {
			do(t, c, "LPUSH", "q", "1", "2", "3")
			first := take(t, s, time.Minute)
			second := take(t, s, time.Minute)
			for _, m := range []fleet.Message{second, first} {
				if err := s.Nack(t.Context(), m, 0); err != nil {
					t.Fatal(err)
				}
			}
			got := ""
			for range 3 {
				got += string(take(t, s, time.Minute).Body)
			}
			if got != "213" {
				t.Errorf("received %s, want 213", got)
			}
		},
		"many at once": func(t *testing.T, s *Source) {
			bodies := make([]any, 2*chunk+7)
			for i := range bodies {
				bodies[i] = fmt.Sprint(i)
			}
			do(t, c, append([]any{"LPUSH", "q"}, bodies...)...)
			m, err := s.Receive(t.Context(), 1000, time.Minute)
			if err != nil || len(m) != len(bodies) {
				t.Fatalf("received %d, %v; want %d", len(m), err, len(bodies))
			}
			receipts := map[string]bool{}
			for i, x := range m {
				receipts[x.Receipt] = true
				if string(x.Body) != bodies[i] {
					t.Fatalf("number %d is %s", i, x.Body)
				}
			}
			if len(receipts) != len(bodies) {
				t.Errorf("%d receipts for %d messages", len(receipts), len(bodies))
			}
		},
		"large bodies": func(t *testing.T, s *Source) {
			large := bytes.Repeat([]byte("x"), chunkBytes)
			for range 10 {
				do(t, c, "LPUSH", "q", large)
			}
			n := 0
			receive := func() {
				m, err := s.Receive(t.Context(), 100, time.Minute)
				if err != nil || len(m) > mostBytes/chunkBytes {
					t.Errorf("received %d, %v", len(m), err)
				}
				n += len(m)
			}
			woken(t, s, receive) // the rest is not forgotten
			for range 10 {
				receive()
			}
			if n != 10 {
				t.Errorf("received %d, want 10", n)
			}
		},
		"dead letters": func(t *testing.T, s *Source) {
			do(t, c, "LPUSH", "q", "bad", "worse")
			if err := s.DeadLetter(t.Context(), take(t, s, time.Minute), "line \"1\"\xff"); err != nil {
				t.Fatal(err)
			}
			var why struct {
				Reason, ID string
				Attempts   int
				At         int64
			}
			if err := json.Unmarshal([]byte(c.HGet(t.Context(), "{q}:muster:why", sha(t.Context(), c, "bad")).Val()), &why); err != nil {
				t.Fatal(err)
			}
			if why.Reason != `line "1"` || why.ID == "" || why.Attempts != 1 || time.Since(time.UnixMilli(why.At)).Abs() > time.Minute {
				t.Errorf("kept %+v", why)
			}
			// Somebody puts it back: its reason goes with the next one.
			do(t, c, "LMOVE", "q:dead", "q", "RIGHT", "LEFT")
			if err := s.DeadLetter(t.Context(), take(t, s, time.Minute), "2"); err != nil {
				t.Fatal(err)
			}
			if n := c.HLen(t.Context(), "{q}:muster:why").Val(); n != 1 {
				t.Errorf("%d reasons are kept, want 1", n)
			}
		},
		"nothing is left behind": func(t *testing.T, s *Source) {
			do(t, c, "LPUSH", "q", "a")
			if err := s.Ack(t.Context(), take(t, s, time.Minute)); err != nil {
				t.Fatal(err)
			}
			if keys := c.Keys(t.Context(), "*").Val(); len(keys) != 1 || keys[0] != "{q}:muster:counts" {
				t.Errorf("left: %v", keys)
			}
		},
		"another type": func(t *testing.T, s *Source) {
			do(t, c, "SET", "q", "x")
			_, err := s.Stats(t.Context())
			fails(t, "stats", err, fleet.ErrInvalid)
			_, err = s.Receive(t.Context(), 1, time.Minute)
			fails(t, "receive", err, fleet.ErrInvalid)
		},
		"bad receipts": func(t *testing.T, s *Source) {
			for _, r := range []string{"", "x", " ", "a b c"} {
				fails(t, r, s.Ack(t.Context(), fleet.Message{Receipt: r}), fleet.ErrInvalid)
			}
			fails(t, "unknown", s.Ack(t.Context(), fleet.Message{Receipt: "a b"}), fleet.ErrFenced)
		},
		"out of memory": func(t *testing.T, s *Source) {
			do(t, c, "LPUSH", "q", "a", "b")
			m := take(t, s, time.Minute)
			do(t, c, "CONFIG", "SET", "maxmemory", "1")
			defer do(t, c, "CONFIG", "SET", "maxmemory", "0")
			_, err := s.Receive(t.Context(), 1, time.Minute)
			fails(t, "receive", err, fleet.ErrUnavailable)
			if st, err := s.Stats(t.Context()); err != nil || st.Backlog != 1 || st.InFlight != 1 {
				t.Errorf("%+v, %v", st, err)
			}
			if err := s.Ack(t.Context(), m); err != nil { // it frees memory
				t.Errorf("ack: %v", err)
			}
		},
	}
	for name, run := range parts {
		t.Run(name, func(t *testing.T) {
			if err := c.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			s := open(t, cfg)
			defer s.Close()
			run(t, s)
		})
	}
}
