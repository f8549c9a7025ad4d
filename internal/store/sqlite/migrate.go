package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one step of the schema; its number is the version after it.
type migration struct {
	version int
	name    string
	sql     string
}

// migrations lists the steps in order. Their files are numbered 0001, 0002, …
// without a gap and are never changed once released.
func migrations() ([]migration, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var all []migration
	for i, name := range names {
		number, _, _ := strings.Cut(path.Base(name), "_")
		v, err := strconv.Atoi(number)
		if err != nil || v != i+1 {
			return nil, fmt.Errorf("migration %s: want number %04d", name, i+1)
		}
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, migration{v, path.Base(name), string(text)})
	}
	return all, nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func version(ctx context.Context, q queryer) (int, error) {
	var v sql.NullInt64
	err := q.QueryRowContext(ctx, "SELECT max(version) FROM schema_version").Scan(&v)
	return int(v.Int64), err
}

// checkVersion refuses the file of a newer program: this one would not know
// what it must keep true.
func checkVersion(ctx context.Context, q queryer, path string) error {
	have, err := version(ctx, q)
	if err != nil {
		return err
	}
	all, err := migrations()
	if err != nil {
		return err
	}
	if have > len(all) {
		return fmt.Errorf("database %s has schema %d and this muster knows up to %d: it was used by a newer muster; run that one, or go back to a copy made before (%s%s…): %w",
			path, have, len(all), path, backupInfix, fleet.ErrInvalid)
	}
	return nil
}

// migrate brings the schema up to date, one transaction a step, after making
// a copy of a file that has something in it.
func (db *DB) migrate(ctx context.Context, t *tx) error {
	if _, err := t.conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`); err != nil {
		return err
	}
	have, err := version(ctx, t.conn)
	if err != nil {
		return err
	}
	all, err := migrations()
	if err != nil {
		return err
	}
	if have > 0 && have < len(all) {
		if _, err := db.Backup(ctx); err != nil {
			return fmt.Errorf("before a migration of the schema: %w", err)
		}
	}
	for _, m := range all[have:] {
		if err := db.apply(ctx, t, m); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

func (db *DB) apply(ctx context.Context, t *tx, m migration) error {
	dbtx, err := t.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = dbtx.Rollback() }() // after Commit this does nothing
	if _, err := dbtx.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	if _, err := dbtx.ExecContext(ctx, "INSERT INTO schema_version (version, name, applied_at) VALUES (?, ?, ?)",
		m.version, m.name, db.now().UnixNano()); err != nil {
		return err
	}
	return dbtx.Commit()
}
