package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// portion is how many records are deleted at once.
const portion = 256

// bound deletes the oldest records beyond a number, in portions.
func (t *tx) bound(table string, newest int64, keep int) error {
	if newest%portion != 0 {
		return nil
	}
	_, err := t.exec("DELETE FROM "+table+" WHERE seq <= ?", newest-int64(keep))
	return err
}

// AppendEvents implements fleet.Journal.
func (db *DB) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	if len(ev) == 0 {
		return []fleet.Event{}, ctx.Err()
	}
	out := slices.Clone(ev)
	err := db.write(ctx, "append events", patient, func(t *tx) error {
		for i := range out {
			e := &out[i]
			e.At, e.Seq = lifecycle.Clean(e.At), 0
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			res, err := t.exec("INSERT INTO events (at, kind, layer, task, sandbox, event) VALUES (?, ?, ?, ?, ?, ?)",
				nano(e.At), e.Kind, e.Layer, string(e.Task), string(e.Sandbox), string(b))
			if err != nil {
				return err
			}
			if e.Seq, err = res.LastInsertId(); err != nil {
				return err
			}
			if err := t.bound("events", e.Seq, db.opt.Events); err != nil {
				return err
			}
		}
		t.told = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Events implements fleet.Journal.
func (db *DB) Events(ctx context.Context, f fleet.EventFilter) ([]fleet.Event, error) {
	query, args := eventQuery(f)
	rows, err := db.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, db.wrap("events", err)
	}
	defer rows.Close()
	out := []fleet.Event{}
	for rows.Next() {
		var seq int64
		var b []byte
		if err := rows.Scan(&seq, &b); err != nil {
			return nil, db.wrap("events", err)
		}
		var e fleet.Event
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, fmt.Errorf("event %d: %w: %w", seq, fleet.ErrCorrupt, err)
		}
		e.Seq = seq
		out = append(out, e)
	}
	if f.Last {
		slices.Reverse(out)
	}
	return out, db.wrap("events", rows.Err())
}

func eventQuery(f fleet.EventFilter) (string, []any) {
	where, args := []string{"seq > ?"}, []any{f.After}
	also := func(cond string, vals ...any) {
		where = append(where, cond)
		args = append(args, vals...)
	}
	if !f.Since.IsZero() {
		also("at >= ?", f.Since.UnixNano())
	}
	if f.Layer != "" {
		also("layer = ?", f.Layer)
	}
	if f.Task != "" { // the second condition lets the partial index be used
		also("task = ? AND task <> ''", string(f.Task))
	}
	if f.Sandbox != "" {
		also("sandbox = ? AND sandbox <> ''", string(f.Sandbox))
	}
	if len(f.Kinds) > 0 {
		kinds := make([]any, len(f.Kinds))
		for i, k := range f.Kinds {
			kinds[i] = k
		}
		also("kind IN (?"+strings.Repeat(", ?", len(kinds)-1)+")", kinds...)
	}
	order := "seq"
	if f.Last {
		order = "seq DESC"
	}
	return "SELECT seq, event FROM events WHERE " + strings.Join(where, " AND ") + " ORDER BY " + order + " LIMIT ?",
		append(args, lifecycle.Limit(f.Limit))
}

// WakeEvents implements fleet.Journal.
func (db *DB) WakeEvents() (<-chan struct{}, func()) { return db.watch(db.watchers) }
