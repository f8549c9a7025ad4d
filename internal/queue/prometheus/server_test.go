package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0penSesame"

// target is what a Prometheus scrapes.
type target struct {
	n   atomic.Int64
	old atomic.Int64 // seconds that a sample with a time of its own is old
	at  string
}

func newTarget(t *testing.T) *target {
	g := &target{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := g.n.Load()
		fmt.Fprintf(w, "queue_length{queue=\"a\"} %d\nqueue_length{queue=\"b\"} 0\nqueue_busy 2\nqueue_age_seconds 30\nqueue_enqueued_total %d\n", n, 10*n)
		fmt.Fprintf(w, "queue_pushed %d %d\n", n, time.Now().Add(-time.Duration(g.old.Load())*time.Second).UnixMilli())
	}))
	t.Cleanup(s.Close)
	g.at = s.Listener.Addr().String()
	return g
}

func start(t *testing.T, g *target) *servers.PrometheusServer {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return servers.Prometheus(t, g.at, "basic_auth_users: {muster: "+string(hash)+"}\n", secret)
}

func TestConformance(t *testing.T) {
	g := newTarget(t)
	p := start(t, g)
	queuetest.RunSignal(t, func(t *testing.T) queuetest.Measured {
		gate := queuetest.NewGate(t, p.Address)
		return queuetest.Measured{
			Gate: gate, Secret: secret, Set: g.n.Store,
			Open: func(t *testing.T, credential func(context.Context) (string, error)) fleet.Signal {
				s, err := New(t.Context(), Config{
					URL: "http://" + gate.Address, Username: "muster", Password: credential,
					Backlog: "sum(queue_length)", InFlight: "queue_busy", Oldest: "max(queue_age_seconds)",
				})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
		}
	})
}

// TestServer asks a real Prometheus what the documentation says of it.
func TestServer(t *testing.T) {
	g := newTarget(t)
	g.n.Store(4)
	g.old.Store(90) // from the beginning: a series takes no sample older than its last
	p := start(t, g)
	base := Config{URL: "http://" + p.Address + "/", Username: "muster", Password: connect.Fixed(secret), Backlog: `queue_length{queue="a"}`}
	wait := func(c Config, ok func(fleet.SignalStats, error) bool) (fleet.SignalStats, error) {
		t.Helper()
		s, err := New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			st, err := s.Stats(t.Context())
			if ok(st, err) || time.Now().After(end) {
				return st, err
			}
		}
	}
	read := func(st fleet.SignalStats, err error) bool { return err == nil }
	if st, err := wait(base, read); err != nil || st.Backlog != 4 {
		t.Fatalf("read %+v, %v", st, err)
	}
	t.Run("all figures", func(t *testing.T) {
		c := base
		c.InFlight, c.Delayed, c.Dead, c.Arrived, c.Oldest = "queue_busy", "scalar(queue_busy) - 1", "vector(0.5)", "queue_enqueued_total", "queue_age_seconds"
		c.AsOf = "min(timestamp(queue_length))"
		st, err := wait(c, read)
		if err != nil || st.Backlog != 4 || st.InFlight != 2 || st.Delayed != 1 || st.Dead != 1 || st.Arrived != 40 || st.AsOf.Sub(st.Oldest) != 30*time.Second {
			t.Errorf("read %+v, %v", st, err)
		}
	})
	t.Run("long query", func(t *testing.T) {
		c := base
		c.Backlog = "queue_busy" + strings.Repeat(" + 0*queue_busy", 600)
		if st, err := wait(c, read); err != nil || st.Backlog != 2 {
			t.Errorf("read %+v, %v", st, err)
		}
	})
	t.Run("wrong queries", func(t *testing.T) {
		for query, want := range map[string]error{
			"sum(": fleet.ErrInvalid, "queue_length": fleet.ErrUnavailable, "nothing_like_it": fleet.ErrUnavailable, "queue_length[5m]": fleet.ErrUnavailable,
			`"text"`: fleet.ErrUnavailable, "queue_busy / 0": fleet.ErrUnavailable, "0 * queue_busy / 0": fleet.ErrUnavailable, "-queue_busy": fleet.ErrUnavailable,
			"time() - queue_busy": nil,
		} {
			c := base
			c.Backlog = query
			_, err := wait(c, func(fleet.SignalStats, error) bool { return true })
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", query, err, want)
			}
		}
	})
	t.Run("empty is zero where asked for", func(t *testing.T) {
		c := base
		c.Backlog, c.EmptyIsZero = "nothing_like_it", true
		if st, err := wait(c, read); err != nil || st.Backlog != 0 || time.Since(st.AsOf) > time.Minute {
			t.Errorf("read %+v, %v", st, err)
		}
	})
	t.Run("stale", func(t *testing.T) {
		c := base
		c.Backlog, c.AsOf, c.StaleAfter = "sum(queue_pushed)", "min(timestamp(queue_pushed))", 4*time.Minute
		st, err := wait(c, func(st fleet.SignalStats, err error) bool { return err == nil && time.Since(st.AsOf) > time.Minute })
		if err != nil || st.Backlog != 4 || time.Since(st.AsOf) < time.Minute {
			t.Fatalf("read %+v, %v", st, err)
		}
		c.StaleAfter = 30 * time.Second
		if st, err = wait(c, func(fleet.SignalStats, error) bool { return true }); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("with asOf: %+v, %v", st, err)
		}
	})
}
