package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// A queue that others work off: the readings follow, nothing changes.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	ask := func(sql string) (out string) {
		t.Helper()
		if err := admin(t.Context(), s, func(c *pgx.Conn) error { return c.QueryRow(t.Context(), sql).Scan(&out) }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	q := open(t, s, Config{Table: "jobs", Create: true, ReadOnly: true})
	for range 2 {
		if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("no table: %v", err)
		}
	}
	time.Sleep(1500 * time.Millisecond) // a clock would tick by then
	if n := ask(`SELECT count(*)::text FROM pg_class WHERE relname LIKE 'jobs%'`); n != "0" {
		t.Fatalf("%s tables were made", n)
	}
	ddl, err := Definition("jobs")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s, ddl)
	// Much to fold, and a lease that ended.
	exec(t, s, strings.Repeat(`INSERT INTO jobs (body) VALUES ('x');`, 100)+`
		UPDATE jobs SET lease_token = gen_random_uuid(), leased_by = 'team', due_at = now() - interval '1 minute' WHERE id = 1;
		UPDATE jobs SET lease_token = gen_random_uuid(), leased_by = 'team', due_at = now() + interval '1 hour' WHERE id = 2`)
	state := func() string {
		// xmin and ctid change with each write, be it of the same.
		return ask(`SELECT (SELECT string_agg(concat_ws(' ', ctid, xmin, j), E'\n' ORDER BY id) FROM jobs AS j)
			|| (SELECT string_agg(concat_ws(' ', ctid, xmin, c), E'\n' ORDER BY id) FROM jobs_count AS c)`)
	}
	same := func(what string, backlog, inFlight int64) {
		t.Helper()
		before := state()
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			st, err := q.Stats(t.Context())
			if err != nil || st.Backlog != backlog || st.InFlight != inFlight || st.Arrived != 100 || st.Oldest.IsZero() {
				t.Fatalf("%s: %+v, %v; want %d and %d in flight", what, st, err, backlog, inFlight)
			}
		}
		if after := state(); after != before {
			t.Errorf("%s:\n%s\nbecame\n%s", what, before, after)
		}
	}
	same("one is worked on", 99, 1)
	exec(t, s, `DELETE FROM jobs WHERE id = 2`)
	same("it is done", 99, 0)
	refuses(t, q)

	only := open(t, s, Config{ReadOnly: true, SQL: &SQL{Stats: `SELECT count(*) AS backlog FROM jobs WHERE state = 'ready'`}})
	if st, err := only.Stats(t.Context()); err != nil || st.Backlog != 98 {
		t.Errorf("SQL with stats alone: %+v, %v", st, err)
	}
	refuses(t, only)
	before := state()
	writes := open(t, s, Config{ReadOnly: true, SQL: &SQL{Stats: `WITH gone AS (DELETE FROM jobs RETURNING id) SELECT count(*) AS backlog FROM gone`}})
	if _, err := writes.Stats(t.Context()); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("stats that write: %v", err)
	}
	if state() != before {
		t.Error("stats that write did so")
	}
}

func refuses(t *testing.T, q *Source) {
	t.Helper()
	_, err := q.Receive(t.Context(), 1, time.Minute)
	_, err2 := q.Extend(t.Context(), fleet.Message{}, time.Minute)
	for i, err := range []error{err, err2, q.Ack(t.Context(), fleet.Message{}), q.Nack(t.Context(), fleet.Message{}, 0), q.DeadLetter(t.Context(), fleet.Message{}, "no")} {
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "read only") {
			t.Errorf("call %d: %v", i, err)
		}
	}
}
