package sqlite

import (
	"bytes"
	"compress/flate"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// lastDecision is the newest decision that was stored.
type lastDecision struct {
	seq int64
	at  time.Time
}

// AppendDecision implements fleet.Journal. An unchanged decision within
// Options.ThinDecisions of the last stored one is not stored: the Seq of that
// one is returned, whose plan is the same.
func (db *DB) AppendDecision(ctx context.Context, d fleet.DecisionRecord) (int64, error) {
	parts := [3][]byte{pack(d.Observation), pack(d.Plan), pack(d.State)}
	var seq int64
	err := db.write(ctx, "append decision", patient, func(t *tx) error {
		if last := db.last; !d.Changed && last.seq > 0 {
			if age := d.At.Sub(last.at); age >= 0 && age < db.opt.ThinDecisions {
				seq = last.seq
				return nil
			}
		}
		res, err := t.exec("INSERT INTO decisions (at, changed, observation, plan, state) VALUES (?, ?, ?, ?, ?)",
			nano(d.At), d.Changed, parts[0], parts[1], parts[2])
		if err != nil {
			return err
		}
		if seq, err = res.LastInsertId(); err != nil {
			return err
		}
		if err := t.bound("decisions", seq, db.opt.Decisions); err != nil {
			return err
		}
		db.last = lastDecision{seq, d.At} // forgotten again if this does not commit
		return nil
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// bound deletes the oldest records beyond a number, in portions.
func (t *tx) bound(table string, newest int64, keep int) error {
	const portion = 256
	if newest%portion != 0 {
		return nil
	}
	_, err := t.exec("DELETE FROM "+table+" WHERE seq <= ?", newest-int64(keep))
	return err
}

const selectDecision = "SELECT seq, at, changed, observation, plan, state FROM decisions "

func scanDecision(row scanner) (fleet.DecisionRecord, error) {
	var d fleet.DecisionRecord
	var at int64
	if err := row.Scan(&d.Seq, &at, &d.Changed, &d.Observation, &d.Plan, &d.State); err != nil {
		return d, err
	}
	d.At = fromNano(at)
	for _, p := range []*[]byte{&d.Observation, &d.Plan, &d.State} {
		var err error
		if *p, err = unpack(*p); err != nil {
			return d, fmt.Errorf("decision %d: %w: %w", d.Seq, fleet.ErrCorrupt, err)
		}
	}
	return d, nil
}

// Decision implements fleet.Journal.
func (db *DB) Decision(ctx context.Context, seq int64) (fleet.DecisionRecord, error) {
	d, err := scanDecision(db.readers.QueryRowContext(ctx, selectDecision+"WHERE seq = ?", seq))
	if errors.Is(err, sql.ErrNoRows) {
		return d, fmt.Errorf("decision %d: %w", seq, fleet.ErrNotFound)
	}
	return d, db.wrap("decision", err)
}

// Decisions implements fleet.Journal; oldest first.
func (db *DB) Decisions(ctx context.Context, after int64, limit int) ([]fleet.DecisionRecord, error) {
	rows, err := db.readers.QueryContext(ctx, selectDecision+"WHERE seq > ? ORDER BY seq LIMIT ?", after, lifecycle.Limit(limit))
	if err != nil {
		return nil, db.wrap("decisions", err)
	}
	defer rows.Close()
	out := []fleet.DecisionRecord{}
	for rows.Next() {
		d, err := scanDecision(rows)
		if err != nil {
			return nil, db.wrap("decisions", err)
		}
		out = append(out, d)
	}
	return out, db.wrap("decisions", rows.Err())
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
func (db *DB) WakeEvents() (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	db.watchMu.Lock()
	defer db.watchMu.Unlock()
	db.watchers[w] = struct{}{}
	return w, func() {
		db.watchMu.Lock()
		defer db.watchMu.Unlock()
		delete(db.watchers, w)
	}
}

// tell wakes everyone who waits for events.
func (db *DB) tell() {
	db.watchMu.Lock()
	defer db.watchMu.Unlock()
	for w := range db.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// Stored parts of a decision begin with a byte that says how they are kept.
const (
	plain  = 0
	packed = 1
)

// pack shortens what is worth it: an observation of a large fleet is JSON of
// a hundred kilobytes, and a tenth of that deflated.
func pack(b []byte) []byte {
	if len(b) >= 1<<10 {
		var buf bytes.Buffer
		buf.WriteByte(packed)
		w, err := flate.NewWriter(&buf, flate.BestSpeed)
		if err == nil {
			if _, err = w.Write(b); err == nil {
				err = w.Close()
			}
		}
		if err == nil {
			return buf.Bytes()
		}
	}
	return append([]byte{plain}, b...)
}

func unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errors.New("nothing is stored")
	}
	switch b[0] {
	case plain:
		return b[1:], nil
	case packed:
		return io.ReadAll(flate.NewReader(bytes.NewReader(b[1:])))
	}
	return nil, fmt.Errorf("unknown form %d", b[0])
}
