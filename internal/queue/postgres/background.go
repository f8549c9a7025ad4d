package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/queue/connect"
)

const (
	// tick is how long the clock of our own table waits at most: leases that
	// another process takes are seen within it.
	tick = time.Second
	// again is the pause after a count was folded, a part at a time.
	again = 100 * time.Millisecond
	// pulse is how often the listener asks whether its connection still lives.
	pulse = 10 * time.Second
)

// clock puts back messages of our own table whose delay or lease ended, when
// it ends, and keeps the count short. Any number of processes may do so.
func (q *Source) clock() {
	var back connect.Backoff
	for q.base.Err() == nil {
		var next time.Duration
		var more bool
		err := q.call(q.base, "clock", func(ctx context.Context) (err error) {
			next, more, err = q.turn(ctx)
			return err
		})
		switch {
		case q.base.Err() != nil:
			return
		case err != nil && !denied(err):
			// The caller's next reading reports it.
			_ = back.Wait(q.base)
			continue
		case err != nil:
			next = tick
		}
		back.Reset()
		if more {
			q.awake()
			continue
		}
		t := time.NewTimer(min(max(next, time.Millisecond), tick))
		select {
		case <-q.base.Done():
		case <-q.kick:
		case <-t.C:
		}
		t.Stop()
	}
}

// turn does in one round trip what is due, and says when to come again.
func (q *Source) turn(ctx context.Context) (next time.Duration, more bool, err error) {
	b := &pgx.Batch{}
	b.Queue(q.own.fill(ownReturn))
	b.Queue(q.own.fill(ownFold))
	b.Queue(q.own.fill(ownNext))
	r := q.pool.SendBatch(ctx, b)
	defer func() { err = errors.Join(err, r.Close()) }()
	tag, err := r.Exec()
	if err != nil {
		return 0, false, err
	}
	folded, err := r.Exec()
	if err != nil {
		return 0, false, err
	}
	var left *float64
	if err := r.QueryRow().Scan(&left); err != nil {
		return 0, false, err
	}
	next = tick
	if folded.RowsAffected() > 0 {
		next = again // there may be more, from when no consumer ran
	}
	if left != nil && *left < next.Seconds() {
		next = time.Duration(*left * float64(time.Second))
	}
	return next, tag.RowsAffected() > 0, nil
}

// listen hears notifications on a connection of its own, and wakes after each
// reconnect, since nobody heard what came between.
func (q *Source) listen(cc *pgx.ConnConfig) {
	var back connect.Backoff
	lost := false
	for q.base.Err() == nil {
		err := q.hear(cc, func() {
			back.Reset()
			if lost {
				q.log.Info("push is back", "channel", q.sql.Channel)
			}
			lost = false
		})
		if q.base.Err() != nil {
			return
		}
		if !lost {
			q.log.Warn("push is lost; the queue is polled until it is back", "channel", q.sql.Channel, "error", err)
			lost = true
		}
		_ = back.Wait(q.base)
	}
}

// hear listens until the connection fails.
func (q *Source) hear(cc *pgx.ConnConfig, up func()) error {
	c, err := q.dedicated(cc)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.base), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	}()
	up()
	q.arrived()
	for {
		ctx, cancel := context.WithTimeout(q.base, pulse)
		_, err := c.WaitForNotification(ctx)
		silent := ctx.Err() != nil
		cancel()
		switch {
		case q.base.Err() != nil:
			return q.base.Err()
		case err == nil:
			q.arrived()
		case silent && !c.IsClosed():
			if err := q.alive(c); err != nil {
				return fmt.Errorf("listen: %w", err)
			}
		default:
			return fmt.Errorf("listen: %w", err)
		}
	}
}

func (q *Source) arrived() {
	q.awake()
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// dedicated is a connection that listens.
func (q *Source) dedicated(cc *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(q.base, patience)
	defer cancel()
	cc = cc.Copy()
	if err := q.cfg.beforeConnect(ctx, cc); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	c, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if _, err := c.Exec(ctx, "LISTEN "+pgx.Identifier{q.sql.Channel}.Sanitize()); err != nil {
		_ = c.Close(ctx)
		return nil, fmt.Errorf("listen: %w", err)
	}
	return c, nil
}

func (q *Source) alive(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(q.base, patience)
	defer cancel()
	return c.Ping(ctx)
}
