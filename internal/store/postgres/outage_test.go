package postgres

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// journalBuffer is a log that may be written while it is read.
type journalBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journalBuffer) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journalBuffer) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// everything calls what reads and what writes.
func everything(ctx context.Context, db *DB) map[string]func() error {
	return map[string]func() error{
		"ping":     func() error { return db.Ping(ctx) },
		"submit":   func() error { _, err := db.Submit(ctx, []fleet.Task{task("p", "x")}); return err },
		"stats":    func() error { _, err := db.Queue().Stats(ctx); return err },
		"tasks":    func() error { _, err := db.Tasks(ctx, fleet.TaskFilter{}); return err },
		"events":   func() error { _, err := db.AppendEvents(ctx, []fleet.Event{{Kind: "x"}}); return err },
		"decision": func() error { _, err := db.AppendDecision(ctx, fleet.DecisionRecord{Changed: true}, nil); return err },
		"lease": func() error {
			_, err := db.Queue().Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"none": 1}, Visibility: time.Minute})
			return err
		},
		"lead": func() error { _, err := db.Lead(ctx); return err },
	}
}

func TestOutages(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	var log journalBuffer
	db := open(t, s, Options{Patience: 2 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
	listening(t, db)
	submit(t, db, task("p", "x"))

	s.Kill()
	down(t, db, 3*time.Second)
	if _, err := Open(t.Context(), s.URL(), Options{Patience: time.Second}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("open without a server: %v", err)
	}
	s.Start()
	up(t, db)
	if st := statsOf(t, db); st.Backlog < 1 {
		t.Errorf("after a crash of the server: %+v", st)
	}
	recount(t, db)
	other := open(t, s, Options{})
	heard(t, db, other)

	thaw := s.Freeze()
	down(t, db, 6*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := db.Tasks(ctx, fleet.TaskFilter{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("the caller's deadline: %v after %s", err, time.Since(start))
	}
	thaw()
	up(t, db)
	heard(t, db, other)
	recount(t, db)

	thaw = s.Freeze()
	defer thaw()
	start = time.Now()
	if err := db.Close(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("close on a server that does not answer: %v after %s", err, time.Since(start))
	}
	thaw()
	if text := log.String(); strings.Contains(text, "s3cr3t") || !strings.Contains(text, "push from PostgreSQL is lost") || !strings.Contains(text, "is back") {
		t.Errorf("the log:\n%s", text)
	}
}

// down checks that all fails as it should, in time, at once.
func down(t *testing.T, db *DB, most time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	for name, call := range everything(context.Background(), db) {
		wg.Go(func() {
			start := time.Now()
			err := call()
			if !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("%s without a server: %v", name, err)
			}
			if took := time.Since(start); took > most {
				t.Errorf("%s failed after %s only", name, took)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%s shows the password: %v", name, err)
			}
		})
	}
	wg.Wait()
}

// up checks that all works, at the latest after some seconds.
func up(t *testing.T, db *DB) {
	t.Helper()
	for name, call := range everything(context.Background(), db) {
		var err error
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
			if err = call(); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("%s after the server came back: %v", name, err)
		}
	}
}

// heard checks that one store hears of what the other does.
func heard(t *testing.T, db, other *DB) {
	t.Helper()
	drain(db.Queue().Wake())
	for range 20 {
		if _, err := other.Submit(context.Background(), []fleet.Task{task("p", "y")}); err == nil {
			break
		}
	}
	if !within(db.Queue().Wake(), 15*time.Second) {
		t.Error("another's submission is not heard of")
	}
}

// TestFewConnections: the pool is bounded, and so is what the server gives.
func TestFewConnections(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{Settings: []string{"max_connections=12", "superuser_reserved_connections=3"}})
	db := open(t, s, Options{Connections: 3})
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			for range 5 {
				submit(t, db, task("p", "x"))
				statsOf(t, db)
			}
		})
	}
	wg.Wait()
	if n := query[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'muster' AND backend_type = 'client backend'"); n > 5 {
		t.Errorf("%d connections", n) // three, one that listens, and this one
	}
}

func TestBadDSN(t *testing.T) {
	for _, dsn := range []string{"postgres://muster:s3cr3t@host:port/db", "mysql://muster:s3cr3t@h/db", "host=x password=s3cr3t sslmode=maybe", "postgres://u:s3cr3t@h/db?sslmode=verify-full&sslrootcert=/does/not/exist"} {
		_, err := Open(t.Context(), dsn, Options{})
		var field *fleet.FieldError
		if !errors.As(err, &field) || strings.Contains(err.Error(), "s3cr3t") || field.Right == "" {
			t.Errorf("%v", err)
		}
	}
	for _, o := range []Options{{Schema: "Upper"}, {Schema: "pg_x"}, {Schema: "a;b"}, {Schema: strings.Repeat("x", 49)}, {Connections: 1000}, {Patience: time.Nanosecond}} {
		_, err := Open(t.Context(), "postgres://h/db", o)
		var field *fleet.FieldError
		if !errors.As(err, &field) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
