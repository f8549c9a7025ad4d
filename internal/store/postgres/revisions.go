package postgres

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
	"muster.dev/muster/internal/store/packed"
)

const selectRevision = "SELECT number, at, author, source, note, spec FROM revisions "

func scanRevision(row pgx.Row) (fleet.Revision, error) {
	var r fleet.Revision
	var at int64
	var author, note []byte
	if err := row.Scan(&r.Number, &at, &author, &r.Source, &note, &r.Spec); err != nil {
		return r, err
	}
	r.At, r.Author, r.Note = fromNano(at), string(author), string(note)
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
	err := db.journal.Write(ctx, &call{
		Name: "append revision", Led: true, Keys: []string{"revision"},
		Write: func(b *pgx.Batch) {
			db.inOrder(b)
			b.Queue(`INSERT INTO revisions (number, at, author, source, note, digest, spec)
				SELECT coalesce((SELECT max(number) FROM revisions), 0) + 1, $1, $2, $3, $4, $5, $6
				WHERE NOT EXISTS (SELECT FROM revisions WHERE number = (SELECT max(number) FROM revisions) AND digest = $5)`,
				nano(r.At), []byte(r.Author), clean(r.Source), []byte(r.Note), digest, spec).Exec(func(tag pgconn.CommandTag) error {
				added = tag.RowsAffected() > 0
				return nil
			})
			b.Queue(selectRevision + "ORDER BY number DESC LIMIT 1").QueryRow(func(row pgx.Row) (err error) {
				newest, err = scanRevision(row)
				return err
			})
		},
	})
	if err != nil {
		return fleet.Revision{}, false, err
	}
	return newest, added, nil
}

// Revision implements fleet.Revisions.
func (db *DB) Revision(ctx context.Context, number int64) (fleet.Revision, error) {
	var r fleet.Revision
	err := db.read(ctx, "revision", func(ctx context.Context, p *pgxpool.Pool) (err error) {
		r, err = scanRevision(p.QueryRow(ctx, selectRevision+"WHERE number = $1", number))
		return absent(err, "revision", strconv.FormatInt(number, 10))
	})
	return r, err
}

// Revisions implements fleet.Revisions.
func (db *DB) Revisions(ctx context.Context, f fleet.RevisionFilter) ([]fleet.Revision, error) {
	if f.Before == 0 {
		f.Before = math.MaxInt64
	}
	out := []fleet.Revision{}
	err := db.read(ctx, "revisions", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Revision{}
		rows, err := p.Query(ctx, selectRevision+"WHERE number < $1 ORDER BY number DESC LIMIT $2", f.Before, lifecycle.Limit(f.Limit))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scanRevision(rows)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
