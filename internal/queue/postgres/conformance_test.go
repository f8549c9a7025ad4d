package postgres

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The suite waits for most of its time: more of it at once than there are
	// processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// TestConformance runs the suite, each kind of table on a server of its own
// since the suite stops it, all at once since the suite mostly waits.
func TestConformance(t *testing.T) {
	t.Run("own table", func(t *testing.T) {
		t.Parallel()
		s := servers.StartPostgres(t, servers.PostgresSetup{})
		n := 0
		queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
			n++
			return ownTable(t, s, fmt.Sprintf("queue_%d", n))
		})
	})
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := servers.StartPostgres(t, servers.PostgresSetup{})
			exec(t, s, f.create)
			n := 0
			queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
				n++
				return f.outside(t, s, fmt.Sprintf("agents%d", n))
			})
		})
	}
}

// at is where the server is, for a Config.
func at(s *servers.Postgres, c Config) Config {
	c.Host, c.Port, c.User, c.Database = "127.0.0.1", s.Port, servers.PostgresUser, "postgres"
	if c.Password == nil {
		c.Password = connect.Fixed(servers.PostgresPassword)
	}
	return c
}

func open(t *testing.T, s *servers.Postgres, c Config) *Source {
	t.Helper()
	q, err := New(t.Context(), at(s, c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// admin runs SQL as somebody else would; a new connection each time, since the
// suite restarts the server.
func admin(ctx context.Context, s *servers.Postgres, f func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return f(c)
}

func exec(t *testing.T, s *servers.Postgres, sql string) {
	t.Helper()
	err := admin(t.Context(), s, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// insert publishes by one statement for each message, in order.
func insert(ctx context.Context, s *servers.Postgres, sql string, args func(queuetest.Sent) []any, sent []queuetest.Sent) error {
	return admin(ctx, s, func(c *pgx.Conn) error {
		b := &pgx.Batch{}
		for _, m := range sent {
			b.Queue(sql, args(m)...)
		}
		return c.SendBatch(ctx, b).Close()
	})
}

func ownTable(_ *testing.T, s *servers.Postgres, name string) queuetest.Outside {
	return queuetest.Outside{
		Open: func(t *testing.T) fleet.Source {
			q, err := New(t.Context(), at(s, Config{Table: name, Create: true}))
			if err != nil {
				t.Fatal(err)
			}
			return q
		},
		Publish: func(ctx context.Context, sent ...queuetest.Sent) error {
			return insert(ctx, s, "INSERT INTO "+name+" (body, headers) VALUES ($1, coalesce($2::jsonb, '{}'))", func(m queuetest.Sent) []any {
				return []any{m.Body, m.Headers}
			}, sent)
		},
		Dead: func(ctx context.Context) (sent []queuetest.Sent, why []string, err error) {
			return dead(ctx, s, "SELECT body, headers, dead_reason FROM "+name+" WHERE state = 'dead'")
		},
		Restart: restart(s),
		Fill: func(ctx context.Context, n int) error {
			return admin(ctx, s, func(c *pgx.Conn) error {
				_, err := c.Exec(ctx, "INSERT INTO "+name+" (body) SELECT 'x' FROM generate_series(1, $1::int)", n)
				return err
			})
		},
		Forbidden: []string{servers.PostgresPassword},
		Headers:   true,
	}
}

// dead reads body, headers (JSON) and reason.
func dead(ctx context.Context, s *servers.Postgres, sql string, args ...any) (sent []queuetest.Sent, why []string, err error) {
	err = admin(ctx, s, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		var m queuetest.Sent
		var h []byte
		var reason string
		_, err = pgx.ForEachRow(rows, []any{&m.Body, &h, &reason}, func() error {
			m.Headers = nil
			if err := json.Unmarshal(h, &m.Headers); err != nil {
				return err
			}
			sent, why = append(sent, queuetest.Sent{Body: append([]byte{}, m.Body...), Headers: m.Headers}), append(why, reason)
			return nil
		})
		return err
	})
	return sent, why, err
}

func restart(s *servers.Postgres) func(time.Duration) {
	return func(down time.Duration) {
		s.Stop()
		time.Sleep(down)
		s.Start()
	}
}
