package queues

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/postgres"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// openPostgres is a table of Muster's own, which it makes.
func openPostgres(t testing.TB) *Queue {
	t.Helper()
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	with := func(ctx context.Context, do func(*pgx.Conn) error) error {
		c, err := pgx.Connect(ctx, s.URL())
		if err != nil {
			return err
		}
		defer c.Close(context.WithoutCancel(ctx))
		return do(c)
	}
	return &Queue{
		Block: fmt.Sprintf("type: postgres, postgres: {host: 127.0.0.1, port: %d, database: postgres, user: %s, password: {file: %q}, create: true}",
			s.Port, servers.PostgresUser, secret(t, servers.PostgresPassword)),
		Send: func(ctx context.Context, bodies ...string) error {
			return with(ctx, func(c *pgx.Conn) error {
				_, err := c.Exec(ctx, "INSERT INTO muster_queue (body) SELECT convert_to(b, 'UTF8') FROM unnest($1::text[]) WITH ORDINALITY AS u(b, i) ORDER BY i", bodies)
				return err
			})
		},
		Count: func(ctx context.Context) (n Count, err error) {
			err = with(ctx, func(c *pgx.Conn) error {
				return c.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state <> 'leased'), count(*) FILTER (WHERE state = 'leased'),
					coalesce(max(attempts) FILTER (WHERE state = 'leased'), 0) FROM muster_queue WHERE state <> 'dead'`).Scan(&n.Waiting, &n.Held, &n.Deliveries)
			})
			var gone *pgconn.PgError
			if errors.As(err, &gone) && gone.Code == "42P01" { // undefined_table: nobody has made it yet
				return Count{}, nil
			}
			return n, err
		},
		Dead: func(ctx context.Context) (out []Dead, err error) {
			err = with(ctx, func(c *pgx.Conn) error {
				rows, err := c.Query(ctx, "SELECT convert_from(body, 'UTF8'), dead_reason FROM muster_queue WHERE state = 'dead'")
				if err != nil {
					return err
				}
				out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Dead])
				return err
			})
			return out, err
		},
		Others: func(ctx context.Context) error { // a fleet that works it off has made the table
			q, err := postgres.New(ctx, postgres.Config{
				Port: s.Port, Database: "postgres", User: servers.PostgresUser, Password: connect.Fixed(servers.PostgresPassword), Create: true,
			})
			if err != nil {
				return err
			}
			_, err = q.Stats(ctx)
			return errors.Join(err, q.Close())
		},
		Stop: s.Stop, Start: s.Process.Start,
	}
}
