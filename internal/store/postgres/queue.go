package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Queue is the queue of the tasks in this store.
func (db *DB) Queue() fleet.Queue { return queue{db} }

type queue struct{ *DB }

// Wake implements fleet.Queue.
func (q queue) Wake() <-chan struct{} { return q.wake }

// countsOf reads the rows, and of those that have tasks due the oldest.
const countsOf = `SELECT c.*, coalesce(f.due_at, 0) FROM (
	SELECT pool, tenant, priority, sum(due)::bigint AS due, sum(delayed)::bigint, sum(held)::bigint, sum(dead)::bigint, sum(arrived)::bigint
	FROM tally GROUP BY pool, tenant, priority) AS c
	LEFT JOIN LATERAL (SELECT t.due_at FROM tasks t WHERE c.due > 0 AND t.place = 0 AND t.pool = c.pool AND t.tenant = c.tenant AND t.priority = c.priority
	ORDER BY t.due_at, t.seq LIMIT 1) AS f ON true`

func scanCounts(rows pgx.Rows) ([]row, error) {
	defer rows.Close()
	var out []row
	for rows.Next() {
		var r row
		var oldest int64
		if err := rows.Scan(&r.pool, &r.tenant, &r.priority, &r.due, &r.delayed, &r.held, &r.dead, &r.arrived, &oldest); err != nil {
			return nil, err
		}
		r.oldest = fromNano(oldest)
		out = append(out, r)
	}
	return out, rows.Err()
}

// Stats implements fleet.Queue: one exchange with the server.
func (q queue) Stats(ctx context.Context) (fleet.QueueStats, error) {
	var counts []row
	var moved bool
	now := q.now()
	err := q.read(ctx, "queue stats", func(ctx context.Context, p *pgxpool.Pool) error {
		b := &pgx.Batch{}
		moved = false
		q.queueTurn(b, &moved)
		b.Queue(countsOf).Query(func(rows pgx.Rows) (err error) {
			counts, err = scanCounts(rows)
			return err
		})
		return p.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return fleet.QueueStats{}, err
	}
	if moved {
		q.changed(exchange{woken: true})
	}
	return stats(counts, q.shares(), now), nil
}

// Extend implements fleet.Queue. The lease of a task that has claimed a sandbox
// does not end, so that there is nothing to write.
func (q queue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	if d <= 0 && ctx.Err() == nil {
		return l, fmt.Errorf("extend by %s: want more than 0: %w", d, fleet.ErrInvalid)
	}
	var r record
	var problem error
	until := l.Until
	err := q.work.Write(ctx, &call{
		Name: "extend", Loose: true, Led: true, Keys: []string{taskKey(l.Task)},
		Read: func(b *pgx.Batch) { lockTask(b, l.Task, &r, &problem) },
		Decide: func(x *exchange) error {
			if problem != nil {
				return problem
			}
			if err := r.owned(l.Fence, q.now()); err != nil {
				return err
			}
			if until = q.now().Add(d); r.place == isLeased {
				x.expect(until)
			}
			return nil
		},
		Write: func(b *pgx.Batch) {
			if r.place == isLeased {
				b.Queue("UPDATE tasks SET lease_until = $2 WHERE id = $1", string(l.Task), nano(until))
			}
		},
	})
	if err == nil {
		l.Until = until
	}
	return l, err
}

// Ack implements fleet.Queue. Settle acknowledges too, so this only checks.
func (q queue) Ack(ctx context.Context, l fleet.Lease) error {
	var r record
	err := q.read(ctx, "ack", func(ctx context.Context, p *pgxpool.Pool) (err error) {
		r, err = scanTask(p.QueryRow(ctx, selectTask+"WHERE t.id = $1", string(l.Task)))
		return absent(err, "task", string(l.Task))
	})
	switch {
	case err != nil:
		return err
	case r.Fence == l.Fence && r.State.Final():
		return nil
	}
	if err := r.owned(l.Fence, q.now()); err != nil {
		return fmt.Errorf("ack: %w", err)
	}
	return fmt.Errorf("ack: task %s is not settled: call Settle, which acknowledges too: %w", l.Task, fleet.ErrInvalid)
}

// Nack implements fleet.Queue.
func (q queue) Nack(ctx context.Context, l fleet.Lease, delay time.Duration, why string) error {
	_, err := q.finish(ctx, "nack", l, func(r *record) error {
		due := q.now().Add(max(0, delay))
		if !r.State.Active() {
			r.Task = lifecycle.Nacked(r.Task, due, why)
			return nil
		}
		r.Task = lifecycle.Retried(r.Task, due, why, q.now())
		r.deadline = lifecycle.ExpiresAt(r.Task)
		return nil
	})
	return err
}

// DeadLetter implements fleet.Queue.
func (q queue) DeadLetter(ctx context.Context, l fleet.Lease, why string) error {
	_, err := q.finish(ctx, "dead-letter", l, func(r *record) error {
		r.Task = lifecycle.Poisoned(r.Task, why, q.now())
		return nil
	})
	return err
}

var _ fleet.Queue = queue{}
