package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// ExpireQueued implements fleet.Tasks. It looks before it writes, so that
// calling it often costs little when nothing has expired.
func (db *DB) ExpireQueued(ctx context.Context, now time.Time, limit int) ([]fleet.Task, error) {
	const late = "place IN (0, 1) AND deadline > 0 AND deadline <= $1"
	var some, moved bool
	err := db.read(ctx, "expire", func(ctx context.Context, p *pgxpool.Pool) error {
		b := &pgx.Batch{}
		db.queueTurn(b, &moved)
		b.Queue("SELECT EXISTS (SELECT FROM tasks WHERE "+late+")", now.UnixNano()).QueryRow(func(row pgx.Row) error { return row.Scan(&some) })
		return p.SendBatch(ctx, b).Close()
	})
	out := []fleet.Task{}
	if moved {
		db.changed(exchange{woken: true})
	}
	if err != nil || !some {
		return out, err
	}
	var ends []*ending
	err = db.work.Write(ctx, &call{
		Name: "expire", Keys: []string{"expire"},
		Read: func(b *pgx.Batch) {
			ends = nil
			b.Queue(selectTask+"WHERE t."+late+" ORDER BY t.deadline, t.seq LIMIT $2 FOR UPDATE OF t SKIP LOCKED",
				now.UnixNano(), lifecycle.Limit(limit)).Query(func(rows pgx.Rows) error {
				got, err := scanTasks(rows)
				for _, r := range got {
					ends = append(ends, &ending{db: db, id: r.ID, r: r})
				}
				return err
			})
		},
		Decide: func(x *exchange) error {
			for _, e := range ends {
				if err := e.take(x, func(r *record) error {
					r.Task = lifecycle.Expired(r.Task, now)
					return nil
				}); err != nil {
					return err
				}
			}
			return nil
		},
		Write: func(b *pgx.Batch) {
			for _, e := range ends {
				e.write(b)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	for _, e := range ends {
		out = append(out, e.r.Task)
	}
	return out, nil
}

// WebhookDone implements fleet.Tasks.
func (db *DB) WebhookDone(ctx context.Context, id fleet.TaskID, problem string) error {
	found := false
	return db.work.Write(ctx, &call{
		Name: "webhook done", Loose: true, Keys: []string{taskKey(id)},
		Write: func(b *pgx.Batch) {
			b.Queue("UPDATE tasks SET webhook = CASE webhook WHEN 1 THEN 2 ELSE webhook END, webhook_problem = $2 WHERE id = $1",
				string(id), clean(problem)).Exec(func(tag pgconn.CommandTag) error {
				found = tag.RowsAffected() > 0
				return nil
			})
		},
		After: func() error {
			if !found {
				return fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
			}
			return nil
		},
	})
}

// Prune implements fleet.Tasks. Tasks whose webhook is still to be delivered
// are kept. Records of sandboxes gone before the same time are deleted too.
func (db *DB) Prune(ctx context.Context, before time.Time, limit int) ([]fleet.TaskID, error) {
	const old = "SELECT id FROM tasks WHERE place = 4 AND ended_at < $1 AND webhook <> 1 ORDER BY ended_at, id LIMIT $2"
	var some bool
	err := db.read(ctx, "prune", func(ctx context.Context, p *pgxpool.Pool) error {
		return p.QueryRow(ctx, "SELECT EXISTS ("+old+") OR EXISTS (SELECT FROM sandboxes WHERE gone AND gone_at < $1)", before.UnixNano(), 1).Scan(&some)
	})
	out := []fleet.TaskID{}
	if err != nil || !some {
		return out, err
	}
	err = db.work.Write(ctx, &call{
		Name: "prune", Loose: true, Keys: []string{"prune"},
		Write: func(b *pgx.Batch) {
			out = []fleet.TaskID{}
			b.Queue("WITH old AS ("+old+` FOR UPDATE SKIP LOCKED),
				pruned AS (DELETE FROM tasks t USING old WHERE t.id = old.id RETURNING t.id, t.ended_at),
				l AS (DELETE FROM labels USING old WHERE task = old.id), m AS (DELETE FROM messages USING old WHERE task = old.id),
				s AS (DELETE FROM specs s USING old WHERE s.id = old.id)
				SELECT id FROM pruned ORDER BY ended_at, id`, before.UnixNano(), lifecycle.Limit(limit)).Query(func(rows pgx.Rows) error {
				got, err := pgx.CollectRows(rows, pgx.RowTo[string])
				for _, id := range got {
					out = append(out, fleet.TaskID(id))
				}
				return err
			})
			b.Queue("DELETE FROM sandboxes WHERE gone AND gone_at < $1", before.UnixNano())
		},
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
