package sqlite

import (
	"context"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// ExpireQueued implements fleet.Tasks. It looks before it writes, so that
// calling it often costs nothing when nothing has expired.
func (db *DB) ExpireQueued(ctx context.Context, now time.Time, limit int) ([]fleet.Task, error) {
	const late = "FROM tasks WHERE place = 0 AND deadline > 0 AND deadline <= ? ORDER BY deadline, seq LIMIT ?"
	if err := db.reap(ctx); err != nil {
		return nil, fmt.Errorf("expire: %w", err)
	}
	out := []fleet.Task{}
	var n int
	if err := db.readers.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 "+late+")", now.UnixNano(), 1).Scan(&n); err != nil {
		return nil, db.wrap("expire", err)
	}
	if n == 0 {
		return out, nil
	}
	err := db.write(ctx, "expire", durable, func(t *tx) error {
		seqs, err := t.ints("SELECT seq "+late, now.UnixNano(), lifecycle.Limit(limit))
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			r, err := t.task(seq)
			if err != nil {
				return err
			}
			task, err := db.settleWaiting(t, r, func(r *record) error {
				r.Task = lifecycle.Expired(r.Task, now)
				return nil
			})
			if err != nil {
				return err
			}
			out = append(out, task)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ints reads a column of integers.
func (t *tx) ints(query string, args ...any) ([]int64, error) {
	rows, err := t.rows(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// WebhookDone implements fleet.Tasks.
func (db *DB) WebhookDone(ctx context.Context, id fleet.TaskID, problem string) error {
	return db.write(ctx, "webhook done", patient, func(t *tx) error {
		res, err := t.exec("UPDATE tasks SET webhook = CASE webhook WHEN 1 THEN 2 ELSE webhook END, webhook_problem = ? WHERE id = ?", problem, string(id))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
		}
		return nil
	})
}

// Prune implements fleet.Tasks. Tasks whose webhook is still to be delivered
// are kept. Records of sandboxes gone before the same time are deleted too.
func (db *DB) Prune(ctx context.Context, before time.Time, limit int) ([]fleet.TaskID, error) {
	const old = "FROM tasks WHERE place = 2 AND ended_at < ? AND webhook <> 1 ORDER BY ended_at, id LIMIT ?"
	out := []fleet.TaskID{}
	var tasks, boxes int
	if err := db.readers.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM (SELECT 1 "+old+`)),
		EXISTS (SELECT 1 FROM sandboxes WHERE state = 'gone' AND gone_at < ?)`, before.UnixNano(), 1, before.UnixNano()).Scan(&tasks, &boxes); err != nil {
		return nil, db.wrap("prune", err)
	}
	if tasks == 0 && boxes == 0 {
		return out, nil
	}
	err := db.write(ctx, "prune", patient, func(t *tx) error {
		seqs, err := t.ints("SELECT seq "+old, before.UnixNano(), lifecycle.Limit(limit))
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			r, err := t.task(seq)
			if err != nil {
				return err
			}
			if err := db.delete(t, r); err != nil {
				return err
			}
			out = append(out, r.ID)
		}
		_, err = t.exec("DELETE FROM sandboxes WHERE state = 'gone' AND gone_at < ?", before.UnixNano())
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (db *DB) delete(t *tx, r record) error {
	for k, v := range r.Spec.Labels {
		if _, err := t.exec("DELETE FROM labels WHERE key = ? AND value = ? AND task = ?", k, v, string(r.ID)); err != nil {
			return err
		}
	}
	if r.Spec.Origin != nil {
		if _, err := t.exec("DELETE FROM messages WHERE task = ?", string(r.ID)); err != nil {
			return err
		}
	}
	for _, q := range []string{"DELETE FROM specs WHERE seq = ?", "DELETE FROM tasks WHERE seq = ?"} {
		if _, err := t.exec(q, r.seq); err != nil {
			return err
		}
	}
	if lifecycle.Dead(r.Task) {
		db.mu.Lock()
		db.line.dead--
		t.moved = true
		db.mu.Unlock()
	}
	return nil
}
