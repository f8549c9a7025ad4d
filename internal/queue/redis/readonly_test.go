package redis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// kept is all that the server holds: every key with its content, and the groups
// of the stream.
func kept(t *testing.T, c *redis.Client) string {
	t.Helper()
	keys := c.Keys(t.Context(), "*").Val()
	slices.Sort(keys)
	out := ""
	for _, k := range keys {
		out += fmt.Sprintf("%s %q\n", k, c.Dump(t.Context(), k).Val())
	}
	return out + fmt.Sprint(c.XInfoGroups(t.Context(), "q").Val())
}

// dirty counts the writes that the server ever did.
func dirty(t *testing.T, c *redis.Client) string {
	t.Helper()
	return c.InfoMap(t.Context(), "persistence").Val()["Persistence"]["rdb_changes_since_last_save"]
}

func refuses(t *testing.T, s *Source) {
	t.Helper()
	_, err := s.Receive(t.Context(), 1, time.Minute)
	fails(t, "receive", err, fleet.ErrInvalid)
	_, err = s.Extend(t.Context(), fleet.Message{}, time.Minute)
	fails(t, "extend", err, fleet.ErrInvalid)
	fails(t, "ack", s.Ack(t.Context(), fleet.Message{}), fleet.ErrInvalid)
	fails(t, "nack", s.Nack(t.Context(), fleet.Message{}, 0), fleet.ErrInvalid)
	fails(t, "dead-letter", s.DeadLetter(t.Context(), fleet.Message{}, "no"), fleet.ErrInvalid)
}

// idle reads for longer than the looks are apart: nothing may change.
func idle(t *testing.T, c *redis.Client, s *Source, what string, waiting, inFlight int64) {
	t.Helper()
	before, writes := kept(t, c), dirty(t, c)
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		backlog(t, s, waiting, inFlight)
	}
	if after := kept(t, c); after != before {
		t.Errorf("%s:\n%s\nbecame\n%s", what, before, after)
	}
	if now := dirty(t, c); now != writes {
		t.Errorf("%s: %s writes, want %s", what, now, writes)
	}
}

func TestReadOnlyList(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	c := client(t, server.Address)
	s := open(t, Config{Addresses: []string{server.Address}, List: &List{Name: "q"}, ReadOnly: true})
	defer s.Close()
	idle(t, c, s, "nothing is there", 0, 0)
	woken(t, s, func() { do(t, c, "LPUSH", "q", "1", "2", "3") })
	idle(t, c, s, "all wait", 3, 0)
	do(t, c, "BRPOP", "q", "1")
	idle(t, c, s, "a worker took one", 2, 0)
	do(t, c, "RPOP", "q", "2")
	idle(t, c, s, "all are taken", 0, 0)
	if tr := s.Traits(); tr.InFlight || tr.Arrived || tr.Delayed || tr.Dead || tr.Oldest || !tr.Push {
		t.Errorf("traits %+v", tr)
	}
	refuses(t, s)
}

func TestReadOnlyStream(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	c := client(t, server.Address)
	s := open(t, Config{Addresses: []string{server.Address}, Stream: &Stream{Name: "q", Group: "team"}, ReadOnly: true})
	defer s.Close()
	missing := func(what string) {
		t.Helper()
		before, writes := kept(t, c), dirty(t, c)
		for range 3 {
			_, err := s.Stats(t.Context())
			fails(t, what, err, fleet.ErrNotFound)
		}
		if after := kept(t, c); after != before || dirty(t, c) != writes {
			t.Errorf("%s:\n%s\nbecame\n%s", what, before, after)
		}
	}
	missing("no stream")
	for i := range 3 {
		do(t, c, "XADD", "q", "*", "body", i)
	}
	missing("no group")
	do(t, c, "XGROUP", "CREATE", "q", "team", "0")
	idle(t, c, s, "all wait", 3, 0)
	if st, err := s.Stats(t.Context()); err != nil || st.Arrived != 3 || time.Since(st.Oldest).Abs() > time.Minute {
		t.Errorf("%+v, %v", st, err)
	}
	got, err := c.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "team", Consumer: "worker", Streams: []string{"q", ">"}, Count: 2}).Result()
	if err != nil || len(got[0].Messages) != 2 {
		t.Fatal(got, err)
	}
	idle(t, c, s, "a worker has two", 1, 2)
	do(t, c, "XACK", "q", "team", got[0].Messages[0].ID)
	idle(t, c, s, "one is done", 1, 1)
	woken(t, s, func() { do(t, c, "XADD", "q", "*", "body", 4) })
	idle(t, c, s, "another came", 2, 1)
	if tr := s.Traits(); !tr.InFlight || !tr.Arrived || tr.Delayed || tr.Dead || !tr.Oldest || !tr.Push {
		t.Errorf("traits %+v", tr)
	}
	refuses(t, s)
}
