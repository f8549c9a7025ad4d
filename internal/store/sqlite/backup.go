package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

const (
	backupInfix = ".bak-"
	partSuffix  = ".part"
	// kept is how many copies of the file there are at most.
	kept = 2
)

// backups makes a copy now and then until the database is closed. A copy that
// fails (a full disk, most likely) is tried again the next time.
func (db *DB) backups() {
	tick := time.NewTicker(db.opt.BackupEvery)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-db.stopped:
		case <-ctx.Done():
		}
		cancel()
	}()
	for {
		select {
		case <-db.stopped:
			return
		case <-tick.C:
			_, _ = db.Backup(ctx)
		}
	}
}

// Backup writes a consistent copy beside the file and returns its path; older
// copies beyond two are deleted. Work goes on meanwhile.
func (db *DB) Backup(ctx context.Context) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(db.path), &st); err == nil {
		if free := int64(st.Bavail) * st.Bsize; free < 2*db.Size() {
			return "", fmt.Errorf("back up %s: %d MiB free, and the copy must leave as much again: %w", db.path, free>>20, fleet.ErrFull)
		}
	}
	name := db.path + backupInfix + db.now().Format("20060102T150405.000Z")
	part := name + partSuffix
	_ = os.Remove(part)
	if err := db.vacuumInto(ctx, part); err != nil {
		_ = os.Remove(part)
		return "", db.wrap("back up", err)
	}
	if err := syncPath(part); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	if err := os.Rename(part, name); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	if err := syncPath(filepath.Dir(name)); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	all := copies(db.path)
	for _, old := range all[:max(0, len(all)-kept)] {
		_ = os.Remove(old)
	}
	return name, nil
}

// vacuumInto has a connection of its own: query_only, as the readers have it,
// forbids the statement, and the writer must not wait for it.
func (db *DB) vacuumInto(ctx context.Context, path string) error {
	ro, err := sql.Open("sqlite", source(db.path, url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}}))
	if err != nil {
		return err
	}
	_, err = ro.ExecContext(ctx, "VACUUM INTO ?", path)
	return errors.Join(err, ro.Close())
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
