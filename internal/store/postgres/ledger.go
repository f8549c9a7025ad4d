package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// LedgerState implements fleet.Ledger.
func (db *DB) LedgerState(ctx context.Context) (int64, []byte, error) {
	var seq int64
	var state []byte
	err := db.read(ctx, "ledger state", func(ctx context.Context, p *pgxpool.Pool) error {
		seq, state = 0, nil
		err := p.QueryRow(ctx, "SELECT seq, state FROM ledger").Scan(&seq, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return seq, state, err
}

// Post implements fleet.Ledger.
func (db *DB) Post(ctx context.Context, p fleet.Posting) error {
	var last int64
	state := append([]byte{}, p.State...)
	return db.work.Write(ctx, &call{
		Name: "post to the ledger", Led: true, Keys: []string{"ledger"}, Weight: len(state) + 64*len(p.Tasks),
		Read: func(b *pgx.Batch) {
			last = 0
			b.Queue("SELECT seq FROM ledger FOR UPDATE").Query(func(rows pgx.Rows) error {
				seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if len(seqs) > 0 {
					last = seqs[0]
				}
				return err
			})
		},
		Decide: func(*exchange) error {
			if p.Seq != last+1 {
				return fmt.Errorf("posting %d after %d: %w", p.Seq, last, fleet.ErrConflict)
			}
			return nil
		},
		Write: func(b *pgx.Batch) {
			if p.Seq == 1 { // fails where another process has written the first one meanwhile
				b.Queue("INSERT INTO ledger (one, seq, state) VALUES (1, $1, $2)", p.Seq, state)
			} else {
				b.Queue("UPDATE ledger SET seq = $1, state = $2", p.Seq, state)
			}
			writePosting(b, p)
		},
	})
}

// writePosting writes what a posting adds to.
func writePosting(b *pgx.Batch, p fleet.Posting) {
	for _, k := range p.Books {
		b.Queue(`INSERT INTO ledger_books (span, at, content) VALUES ($1, $2, $3)
			ON CONFLICT (span, at) DO UPDATE SET content = excluded.content`, string(k.Span), nano(k.From), append([]byte{}, k.Content...))
	}
	if len(p.Tasks) == 0 {
		return
	}
	ids, micro, busy, outcomes := [][]byte{}, []int64{}, []int64{}, []string{}
	at := map[fleet.TaskID]int{} // one statement cannot write a row twice
	for _, t := range p.Tasks {
		i, seen := at[t.Task]
		if !seen {
			i = len(ids)
			at[t.Task] = i
			ids, micro, busy, outcomes = append(ids, t.Task.Pack()), append(micro, 0), append(busy, 0), append(outcomes, "")
		}
		micro[i], busy[i], outcomes[i] = t.MicroUSD, t.Busy.Milliseconds(), string(t.Outcome)
	}
	b.Queue(`INSERT INTO ledger_tasks (task, micro, busy, outcome)
		SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[])
		ON CONFLICT (task) DO UPDATE SET micro = excluded.micro, busy = excluded.busy, outcome = excluded.outcome`,
		ids, micro, busy, outcomes)
}

// Books implements fleet.Ledger.
func (db *DB) Books(ctx context.Context, span fleet.BookSpan, from, until time.Time) ([]fleet.Book, error) {
	out := []fleet.Book{}
	err := db.read(ctx, "books", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Book{}
		rows, err := p.Query(ctx, "SELECT at, content FROM ledger_books WHERE span = $1 AND at >= $2 AND at < $3 ORDER BY at",
			string(span), moment(from), moment(until))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var at int64
			b := fleet.Book{Span: span}
			if err := rows.Scan(&at, &b.Content); err != nil {
				return err
			}
			b.From = fromNano(at)
			out = append(out, b)
		}
		return rows.Err()
	})
	return out, err
}

// TaskCosts implements fleet.Ledger.
func (db *DB) TaskCosts(ctx context.Context, ids []fleet.TaskID) ([]fleet.TaskCost, error) {
	packed := make([][]byte, len(ids))
	for i, id := range ids {
		packed[i] = id.Pack()
	}
	return db.taskCosts(ctx, "WHERE task = ANY ($1)", packed)
}

// DearestTasks implements fleet.Ledger.
func (db *DB) DearestTasks(ctx context.Context, from, until time.Time, limit int) ([]fleet.TaskCost, error) {
	return db.taskCosts(ctx, "WHERE task >= $1 AND task < $2 ORDER BY micro DESC, task LIMIT $3",
		fleet.FirstTaskID(from).Pack(), fleet.FirstTaskID(until).Pack(), lifecycle.Limit(limit))
}

func (db *DB) taskCosts(ctx context.Context, where string, args ...any) ([]fleet.TaskCost, error) {
	out := []fleet.TaskCost{}
	err := db.read(ctx, "task costs", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.TaskCost{}
		rows, err := p.Query(ctx, "SELECT task, micro, busy, outcome FROM ledger_tasks "+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id []byte
			var busy int64
			var c fleet.TaskCost
			if err := rows.Scan(&id, &c.MicroUSD, &busy, &c.Outcome); err != nil {
				return err
			}
			c.Task, c.Busy = fleet.UnpackTaskID(id), time.Duration(busy)*time.Millisecond
			out = append(out, c)
		}
		return rows.Err()
	})
	return out, err
}

// PruneLedger implements fleet.Ledger.
func (db *DB) PruneLedger(ctx context.Context, before time.Time) error {
	return db.work.Write(ctx, &call{Name: "prune the ledger", Loose: true, Led: true, Keys: []string{"ledger"}, Write: func(b *pgx.Batch) {
		b.Queue("DELETE FROM ledger_books WHERE at < $1", moment(before))
		b.Queue("DELETE FROM ledger_tasks WHERE task < $1", fleet.FirstTaskID(before).Pack())
	}})
}
