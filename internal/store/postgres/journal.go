package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// portion is how many records are added before the oldest are deleted.
const portion = 256

// inOrder makes the journals of all processes wait for each other, so that
// records become visible in the order of their seq: whoever reads on after the
// last one that it saw misses none.
func (db *DB) inOrder(b *pgx.Batch) { b.Queue("SELECT pg_advisory_xact_lock($1)", db.journals) }

// trim deletes the oldest records now and then; added is how many come.
func (db *DB) trim(b *pgx.Batch, added int) {
	if db.untrimmed.Add(int64(added)) < portion {
		return
	}
	db.untrimmed.Store(0)
	b.Queue("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - $1", db.opt.Events)
	b.Queue("DELETE FROM decisions WHERE seq <= (SELECT max(seq) FROM decisions) - $1", db.opt.Decisions)
	b.Queue("DELETE FROM policies p WHERE NOT EXISTS (SELECT FROM decisions d WHERE d.policy = p.id)")
}

// AppendEvents implements fleet.Journal.
func (db *DB) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	if len(ev) == 0 {
		return []fleet.Event{}, ctx.Err()
	}
	out := slices.Clone(ev)
	var at []int64
	var kinds, layers, tasks, boxes, texts []string
	for i := range out {
		e := &out[i]
		e.At, e.Seq = lifecycle.Clean(e.At), 0
		b, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("append events: %w: %w", fleet.ErrInvalid, err)
		}
		at, kinds, layers = append(at, nano(e.At)), append(kinds, clean(e.Kind)), append(layers, clean(e.Layer))
		tasks, boxes, texts = append(tasks, clean(string(e.Task))), append(boxes, clean(string(e.Sandbox))), append(texts, string(b))
	}
	err := db.journal.Write(ctx, &call{
		Name: "append events", Loose: true, Led: true,
		Decide: func(x *exchange) error {
			x.told = true
			return nil
		},
		Write: func(b *pgx.Batch) {
			db.inOrder(b)
			db.trim(b, len(out))
			b.Queue(`INSERT INTO events (at, kind, layer, task, sandbox, event)
				SELECT at, kind, layer, task, sandbox, event FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
				WITH ORDINALITY AS n (at, kind, layer, task, sandbox, event, i) ORDER BY i RETURNING seq`,
				at, kinds, layers, tasks, boxes, texts).Query(func(rows pgx.Rows) error {
				seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				for i, seq := range seqs {
					out[i].Seq = seq
				}
				return err
			})
		},
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Events implements fleet.Journal.
func (db *DB) Events(ctx context.Context, f fleet.EventFilter) ([]fleet.Event, error) {
	query, args := eventQuery(f)
	out := []fleet.Event{}
	err := db.read(ctx, "events", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Event{}
		rows, err := p.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var seq int64
			var b []byte
			if err := rows.Scan(&seq, &b); err != nil {
				return err
			}
			var e fleet.Event
			if err := json.Unmarshal(b, &e); err != nil {
				return fmt.Errorf("event %d: %w: %w", seq, fleet.ErrCorrupt, err)
			}
			e.Seq = seq
			out = append(out, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	if f.Last {
		slices.Reverse(out)
	}
	return out, nil
}

func eventQuery(f fleet.EventFilter) (string, []any) {
	var w walk
	w.and("seq > ?", f.After)
	if !f.Since.IsZero() {
		w.and("at >= ?", moment(f.Since))
	}
	if f.Layer != "" {
		w.and("layer = ?", f.Layer)
	}
	if f.Task != "" { // the second condition lets the partial index be used
		w.and("task = ? AND task <> ''", string(f.Task))
	}
	if f.Sandbox != "" {
		w.and("sandbox = ? AND sandbox <> ''", string(f.Sandbox))
	}
	if len(f.Kinds) > 0 {
		w.and("kind = ANY (?)", f.Kinds)
	}
	order := "seq"
	if f.Last {
		order = "seq DESC"
	}
	return "SELECT seq, event FROM events WHERE " + strings.Join(w.where, " AND ") + " ORDER BY " + order +
		" LIMIT " + strconv.Itoa(lifecycle.Limit(f.Limit)), w.args
}
