package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tick is how often a process looks whether another has changed anything,
// should push have failed to say so.
const tick = time.Second

// clock knows when the queue next changes by itself.
type clock struct {
	mu   sync.Mutex
	next time.Time // zero: not before the next tick
	kick chan struct{}
}

// expect makes the clock go off at a time at the latest.
func (c *clock) expect(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next.IsZero() || at.Before(c.next) {
		c.next = at
		poke(c.kick)
	}
}

// queueTurn queues what time does: tasks become due, and leases end that have
// claimed no sandbox. moved tells whether any did. What another transaction is
// busy with is left to it.
func (db *DB) queueTurn(b *pgx.Batch, moved *bool) {
	now := db.now().UnixNano()
	*moved = false
	some := func(tag pgconn.CommandTag) error {
		*moved = *moved || tag.RowsAffected() > 0
		return nil
	}
	b.Queue("UPDATE tasks SET place = 0 WHERE id IN (SELECT id FROM tasks WHERE place = 1 AND due_at <= $1 FOR UPDATE SKIP LOCKED)", now).Exec(some)
	b.Queue(`UPDATE tasks SET place = 0, phases = '', lease_until = 0, result = $2
		WHERE id IN (SELECT id FROM tasks WHERE place = 2 AND lease_until <= $1 FOR UPDATE SKIP LOCKED)`, now, leaseEnded).Exec(some)
}

// keepTime is the goroutine that turns the queue when it is time, and looks
// after the other processes.
func (db *DB) keepTime() {
	var seen peers
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-db.stopped:
			return
		case <-db.clock.kick:
		case <-t.C:
			db.turn(&seen)
		}
		db.clock.mu.Lock()
		wait := tick
		if next := db.clock.next; !next.IsZero() {
			wait = min(tick, max(next.Sub(db.now()), time.Millisecond))
		}
		db.clock.mu.Unlock()
		t.Reset(wait)
	}
}

// peers is what the other processes have changed, as counted in the table.
type peers struct {
	queue, events, boxes int64
	known                bool
}

// turn does what is due. A failure is one of the next call, too, and is
// reported by that; it is tried again with the next tick.
func (db *DB) turn(seen *peers) {
	var moved bool
	var others peers
	var due, until *int64
	err := db.read(context.Background(), "turn", func(ctx context.Context, p *pgxpool.Pool) error {
		b := &pgx.Batch{}
		db.queueTurn(b, &moved)
		b.Queue(`SELECT coalesce(sum(queue), 0)::bigint, coalesce(sum(events), 0)::bigint, coalesce(sum(boxes), 0)::bigint,
			(SELECT min(due_at) FROM tasks WHERE place = 1), (SELECT min(lease_until) FROM tasks WHERE place = 2)
			FROM peers WHERE id <> $1`, db.id).QueryRow(func(row pgx.Row) error {
			return row.Scan(&others.queue, &others.events, &others.boxes, &due, &until)
		})
		return p.SendBatch(ctx, b).Close()
	})
	db.clock.mu.Lock()
	db.clock.next = time.Time{}
	for _, at := range []*int64{due, until} {
		if next := db.clock.next; at != nil && (next.IsZero() || fromNano(*at).Before(next)) {
			db.clock.next = fromNano(*at)
		}
	}
	db.clock.mu.Unlock()
	if err != nil {
		return
	}
	others.known = true
	if moved {
		db.changed(exchange{woken: true})
	}
	if seen.known {
		db.wakeUp(exchange{woken: seen.queue != others.queue, told: seen.events != others.events, boxed: seen.boxes != others.boxes})
	}
	*seen = others
}
