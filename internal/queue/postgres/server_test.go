package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// TestServer is what the suite does not cover, on one server.
func TestServer(t *testing.T) {
	t.Parallel()
	keys := newAuthority(t)
	s := servers.StartPostgres(t, servers.PostgresSetup{
		Settings: []string{"ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key", "ssl_ca_file=ca.pem"},
		Files:    keys.server(t),
		HBA:      "hostssl all certified 127.0.0.1/32 cert\nhostssl all encrypted 127.0.0.1/32 scram-sha-256\nhostnossl all encrypted 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n",
	})
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *servers.Postgres)
	}{
		{"credentials", credentials},
		{"missing table", missingTable},
		{"dropped table", droppedTable},
		{"least privilege", leastPrivilege},
		{"counts stay exact", exactCounts},
		{"push", push},
		{"large bodies", largeBodies},
		{"bad SQL", badSQL},
		{"reading only", readingOnly},
		{"receipts of another queue", strangers},
		{"reasons", reasons},
		{"silent server", silentServer},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
	t.Run("TLS", func(t *testing.T) { encrypted(t, s, keys) })
}

func credentials(t *testing.T, s *servers.Postgres) {
	const wrong = "wr0ng-hunter2"
	var log bytes.Buffer
	var mine atomic.Value
	mine.Store(wrong)
	q := open(t, s, Config{
		Table: "credentials", Create: true, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Password: func(context.Context) (string, error) { return mine.Load().(string), nil },
	})
	_, err := q.Stats(t.Context())
	if !errors.Is(err, fleet.ErrDenied) || strings.Contains(err.Error(), wrong) {
		t.Errorf("wrong password: %v, want ErrDenied without it", err)
	}
	mine.Store(servers.PostgresPassword) // as a rotation would
	if _, err := q.Stats(t.Context()); err != nil {
		t.Errorf("after the password was put right: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), wrong) || strings.Contains(log.String(), servers.PostgresPassword) {
		t.Errorf("the log shows a password:\n%s", log.String())
	}
	q = open(t, s, Config{Table: "credentials", Password: connect.Env("MUSTER_TEST_NOT_SET")})
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "MUSTER_TEST_NOT_SET") {
		t.Errorf("no password: %v", err)
	}
	url := Config{URL: strings.Replace(s.URL(), "?", "?connect_timeout=3&", 1)}
	if _, err := New(t.Context(), url); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("password in the URL: %v", err)
	}
}

func missingTable(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "absent"})
	_, err := q.Stats(t.Context())
	if !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "CREATE TABLE") {
		t.Fatalf("a table that is missing: %v", err)
	}
	// What the error says is what helps.
	ddl, err := Definition("absent")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s, ddl)
	if st, err := q.Stats(t.Context()); err != nil || st.Backlog != 0 {
		t.Errorf("after it was created: %+v, %v", st, err)
	}
	// Many that create one at once.
	c := make(chan error)
	for range 4 {
		q := open(t, s, Config{Table: "raced", Create: true})
		go func() { _, err := q.Stats(t.Context()); c <- err }()
	}
	for range 4 {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	q = open(t, s, Config{Table: "nowhere.absent", Create: true})
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("no schema: %v", err)
	}
}

func droppedTable(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "dropped", Create: true})
	exec(t, s, `INSERT INTO dropped (body) VALUES ('x')`)
	m, err := q.Receive(t.Context(), 1, time.Minute)
	if err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
	exec(t, s, `DROP TABLE dropped, dropped_count; DROP FUNCTION dropped_counted`)
	// The clock may have made it again already; a reading is never of a table
	// that is not there.
	if st, err := q.Stats(t.Context()); err == nil && st.Arrived != 0 || err != nil && !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("of a dropped table: %+v, %v", st, err)
	}
	until(t, "the table is made again", func() bool {
		_, err := q.Stats(t.Context())
		return err == nil
	})
	if err := q.Ack(t.Context(), m[0]); !errors.Is(err, fleet.ErrFenced) {
		t.Errorf("ack in a new table: %v, want ErrFenced", err)
	}
}

// leastPrivilege: a producer may insert and no more; who may only read can read.
func leastPrivilege(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "guarded", Create: true})
	if _, err := q.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `CREATE ROLE producer LOGIN PASSWORD 'p'; GRANT INSERT (body, headers, priority, due_at) ON guarded TO producer;
		CREATE ROLE reader LOGIN PASSWORD 'p'; GRANT SELECT ON guarded, guarded_count TO reader`)
	exec(t, s, `SET ROLE producer; INSERT INTO guarded (body) VALUES ('x')`)
	if err := admin(t.Context(), s, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(t.Context(), `SET ROLE producer; DELETE FROM guarded_count`).ReadAll()
		return err
	}); err == nil {
		t.Error("a producer may change the count")
	}
	c := at(s, Config{Table: "guarded", Password: connect.Fixed("p")})
	c.User = "reader"
	r, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if st, err := r.Stats(t.Context()); err != nil || st.Backlog != 1 {
		t.Errorf("who may read: %+v, %v", st, err)
	}
	if _, err := r.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("who may only read receives: %v, want ErrDenied", err)
	}
}

// exactCounts compares what is kept with what is there, after statements of
// all kinds, by us and by others.
func exactCounts(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "counted", Create: true})
	if _, err := q.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		var kept, real string
		err := admin(t.Context(), s, func(c *pgx.Conn) error {
			return c.QueryRow(t.Context(), `SELECT
				(SELECT concat_ws(' ', sum(ready), sum(delayed), sum(leased), sum(dead)) FROM counted_count),
				(SELECT concat_ws(' ', count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'delayed'),
					count(*) FILTER (WHERE state = 'leased'), count(*) FILTER (WHERE state = 'dead')) FROM counted)`).Scan(&kept, &real)
		})
		if err != nil || kept != real {
			t.Errorf("%s: counted %q, there are %q (%v)", what, kept, real, err)
		}
	}
	for _, sql := range []string{
		`INSERT INTO counted (body, due_at) SELECT 'x', CASE WHEN i % 2 = 0 THEN now() + interval '1 hour' END FROM generate_series(1, 500) AS i`,
		`BEGIN; INSERT INTO counted (body) VALUES ('undone'); ROLLBACK`,
		`BEGIN; INSERT INTO counted (body) VALUES ('a'); SAVEPOINT p; INSERT INTO counted (body) VALUES ('b'); ROLLBACK TO p; COMMIT`,
		`UPDATE counted SET dead_at = now() WHERE id % 7 = 0`,
		`UPDATE counted SET due_at = NULL WHERE id % 8 = 0`,
		`DELETE FROM counted WHERE id % 5 = 0`,
		`DELETE FROM counted WHERE false`,
	} {
		exec(t, s, sql)
		same(sql)
	}
	m, err := q.Receive(t.Context(), 20, time.Minute)
	if err != nil || len(m) != 20 {
		t.Fatalf("received %d: %v", len(m), err)
	}
	same("lease")
	for i, x := range m {
		if err := []func() error{
			func() error { return q.Ack(t.Context(), x) },
			func() error { return q.Nack(t.Context(), x, 0) },
			func() error { return q.Nack(t.Context(), x, time.Minute) },
			func() error { return q.DeadLetter(t.Context(), x, "why") },
			func() error { _, err := q.Extend(t.Context(), x, time.Minute); return err },
		}[i%5](); err != nil {
			t.Error(err)
		}
	}
	same("settled")
	exec(t, s, strings.Repeat(`INSERT INTO counted (body) VALUES ('x');`, 200))
	until(t, "the count is folded", func() bool {
		var n int
		err := admin(t.Context(), s, func(c *pgx.Conn) error {
			return c.QueryRow(t.Context(), `SELECT count(*) FROM counted_count`).Scan(&n)
		})
		return err == nil && n <= 64
	})
	same("folded")
	exec(t, s, `TRUNCATE counted`)
	same("truncated")
	if st, err := q.Stats(t.Context()); err != nil || st.Backlog+st.Delayed+st.InFlight+st.Dead != 0 || st.Arrived != 701 {
		t.Errorf("of an emptied table: %+v, %v; want nothing, and 701 arrived", st, err)
	}
}

// until waits for what the background does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func drain(q *Source) {
	for {
		select {
		case <-q.Wake():
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

func woken(t *testing.T, q *Source, what string, within time.Duration) {
	t.Helper()
	select {
	case <-q.Wake():
	case <-time.After(within):
		t.Errorf("not woken within %s: %s", within, what)
	}
}

// push: for arrivals in milliseconds, for delays and leases that end, by
// another's too, and after the connection was lost.
func push(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "pushed", Create: true})
	if _, err := q.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	woken(t, q, "listening", 10*time.Second)
	var took []time.Duration
	err := admin(t.Context(), s, func(c *pgx.Conn) error {
		for range 20 {
			drain(q)
			start := time.Now()
			if _, err := c.Exec(t.Context(), `INSERT INTO pushed (body) VALUES ('x')`); err != nil {
				return err
			}
			woken(t, q, "arrival", 10*time.Second)
			took = append(took, time.Since(start))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("insert to wake: %v", took)
	exec(t, s, `DELETE FROM pushed`)
	drain(q)
	exec(t, s, `INSERT INTO pushed (body, due_at) VALUES ('later', now() + interval '1500 ms')`)
	drain(q) // an arrival that is not due wakes, too
	woken(t, q, "end of a delay", 10*time.Second)
	other := open(t, s, Config{Table: "pushed"})
	if m, err := other.Receive(t.Context(), 1, 1500*time.Millisecond); err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	drain(q)
	woken(t, q, "end of another's lease", 10*time.Second)
	drain(q)
	exec(t, s, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN "public.pushed"'`)
	woken(t, q, "reconnect", 10*time.Second)
	drain(q)
	exec(t, s, `INSERT INTO pushed (body) VALUES ('x')`)
	woken(t, q, "arrival after the reconnect", 10*time.Second)
}

// largeBodies: an answer is bounded, and one message comes in any case.
func largeBodies(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "large", Create: true})
	if _, err := q.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `INSERT INTO large (body) SELECT convert_to(repeat('x', 15000000), 'UTF8') FROM generate_series(1, 4)`)
	m, err := q.Receive(t.Context(), 4, time.Minute)
	if err != nil || len(m) != 3 || len(m[0].Body) != 15000000 {
		t.Fatalf("received %d: %v; want 3 of 15 MB", len(m), err)
	}
	if st, err := q.Stats(t.Context()); err != nil || st.InFlight != 3 || st.Backlog != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	err = admin(t.Context(), s, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `INSERT INTO large (body) VALUES (convert_to(repeat('x', 16777217), 'UTF8'))`)
		return err
	})
	if err == nil {
		t.Error("a body over 16 MiB was taken")
	}
}

// silentServer: a server that hangs fails every call in time, holds no Close
// up, and all is well once it goes on.
func silentServer(t *testing.T, s *servers.Postgres) {
	q, closing := open(t, s, Config{Table: "silent", Create: true}), open(t, s, Config{Table: "silent", Create: true})
	exec(t, s, `INSERT INTO silent (body) VALUES ('x')`)
	m, err := q.Receive(t.Context(), 1, time.Minute)
	if err != nil || len(m) != 1 {
		t.Fatal(m, err)
	}
	if _, err := closing.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	thaw := s.Freeze()
	defer thaw()
	c := make(chan error)
	calls := map[string]func() error{
		"stats":   func() error { _, err := q.Stats(t.Context()); return err },
		"receive": func() error { _, err := q.Receive(t.Context(), 1, time.Minute); return err },
		"extend":  func() error { _, err := q.Extend(t.Context(), m[0], time.Minute); return err },
		"nack":    func() error { return q.Nack(t.Context(), m[0], time.Minute) },
	}
	start := time.Now()
	for name, call := range calls {
		go func() {
			if err := call(); !errors.Is(err, fleet.ErrUnavailable) {
				c <- fmt.Errorf("%s: %w, want ErrUnavailable", name, err)
				return
			}
			c <- nil
		}()
	}
	inFlight := make(chan error)
	go func() { inFlight <- errOf(closing.Stats(t.Context())) }()
	time.Sleep(100 * time.Millisecond) // so that it is in flight
	if err := closing.Close(); err != nil || time.Since(start) > 4*time.Second {
		t.Errorf("close took %s (%v)", time.Since(start), err)
	}
	if err := <-inFlight; !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a call in flight at Close: %v, want ErrUnavailable", err)
	}
	for range calls {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > 7*time.Second {
		t.Errorf("calls took %s, want 5 s or less", took)
	}
	thaw()
	until(t, "it answers again", func() bool {
		_, err := q.Stats(t.Context())
		return err == nil
	})
	if _, err := q.Extend(t.Context(), m[0], time.Minute); err != nil && !errors.Is(err, fleet.ErrFenced) {
		// ErrFenced: the nack may have reached the server before it hung.
		t.Errorf("extend afterwards: %v", err)
	}
}

func errOf(_ fleet.SignalStats, err error) error { return err }
