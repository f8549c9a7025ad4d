package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/pg"
)

// The rows of tally are folded into one for each pool, tenant and priority when
// there may be this many more, and what they took on disk is given back after
// so many.
const (
	foldAfter   = 256
	vacuumAfter = 20_000
)

// folding counts what may have become foldable.
type folding struct {
	moves atomic.Int64 // writes of this process since the last fold
	gone  int64        // writes since the last vacuum; the goroutine's own
}

// keepFolding is the goroutine that keeps the counts short. A failure is tried
// again.
func (db *DB) keepFolding() {
	t := time.NewTicker(tick / 4)
	defer t.Stop()
	quiet := 0
	for {
		select {
		case <-db.stopped:
			return
		case <-t.C:
		}
		// Others may add rows that nobody folds: look now and then in any case.
		if quiet++; db.folding.moves.Load() < foldAfter && quiet < 60 {
			continue
		}
		quiet = 0
		db.folding.gone += db.folding.moves.Swap(0)
		_ = db.fold(context.Background())
	}
}

// fold replaces the rows of tally by their sums. Whoever reads meanwhile sees
// either.
func (db *DB) fold(ctx context.Context) error {
	err := db.read(ctx, "fold counts", func(ctx context.Context, p *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			var mine bool
			if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", pg.LockNumber(db.server.Schema()+" fold")).Scan(&mine); err != nil || !mine {
				return err
			}
			_, err := tx.Exec(ctx, `WITH gone AS (DELETE FROM tally RETURNING *)
				INSERT INTO tally SELECT pool, tenant, priority, sum(due), sum(delayed), sum(held), sum(dead), sum(arrived) FROM gone GROUP BY 1, 2, 3`)
			return err
		})
	})
	if err != nil || db.folding.gone < vacuumAfter {
		return err
	}
	db.folding.gone = 0
	return db.read(ctx, "vacuum counts", func(ctx context.Context, p *pgxpool.Pool) error {
		_, err := p.Exec(ctx, "VACUUM tally")
		return err
	})
}
