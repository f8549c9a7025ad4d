package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
)

// Migration is one step of a schema; its number is the version after it.
type Migration struct {
	Version int
	Name    string
	SQL     string
}

// Migrations lists the steps in files in order. They are named 0001_….sql,
// 0002_….sql, … without a gap and are never changed once released.
func Migrations(files fs.FS) ([]Migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var all []Migration
	for i, name := range names {
		number, _, _ := strings.Cut(path.Base(name), "_")
		v, err := strconv.Atoi(number)
		if err != nil || v != i+1 {
			return nil, fmt.Errorf("migration %s: want number %04d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		all = append(all, Migration{v, path.Base(name), string(text)})
	}
	return all, nil
}

// Migrate brings what belongs to name (of the tables that migrations in files
// make) up to date: one transaction, in which no other process migrates. A
// schema of a newer program is fleet.ErrInvalid.
func (s *Server) Migrate(ctx context.Context, name string, files fs.FS) error {
	all, err := Migrations(files)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.migrate(ctx, tx, name, all) })
	if err != nil {
		return fmt.Errorf("schema %s: %w", s.opt.Schema, Fault(err))
	}
	return nil
}

func (s *Server) migrate(ctx context.Context, tx pgx.Tx, name string, all []Migration) error {
	// Another process may be busy with a large table, and so may this one.
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '10min'; SET LOCAL statement_timeout = 0", pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "muster schema "+s.opt.Schema); err != nil {
		return err
	}
	if err := s.check(ctx, tx); err != nil {
		return err
	}
	table := pgx.Identifier{name + "_schema"}.Sanitize()
	if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table+" (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"); err != nil {
		return err
	}
	var have int
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+table).Scan(&have); err != nil {
		return err
	}
	if have > len(all) {
		return fmt.Errorf("it is at version %d of %s and this muster knows up to %d: it was used by a newer muster; run that one, or restore a backup made before: %w",
			have, name, len(all), fleet.ErrInvalid)
	}
	for _, m := range all[have:] {
		if _, err := tx.Conn().PgConn().Exec(ctx, m.SQL).ReadAll(); err != nil {
			return fmt.Errorf("migration %s: %w", m.Name, err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+table+" (version, name) VALUES ($1, $2)", m.Version, m.Name); err != nil {
			return err
		}
	}
	return nil
}

// check looks at the server, and makes the schema.
func (s *Server) check(ctx context.Context, tx pgx.Tx) error {
	var version int
	var encoding string
	var there bool
	err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
		EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)`, s.opt.Schema).Scan(&version, &encoding, &there)
	switch {
	case err != nil:
		return err
	case version < 120000:
		return fmt.Errorf("PostgreSQL %d is too old: want 12 or later: %w", version/10000, fleet.ErrInvalid)
	case encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s: want one made with ENCODING 'UTF8': %w", encoding, fleet.ErrInvalid)
	case there:
		return nil
	}
	if _, err = tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{s.opt.Schema}.Sanitize()); err != nil {
		if kind := Fault(err); errors.Is(kind, fleet.ErrDenied) {
			return fmt.Errorf("it does not exist; grant CREATE on the database, or have it made for this user (CREATE SCHEMA %s AUTHORIZATION …): %w", s.opt.Schema, kind)
		}
		return err
	}
	return nil
}
