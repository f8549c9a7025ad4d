package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"muster.dev/muster/internal/fleet"
)

const (
	// magic begins every SQLite file: https://www.sqlite.org/fileformat.html
	magic = "SQLite format 3\x00"
	// small is the size up to which a file is checked whole at every start
	// (tens of milliseconds); larger ones are when there is a suspicion.
	small = 32 << 20
)

// corrupt says what is wrong with the file at path and how to go on.
func corrupt(path string, why error) error {
	hint := fmt.Sprintf("there is no copy of it (%[1]s.bak-…) beside it to restore; put back a backup of your own, or start empty with: mv %[2]s %[2]s.broken",
		filepath.Base(path), path)
	if b := copies(path); len(b) > 0 {
		hint = fmt.Sprintf("to go back to the newest copy, stop muster, then: cd %s && mkdir broken && mv %s* broken/ && cp broken/%s %s",
			filepath.Dir(path), filepath.Base(path), filepath.Base(b[len(b)-1]), filepath.Base(path))
	}
	return fmt.Errorf("database %s: %w (%w); nothing was changed; %s", path, fleet.ErrCorrupt, why, hint)
}

// probe looks at an existing file without changing it, and refuses it when it
// cannot be trusted or is not ours.
func (db *DB) probe(ctx context.Context) error {
	st, err := os.Stat(db.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if b := copies(db.path); len(b) > 0 {
			return corrupt(db.path, errors.New("the file is missing, and there are copies of it"))
		}
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a file: %w", db.path, fleet.ErrInvalid)
	case st.Size() == 0:
		// A process that died while making the file leaves this; so does
		// someone's truncation, but then there was a file to copy before.
		if b := copies(db.path); len(b) > 0 {
			return corrupt(db.path, errors.New("the file is empty, and there are copies of it"))
		}
		return nil
	}
	if err := checkHeader(db.path); err != nil {
		return err
	}
	ro, err := sql.Open("sqlite", source(db.path, url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}}))
	if err != nil {
		return err
	}
	ro.SetMaxOpenConns(1)
	_, suspected := os.Stat(db.path + suspectSuffix)
	err = check(ctx, ro, db.path, suspected == nil || st.Size() <= small)
	if cerr := ro.Close(); err == nil {
		err = cerr
	}
	if err == nil && suspected == nil {
		err = os.Remove(db.path + suspectSuffix) // the whole file was read and is sound
	}
	return err
}

func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != magic {
		return corrupt(path, errors.New("it does not begin as a database does"))
	}
	return nil
}

func check(ctx context.Context, ro *sql.DB, path string, whole bool) error {
	var tables, ours int
	err := ro.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE name = 'schema_version') FROM sqlite_schema`).Scan(&tables, &ours)
	if err != nil {
		return err
	}
	if tables > 0 && ours == 0 {
		return fmt.Errorf("%s is the database of another program: %w", path, fleet.ErrInvalid)
	}
	if ours > 0 {
		if err := checkVersion(ctx, ro, path); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	rows, err := ro.QueryContext(ctx, "PRAGMA quick_check(3)")
	if err != nil {
		return err
	}
	defer rows.Close()
	var wrong []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		if line != "ok" {
			wrong = append(wrong, strings.Join(strings.Fields(line), " "))
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return corrupt(path, errors.New(strings.Join(wrong, "; ")))
	}
	return nil
}

// suspectSuffix names the file that makes the next start check everything.
const suspectSuffix = "-suspect"

// suspect remembers that damage was met while running.
func (db *DB) suspect() {
	db.suspicion.Do(func() {
		_ = os.WriteFile(db.path+suspectSuffix, []byte("damage was met; the next start checks the whole database\n"), 0o600)
	})
}

// copies lists the backups of the file, oldest first.
func copies(path string) []string {
	found, _ := filepath.Glob(globQuote(path) + backupInfix + "*")
	found = slices.DeleteFunc(found, func(s string) bool { return strings.HasSuffix(s, partSuffix) })
	slices.Sort(found) // the names end in the time
	return found
}

// globQuote keeps a path with [ * or ? in it from being read as a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
