package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// woken drains what is pending, acts, and tells how long it took until the
// reader was woken.
func woken(t testing.TB, s *Source, act func()) time.Duration {
	t.Helper()
	for quiet := false; !quiet; {
		select {
		case <-s.Wake():
		case <-time.After(100 * time.Millisecond):
			quiet = true
		}
	}
	start := time.Now()
	act()
	select {
	case <-s.Wake():
		return time.Since(start)
	case <-time.After(10 * time.Second):
		t.Fatal("not woken in 10 s")
		return 0
	}
}

func both(t *testing.T, address string, run func(t *testing.T, c Config)) {
	for _, c := range []Config{{List: &List{Name: "{a}gents"}}, {Stream: &Stream{Name: "agents"}}} {
		c.Addresses = []string{address}
		t.Run(c.source(), func(t *testing.T) { run(t, c) })
	}
}

// push sends a message as a producer of either kind would.
func push(t testing.TB, c Config, body string) {
	t.Helper()
	r := client(t, c.Addresses[0])
	var err error
	if c.List != nil {
		err = r.LPush(context.Background(), c.List.Name, body).Err()
	} else {
		err = r.Do(context.Background(), "XADD", c.Stream.Name, "*", "body", body).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func take(t testing.TB, s *Source, visibility time.Duration) fleet.Message {
	t.Helper()
	m, err := s.Receive(context.Background(), 1, visibility)
	if err != nil || len(m) != 1 {
		t.Fatalf("received %v, %v", m, err)
	}
	return m[0]
}

func TestWake(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	both(t, server.Address, func(t *testing.T, c Config) {
		s, other := open(t, c), open(t, c)
		defer s.Close()
		defer other.Close()
		within(t, "the server tells of changes", s.pushed.Load)
		// Also behind a backlog that nobody takes from.
		for i := range 3 {
			if d := woken(t, s, func() { push(t, c, fmt.Sprint(i)) }); d > eager/2 {
				t.Logf("arrival %d: woken after %s", i, d)
			}
		}
		m := take(t, other, time.Minute)
		woken(t, s, func() { _ = other.Nack(t.Context(), m, 0) })
		m = take(t, other, time.Minute)
		if d := woken(t, s, func() { _ = other.Nack(t.Context(), m, 500*time.Millisecond) }); d < 500*time.Millisecond || d > 2*time.Second {
			t.Errorf("delayed by half a second: woken after %s", d)
		}
		// Of a consumer that is gone.
		take(t, other, time.Second)
		other.Close()
		if d := woken(t, s, func() {}); d > 3*time.Second {
			t.Errorf("after the end of a lease of 1 s: woken after %s", d)
		}
		if st, err := s.Stats(t.Context()); err != nil || st.Backlog != 3 || st.InFlight != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// A server that does not tell is looked at.
func TestWakeWithoutTracking(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, "--user", "default", "on", "nopass", "~*", "+@all", "-client|tracking")
	both(t, server.Address, func(t *testing.T, c Config) {
		s := open(t, c)
		defer s.Close()
		if d := woken(t, s, func() { push(t, c, "x") }); d > time.Second || s.pushed.Load() {
			t.Errorf("woken after %s; told of changes: %t", d, s.pushed.Load())
		}
	})
}

func TestFlushed(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	both(t, server.Address, func(t *testing.T, c Config) {
		s := open(t, c)
		defer s.Close()
		push(t, c, "one")
		m := take(t, s, time.Minute)
		if err := client(t, server.Address).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		fails(t, "ack of what is gone", s.Ack(t.Context(), m), fleet.ErrFenced)
		woken(t, s, func() { push(t, c, "two") })
		within(t, "the next message comes", func() bool {
			m, err := s.Receive(t.Context(), 1, time.Minute)
			return err == nil && len(m) == 1 && string(m[0].Body) == "two"
		})
	})
}

// A server that hangs is not waited for, and is used again when it goes on.
func TestFrozen(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	both(t, server.Address, func(t *testing.T, c Config) {
		s := open(t, c)
		defer s.Close()
		push(t, c, "one")
		m := take(t, s, time.Minute)
		thaw := server.Freeze()
		defer thaw()
		start := time.Now()
		_, err := s.Stats(t.Context())
		fails(t, "stats", err, fleet.ErrUnavailable)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("stats took %s", d)
		}
		closed := make(chan error)
		hung := open(t, c)
		go func() { _, err := hung.Stats(context.Background()); closed <- err }()
		within(t, "a call is on its way", func() bool { hung.mu.Lock(); defer hung.mu.Unlock(); return hung.pool != nil })
		start = time.Now()
		if err := hung.Close(); err != nil {
			t.Error(err)
		}
		fails(t, "a call while closing", <-closed, fleet.ErrUnavailable)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("close took %s", d)
		}
		thaw()
		within(t, "ack works again", func() bool { return s.Ack(t.Context(), m) == nil })
	})
}

// Whatever the server was doing when it was killed, no message is lost.
func TestKilled(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	both(t, server.Address, func(t *testing.T, c Config) {
		const messages = 300
		for i := range messages {
			push(t, c, fmt.Sprint(i))
		}
		s := open(t, c)
		defer s.Close()
		done := map[string]bool{}
		work := func() error {
			m, err := s.Receive(t.Context(), 7, 2*time.Second)
			for i, x := range m {
				switch {
				case i == 0: // left until its lease ends
				case i == 1:
					err = errors.Join(err, s.Nack(t.Context(), x, 50*time.Millisecond))
				case s.Ack(t.Context(), x) == nil:
					done[string(x.Body)] = true
				}
			}
			return err
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			server.Kill()
			server.Process.Start()
		}()
		for over := false; !over; {
			_ = work() // fails while the server is away
			select {
			case <-killed:
				over = true
			default:
			}
		}
		within(t, "all messages are worked off", func() bool {
			m, _ := s.Receive(t.Context(), 10, 2*time.Second)
			for _, x := range m {
				if err := s.Ack(t.Context(), x); err == nil {
					done[string(x.Body)] = true
				}
			}
			st, err := s.Stats(t.Context())
			return err == nil && st.Backlog+st.Delayed+st.InFlight == 0
		})
		// An ack whose answer was lost was one, too.
		if n := len(done); n < messages-2 {
			t.Errorf("%d of %d messages were worked off", n, messages)
		}
	})
}

func BenchmarkWake(b *testing.B) {
	server := servers.StartRedis(b)
	c := Config{Addresses: []string{server.Address}, List: &List{Name: "agents"}}
	s := open(b, c)
	defer s.Close()
	r := client(b, server.Address)
	for !s.pushed.Load() {
		time.Sleep(time.Millisecond)
	}
	for b.Loop() {
		b.StopTimer()
		time.Sleep(2 * spacing)
		select {
		case <-s.Wake():
		default:
		}
		b.StartTimer()
		if err := r.LPush(context.Background(), "agents", "x").Err(); err != nil {
			b.Fatal(err)
		}
		<-s.Wake()
	}
}
