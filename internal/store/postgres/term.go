package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Lead makes this store the one that leads and returns its term. Whatever a
// store that led before still writes and may not is refused from now on
// (ErrDeposed); what it had begun to write is over when Lead returns. Leases
// of earlier leaders that have claimed no sandbox go back to the queue. A store
// that leads already begins a new term.
func (db *DB) Lead(ctx context.Context) (int64, error) {
	var term int64
	err := db.read(ctx, "lead", func(ctx context.Context, p *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", db.turnstile); err != nil {
				return fmt.Errorf("a transaction of the control plane that led is not over: %w", err)
			}
			if _, err := tx.Exec(ctx, "UPDATE tasks SET place = 0, phases = '', lease_until = 0 WHERE place = 2 AND lease_term > 0"); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "UPDATE leadership SET term = term + 1, leader = $1, since = now() RETURNING term", db.opt.Name).Scan(&term)
		})
	})
	if err != nil {
		return 0, err
	}
	db.term.Store(term)
	db.changed(exchange{woken: true})
	return term, nil
}

// Term is the newest term of the store and who leads in it; 0: nobody ever
// did.
func (db *DB) Term(ctx context.Context) (term int64, leader string, err error) {
	err = db.read(ctx, "term", func(ctx context.Context, p *pgxpool.Pool) error {
		return p.QueryRow(ctx, "SELECT term, leader FROM leadership").Scan(&term, &leader)
	})
	return term, leader, err
}
