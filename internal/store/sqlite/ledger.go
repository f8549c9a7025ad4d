package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// outcomes are the values of ledger_tasks.outcome; they are never reordered.
var outcomes = []fleet.TaskState{"", fleet.TaskSucceeded, fleet.TaskFailed, fleet.TaskTimedOut, fleet.TaskCancelled, fleet.TaskLost}

// spans are the values of ledger_books.span.
var spans = []fleet.BookSpan{fleet.BookHour, fleet.BookDay}

// hourOf is a time in hours since 1970, rounded down.
func hourOf(t time.Time) int64 {
	h := t.Unix() / 3600
	if t.Unix()%3600 < 0 {
		h--
	}
	return h
}

// hourFrom is the first full hour at or after a time.
func hourFrom(t time.Time) int64 {
	if h := hourOf(t); time.Unix(h*3600, 0).Before(t) {
		return h + 1
	}
	return hourOf(t)
}

// LedgerState implements fleet.Ledger.
func (db *DB) LedgerState(ctx context.Context) (int64, []byte, error) {
	var seq int64
	var state []byte
	err := db.readers.QueryRowContext(ctx, "SELECT seq, state FROM ledger").Scan(&seq, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	return seq, state, db.wrap("ledger state", err)
}

// Post implements fleet.Ledger.
func (db *DB) Post(ctx context.Context, p fleet.Posting) error {
	return db.write(ctx, "post to the ledger", durable, func(t *tx) error {
		if err := t.step(p); err != nil {
			return err
		}
		for _, b := range p.Books {
			if _, err := t.exec(`INSERT INTO ledger_books (span, at, content) VALUES (?, ?, ?)
				ON CONFLICT (span, at) DO UPDATE SET content = excluded.content`,
				slices.Index(spans, b.Span), hourOf(b.From), append([]byte{}, b.Content...)); err != nil {
				return err
			}
		}
		for _, c := range p.Tasks {
			if _, err := t.exec(`INSERT INTO ledger_tasks (task, micro, busy, outcome) VALUES (?, ?, ?, ?)
				ON CONFLICT (task) DO UPDATE SET micro = excluded.micro, busy = excluded.busy, outcome = excluded.outcome`,
				c.Task.Pack(), c.MicroUSD, c.Busy.Milliseconds(), max(0, slices.Index(outcomes, c.Outcome))); err != nil {
				return err
			}
		}
		return nil
	})
}

// step moves the ledger from one posting to the next.
func (t *tx) step(p fleet.Posting) error {
	query, args := "UPDATE ledger SET seq = ?, state = ? WHERE seq = ?", []any{p.Seq, append([]byte{}, p.State...), p.Seq - 1}
	if p.Seq == 1 {
		query, args = "INSERT INTO ledger (only, seq, state) VALUES (1, ?, ?) ON CONFLICT DO NOTHING", args[:2]
	}
	res, err := t.exec(query, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("posting %d follows another one: %w", p.Seq, fleet.ErrConflict)
}

// Books implements fleet.Ledger.
func (db *DB) Books(ctx context.Context, span fleet.BookSpan, from, until time.Time) ([]fleet.Book, error) {
	rows, err := db.readers.QueryContext(ctx, "SELECT at, content FROM ledger_books WHERE span = ? AND at >= ? AND at < ? ORDER BY at",
		slices.Index(spans, span), hourFrom(from), hourFrom(until))
	if err != nil {
		return nil, db.wrap("books", err)
	}
	defer rows.Close()
	out := []fleet.Book{}
	for rows.Next() {
		var at int64
		b := fleet.Book{Span: span}
		if err := rows.Scan(&at, &b.Content); err != nil {
			return nil, db.wrap("books", err)
		}
		b.From = time.Unix(at*3600, 0).UTC()
		out = append(out, b)
	}
	return out, db.wrap("books", rows.Err())
}

// TaskCosts implements fleet.Ledger.
func (db *DB) TaskCosts(ctx context.Context, ids []fleet.TaskID) ([]fleet.TaskCost, error) {
	out := []fleet.TaskCost{}
	for part := range slices.Chunk(ids, 500) {
		args := make([]any, len(part))
		for i, id := range part {
			args[i] = id.Pack()
		}
		found, err := db.taskCosts(ctx, "WHERE task IN ("+marks(len(part))+")", args...)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// DearestTasks implements fleet.Ledger.
func (db *DB) DearestTasks(ctx context.Context, from, until time.Time, limit int) ([]fleet.TaskCost, error) {
	return db.taskCosts(ctx, "WHERE task >= ? AND task < ? ORDER BY micro DESC, task LIMIT ?",
		fleet.FirstTaskID(from).Pack(), fleet.FirstTaskID(until).Pack(), lifecycle.Limit(limit))
}

func (db *DB) taskCosts(ctx context.Context, where string, args ...any) ([]fleet.TaskCost, error) {
	rows, err := db.readers.QueryContext(ctx, "SELECT task, micro, busy, outcome FROM ledger_tasks "+where, args...)
	if err != nil {
		return nil, db.wrap("task costs", err)
	}
	defer rows.Close()
	out := []fleet.TaskCost{}
	for rows.Next() {
		var id []byte
		var busy, outcome int64
		var c fleet.TaskCost
		if err := rows.Scan(&id, &c.MicroUSD, &busy, &outcome); err != nil {
			return nil, db.wrap("task costs", err)
		}
		c.Task, c.Busy = fleet.UnpackTaskID(id), time.Duration(busy)*time.Millisecond
		if outcome > 0 && outcome < int64(len(outcomes)) {
			c.Outcome = outcomes[outcome]
		}
		out = append(out, c)
	}
	return out, db.wrap("task costs", rows.Err())
}

// PruneLedger implements fleet.Ledger.
func (db *DB) PruneLedger(ctx context.Context, before time.Time) error {
	return db.write(ctx, "prune the ledger", patient, func(t *tx) error {
		if _, err := t.exec("DELETE FROM ledger_books WHERE at < ?", hourFrom(before)); err != nil {
			return err
		}
		_, err := t.exec("DELETE FROM ledger_tasks WHERE task < ?", fleet.FirstTaskID(before).Pack())
		return err
	})
}
