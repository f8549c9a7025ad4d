package postgres

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// documented is the SQL of the example in the documentation that uses a table,
// so that what users copy is what is tested.
func documented(t *testing.T, table string) SQL {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/queues/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(doc), "```yaml\n") {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "FROM "+table) {
			continue
		}
		var f struct {
			Spec struct {
				Queue struct {
					Postgres struct {
						SQL SQL `json:"sql"`
					} `json:"postgres"`
				} `json:"queue"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(block), &f); err != nil {
			t.Fatal(err)
		}
		return f.Spec.Queue.Postgres.SQL
	}
	t.Fatalf("no example with %s", table)
	return SQL{}
}

// foreigner is somebody else's table.
type foreigner struct {
	name, table string
	create      string // its columns, with what our statements touch
	// A body of the suite is no JSON; it travels within some.
	body, wrapped string
	publish       string // $1: the JSON, $2: the queue
	dead          string // $1: the queue
}

const hour = time.Hour

var foreigners = []foreigner{
	{
		name: "river", table: "river_job",
		create: `CREATE TYPE river_job_state AS ENUM ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
			CREATE TABLE river_job (
				id bigserial PRIMARY KEY, state river_job_state NOT NULL DEFAULT 'available', attempt smallint NOT NULL DEFAULT 0, max_attempts smallint NOT NULL CHECK (max_attempts > 0),
				attempted_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(), finalized_at timestamptz, scheduled_at timestamptz NOT NULL DEFAULT now(),
				priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 1 AND 4), args jsonb NOT NULL, attempted_by text[], errors jsonb[], kind text NOT NULL,
				metadata jsonb NOT NULL DEFAULT '{}', queue text NOT NULL DEFAULT 'default', tags varchar(255)[] NOT NULL DEFAULT '{}', unique_key bytea, unique_states bit(8),
				CHECK ((finalized_at IS NOT NULL) = (state IN ('cancelled', 'completed', 'discarded'))));
			CREATE INDEX ON river_job (state, queue, priority, scheduled_at, id)`,
		body: "args AS body", wrapped: "args->>'body' AS body",
		publish: `WITH job AS (INSERT INTO river_job (args, queue, kind, max_attempts) VALUES ($1, $2, 'agent', 25) RETURNING queue)
			SELECT pg_notify('public.river_insert', json_build_object('queue', queue)::text) FROM job`,
		dead: `SELECT convert_to(args->>'body', 'UTF8'), '{}'::jsonb, errors[1]->>'error' FROM river_job WHERE state = 'discarded' AND queue = $1`,
	}, {
		name: "pg-boss", table: "pgboss.job",
		create: `CREATE SCHEMA pgboss; CREATE TYPE pgboss.job_state AS ENUM ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
			CREATE TABLE pgboss.job (
				id uuid NOT NULL DEFAULT gen_random_uuid(), name text NOT NULL, priority integer NOT NULL DEFAULT 0, data jsonb, state pgboss.job_state NOT NULL DEFAULT 'created',
				retry_limit integer NOT NULL DEFAULT 2, retry_count integer NOT NULL DEFAULT 0, retry_delay integer NOT NULL DEFAULT 0, retry_backoff boolean NOT NULL DEFAULT false,
				expire_seconds int NOT NULL DEFAULT 900, deletion_seconds int NOT NULL DEFAULT 604800, singleton_key text, singleton_on timestamp, start_after timestamptz NOT NULL DEFAULT now(),
				created_on timestamptz NOT NULL DEFAULT now(), started_on timestamptz, completed_on timestamptz, keep_until timestamptz NOT NULL DEFAULT now() + interval '14 days',
				output jsonb, dead_letter text, policy text, PRIMARY KEY (name, id)) PARTITION BY LIST (name);
			CREATE TABLE pgboss.job_common PARTITION OF pgboss.job DEFAULT;
			CREATE INDEX ON pgboss.job_common (name, start_after) INCLUDE (priority, created_on, id) WHERE state < 'active'`,
		body: "data AS body", wrapped: "data->>'body' AS body",
		publish: `INSERT INTO pgboss.job (data, name) VALUES ($1, $2)`,
		dead:    `SELECT convert_to(data->>'body', 'UTF8'), '{}'::jsonb, output->>'message' FROM pgboss.job WHERE state = 'failed' AND name = $1`,
	},
}

// sql is the documented one for another queue, with the body as it is.
func (f foreigner) sql(t *testing.T, queue string) *SQL {
	t.Helper()
	s := documented(t, f.table)
	if !strings.Contains(s.Lease, f.body) {
		t.Fatalf("the example's lease has no %q in it", f.body)
	}
	s.Lease = strings.ReplaceAll(s.Lease, f.body, f.wrapped)
	for _, x := range []*string{&s.Stats, &s.Lease, &s.Extend, &s.Ack, &s.Nack, &s.DeadLetter} {
		*x = strings.ReplaceAll(*x, "'agents'", "'"+queue+"'")
	}
	return &s
}

func (f foreigner) outside(t *testing.T, s *servers.Postgres, queue string) queuetest.Outside {
	t.Helper()
	sql := f.sql(t, queue)
	return queuetest.Outside{
		Open: func(t *testing.T) fleet.Source {
			q, err := New(t.Context(), at(s, Config{SQL: sql}))
			if err != nil {
				t.Fatal(err)
			}
			return q
		},
		Publish: func(ctx context.Context, sent ...queuetest.Sent) error {
			return insert(ctx, s, f.publish, func(m queuetest.Sent) []any {
				b, _ := json.Marshal(map[string]string{"body": string(m.Body)}) // of strings
				return []any{b, queue}
			}, sent)
		},
		Dead: func(ctx context.Context) (sent []queuetest.Sent, why []string, err error) {
			return dead(ctx, s, f.dead, queue)
		},
		Restart:   restart(s),
		Forbidden: []string{servers.PostgresPassword},
	}
}

// TestExamples: what the documentation shows is taken whole, a job's JSON is
// the body, and other queues in the table are left alone.
func TestExamples(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	for _, f := range foreigners {
		exec(t, s, f.create)
		sql := documented(t, f.table)
		q := open(t, s, Config{SQL: &sql})
		err := admin(t.Context(), s, func(c *pgx.Conn) error {
			for _, queue := range []string{"other", "agents"} {
				if _, err := c.Exec(t.Context(), f.publish, `{"command": ["true"]}`, queue); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := q.Stats(t.Context()); err != nil || st.Backlog != 1 || st.Oldest.IsZero() {
			t.Errorf("%s: %+v, %v; want a backlog of 1", f.name, st, err)
		}
		m, err := q.Receive(t.Context(), 5, hour)
		if err != nil || len(m) != 1 || string(m[0].Body) != `{"command": ["true"]}` || m[0].At.IsZero() {
			t.Fatalf("%s: received %+v, %v", f.name, m, err)
		}
		if err := q.Ack(t.Context(), m[0]); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}
