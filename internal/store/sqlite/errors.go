package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"muster.dev/muster/internal/fleet"
)

// wrap gives an error of the driver its kind and says what to do about it.
func (db *DB) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, db.kind(err))
}

func (db *DB) kind(err error) error {
	var se *sqlite.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, sql.ErrConnDone), db.open() != nil:
		return fmt.Errorf("database %s is closed: %w (%w)", db.path, fleet.ErrUnavailable, err)
	case !errors.As(err, &se):
		return err
	}
	switch code := se.Code(); code & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		db.suspect()
		return corrupt(db.path, err)
	case lib.SQLITE_FULL:
		return full(db.path, err)
	case lib.SQLITE_IOERR:
		// Some failures of a full disk (growing the shared memory file, a
		// short write) come as plain I/O errors.
		if noSpace(db.path) {
			return full(db.path, err)
		}
		return fmt.Errorf("database %s: %w: %w", db.path, fleet.ErrUnavailable, err)
	case lib.SQLITE_CONSTRAINT:
		return fmt.Errorf("%w: %w", fleet.ErrConflict, err)
	}
	return fmt.Errorf("database %s: %w: %w", db.path, fleet.ErrUnavailable, err)
}

func full(path string, err error) error {
	return fmt.Errorf("no space left on the disk of %s; make room, nothing that was accepted is lost: %w (%w)", path, fleet.ErrFull, err)
}

// noSpace reports whether the file system of path has hardly a page left.
func noSpace(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return false
	}
	return st.Bavail*uint64(st.Bsize) < 256<<10
}

// isFatal reports whether the error ended the whole transaction, not just the
// statement.
func isFatal(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code()&0xff != lib.SQLITE_CONSTRAINT
}
