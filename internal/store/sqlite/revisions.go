package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
	"muster.dev/muster/internal/store/packed"
)

const selectRevision = "SELECT number, at, author, source, note, spec FROM revisions "

func scanRevision(row scanner) (fleet.Revision, error) {
	var r fleet.Revision
	var at int64
	if err := row.Scan(&r.Number, &at, &r.Author, &r.Source, &r.Note, &r.Spec); err != nil {
		return r, err
	}
	r.At = fromNano(at)
	var err error
	if r.Spec, err = packed.Unpack(r.Spec); err != nil {
		return r, fmt.Errorf("revision %d: %w: %w", r.Number, fleet.ErrCorrupt, err)
	}
	return r, nil
}

// AppendRevision implements fleet.Revisions.
func (db *DB) AppendRevision(ctx context.Context, r fleet.Revision) (fleet.Revision, bool, error) {
	if len(r.Spec) == 0 {
		return fleet.Revision{}, false, fmt.Errorf("append a revision without a specification: %w", fleet.ErrInvalid)
	}
	spec, digest, added := packed.Pack(r.Spec), fleet.PolicyDigest(r.Spec), false
	var newest fleet.Revision
	err := db.write(ctx, "append revision", durable, func(t *tx) error {
		res, err := t.exec(`INSERT INTO revisions (number, at, author, source, note, digest, spec)
			SELECT ifnull((SELECT max(number) FROM revisions), 0) + 1, ?, ?, ?, ?, ?, ?
			WHERE NOT EXISTS (SELECT 1 FROM revisions WHERE number = (SELECT max(number) FROM revisions) AND digest = ?)`,
			nano(r.At), r.Author, r.Source, r.Note, digest, spec, digest)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		added = n > 0
		newest, err = scanRevision(t.row(selectRevision + "ORDER BY number DESC LIMIT 1"))
		return err
	})
	if err != nil {
		return fleet.Revision{}, false, err
	}
	return newest, added, nil
}

// Revision implements fleet.Revisions.
func (db *DB) Revision(ctx context.Context, number int64) (fleet.Revision, error) {
	r, err := scanRevision(db.readers.QueryRowContext(ctx, selectRevision+"WHERE number = ?", number))
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("revision %d: %w", number, fleet.ErrNotFound)
	}
	return r, db.wrap("revision", err)
}

// Revisions implements fleet.Revisions.
func (db *DB) Revisions(ctx context.Context, f fleet.RevisionFilter) ([]fleet.Revision, error) {
	if f.Before == 0 {
		f.Before = math.MaxInt64
	}
	rows, err := db.readers.QueryContext(ctx, selectRevision+"WHERE number < ? ORDER BY number DESC LIMIT ?", f.Before, lifecycle.Limit(f.Limit))
	if err != nil {
		return nil, db.wrap("revisions", err)
	}
	defer rows.Close()
	out := []fleet.Revision{}
	for rows.Next() {
		r, err := scanRevision(rows)
		if err != nil {
			return nil, db.wrap("revisions", err)
		}
		out = append(out, r)
	}
	return out, db.wrap("revisions", rows.Err())
}
