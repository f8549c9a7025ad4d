package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	pgarchive "muster.dev/muster/internal/archive/postgres"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/postgres"
	"muster.dev/muster/internal/store/sqlite"
)

// storeChoice says what everything is kept in.
type storeChoice struct {
	dsn  string // of PostgreSQL; empty: SQLite
	file string // of SQLite
	// connections of each pool to PostgreSQL; 0: the adapters' defaults.
	connections int
}

// parseStore reads --store; dir is the data directory.
func parseStore(s, dir string) (storeChoice, error) {
	const right = "want sqlite:PATH or a postgres:// URL"
	switch {
	case s == "":
		return storeChoice{file: filepath.Join(dir, "muster.db")}, nil
	case strings.HasPrefix(s, "postgres://"), strings.HasPrefix(s, "postgresql://"):
		return storeChoice{dsn: s}, nil
	}
	kind, path, ok := strings.Cut(s, ":")
	if kind != "sqlite" || !ok {
		// What it is instead may have a password in it.
		return storeChoice{}, usageError("--store names no store that there is; %s", right)
	}
	if !filepath.IsAbs(path) {
		return storeChoice{}, usageError("--store %q: want an absolute path", s)
	}
	return storeChoice{file: path}, nil
}

func (s storeChoice) shared() bool { return s.dsn != "" }

// kept is what is opened of a store, with what closes it.
type kept struct {
	store   fleet.Store
	queue   fleet.Queue
	archive fleet.Archive
	pg      *postgres.DB // nil: SQLite
	closers []func() error
}

func (k *kept) close() error {
	var first error
	for i := len(k.closers) - 1; i >= 0; i-- {
		if err := k.closers[i](); err != nil && first == nil {
			first = err
		}
	}
	k.closers = nil
	return first
}

// openPlane opens what the control plane keeps beside its fleets: keys.
func (s storeChoice) openPlane(ctx context.Context) (*kept, error) {
	out := &kept{}
	if s.shared() {
		db, err := postgres.Open(ctx, s.dsn, postgres.Options{Schema: postgres.SchemaFor("muster"), Connections: 2})
		if err != nil {
			return nil, err
		}
		out.store, out.pg, out.closers = db, db, append(out.closers, db.Close)
		return out, nil
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the store: %w", err)
	}
	db, err := sqlite.Open(ctx, s.file, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	out.store, out.closers = db, append(out.closers, db.Close)
	return out, nil
}

// place says where one fleet is kept.
type place struct {
	file   string // of SQLite
	schema string // of PostgreSQL
	files  string // directory of the archive, where that is not in the database
}

// placeOf is where a fleet of a cluster is kept.
func (s storeChoice) placeOf(dir, namespace, name string) place {
	at := filepath.Join(dir, "fleets", namespace, name)
	if !s.shared() {
		at = filepath.Join(filepath.Dir(s.file), "fleets", namespace, name)
	}
	return place{file: filepath.Join(at, "muster.db"), files: filepath.Join(at, "tasks"), schema: postgres.SchemaFor("muster", namespace, name)}
}

// open opens the store and archive of one fleet.
func (s storeChoice) open(ctx context.Context, f *v1alpha1.Fleet, at place) (_ *kept, err error) {
	out := &kept{}
	defer func() {
		if err != nil {
			_ = out.close()
		}
	}()
	if s.shared() {
		err = out.openPostgres(ctx, s, f, at)
		return out, err
	}
	if err = os.MkdirAll(filepath.Dir(at.file), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the store: %w", err)
	}
	db, err := sqlite.Open(ctx, at.file, storeOptions(f))
	if err != nil {
		return nil, err
	}
	out.store, out.queue, out.closers = db, db.Queue(), append(out.closers, db.Close)
	err = out.openFiles(at.files)
	return out, err
}

// mostRevisions bounds how far back a valid specification is looked for.
const mostRevisions = 100

// revisions reads the specifications that a fleet had, newest first, while nothing
// of it is open; none where it has no store yet.
func (s storeChoice) revisions(ctx context.Context, at place) (_ []fleet.Revision, err error) {
	var db interface {
		fleet.Revisions
		Close() error
	}
	if s.shared() {
		db, err = postgres.Open(ctx, s.dsn, postgres.Options{Schema: at.schema, Connections: 2})
	} else {
		if _, err = os.Stat(at.file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		db, err = sqlite.Open(ctx, at.file, sqlite.Options{})
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Revisions(ctx, fleet.RevisionFilter{Limit: mostRevisions})
}

func (k *kept) openPostgres(ctx context.Context, s storeChoice, f *v1alpha1.Fleet, at place) error {
	db, err := postgres.Open(ctx, s.dsn, postgres.Options{
		Schema: at.schema, Connections: s.connections, MaxBacklog: f.Spec.Queue.MaxBacklog, Tenants: shares(f), Name: "muster " + f.Metadata.Name,
	})
	if err != nil {
		return err
	}
	k.store, k.queue, k.pg, k.closers = db, db.Queue(), db, append(k.closers, db.Close)
	files, err := pgarchive.Open(ctx, s.dsn, pgarchive.Options{Schema: at.schema, Connections: s.connections})
	if err != nil {
		return err
	}
	k.archive, k.closers = files, append(k.closers, files.Close)
	return nil
}

func (k *kept) openFiles(dir string) error {
	files, err := archive.Open(dir, archive.Options{})
	if err != nil {
		return err
	}
	k.archive, k.closers = files, append(k.closers, files.Close)
	return nil
}

func storeOptions(f *v1alpha1.Fleet) sqlite.Options {
	return sqlite.Options{MaxBacklog: f.Spec.Queue.MaxBacklog, Tenants: shares(f)}
}

// shares are what each tenant of a fleet may have.
func shares(f *v1alpha1.Fleet) map[fleet.TenantID]fleet.Share {
	out := map[fleet.TenantID]fleet.Share{}
	for _, t := range f.Spec.Tenants {
		out[fleet.TenantID(t.Name)] = fleet.Share{Weight: t.Weight, MaxRunning: t.MaxRunning}
	}
	return out
}
