package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/pg"
)

// The times of an election. A leader that cannot reach the server stops within
// beat and patienceOfLeader. The server lets go of the lock of one that died at
// once, of one that is cut off within the keep-alive times; a candidate ends the
// session of one that has not said anything for silence.
const (
	beat             = time.Second
	patienceOfLeader = 2 * time.Second
	candidacy        = 500 * time.Millisecond
	silence          = 6 * time.Second
)

// Campaign waits until this process is elected, begins a term (Lead), and runs
// lead with a context that ends when leadership does; then it campaigns again,
// until ctx ends, the store is closed, or lead returns an error. Of those that
// campaign on a schema one leads at a time: whoever holds a lock that the server
// ties to a connection. A leader that dies is followed by another within about
// a second, one that is cut off or stands still within some ten. Its error is
// lead's, or ctx's.
func (db *DB) Campaign(ctx context.Context, lead func(ctx context.Context, term int64) error) error {
	lost := false
	for ctx.Err() == nil {
		led, err := db.stand(ctx, lead)
		var own *leadError
		switch {
		case errors.As(err, &own):
			return own.error
		case err != nil && !lost && ctx.Err() == nil:
			db.opt.Log.Warn("cannot stand for election; trying again", "error", err)
		}
		lost = err != nil && !led
		select {
		case <-db.stopped:
			return fmt.Errorf("campaign: %w", db.closedErr())
		default:
			_ = sleep(ctx, candidacy) // the loop looks at ctx
		}
	}
	return fmt.Errorf("campaign: %w", ctx.Err())
}

// leadError is what lead itself returned.
type leadError struct{ error }

// stand is one candidacy: until another is found to lead, or the own
// leadership is over.
func (db *DB) stand(ctx context.Context, lead func(context.Context, int64) error) (led bool, err error) {
	c, err := db.server.Dedicated(ctx)
	if err != nil {
		return false, err
	}
	defer pg.CloseConn(c)
	// The server notices a peer that is gone without a word after some 4 s.
	if _, err := db.ask(ctx, c, "SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2; SET tcp_user_timeout = 4000; SET lock_timeout = 0; SET statement_timeout = 0"); err != nil {
		return false, err
	}
	if err := db.wait(ctx, c); err != nil {
		return false, err
	}
	term, err := db.Lead(ctx)
	if err != nil {
		return false, err
	}
	return true, db.reign(ctx, c, term, lead)
}

// wait returns once the lock is held on c.
func (db *DB) wait(ctx context.Context, c *pgx.Conn) error {
	number := pg.LockNumber(db.server.Schema() + " leader")
	var last [2]int64
	heard := time.Now()
	for {
		got, now, err := db.try(ctx, c, number)
		if err != nil || got {
			return err
		}
		if now != last {
			last, heard = now, time.Now()
		}
		if time.Since(heard) > silence {
			db.opt.Log.Warn("the leader is silent; ending its session", "term", now[0], "silent", time.Since(heard).Round(time.Second))
			if err := db.unseat(ctx, c, number); err != nil {
				return err
			}
			heard = time.Now()
		}
		if err := sleep(ctx, candidacy); err != nil {
			return err
		}
	}
}

// try asks for the lock, and for the term and the beat of who has it.
func (db *DB) try(ctx context.Context, c *pgx.Conn, number int64) (got bool, now [2]int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patienceOfLeader)
	defer cancel()
	err = c.QueryRow(ctx, "SELECT pg_try_advisory_lock($1), term, beat FROM leadership", number).Scan(&got, &now[0], &now[1])
	return got, now, pg.Fault(err)
}

// unseat ends the session that holds the lock. See PostgreSQL's documentation,
// "pg_locks", for how it shows an advisory lock of one number.
func (db *DB) unseat(ctx context.Context, c *pgx.Conn, number int64) error {
	ctx, cancel := context.WithTimeout(ctx, patienceOfLeader)
	defer cancel()
	_, err := c.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (classid::bigint << 32) + objid::bigint = $1`, number)
	return pg.Fault(err)
}

func (db *DB) ask(ctx context.Context, c *pgx.Conn, query string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceOfLeader)
	defer cancel()
	tag, err := c.Exec(ctx, query, pgx.QueryExecModeSimpleProtocol)
	return tag.RowsAffected(), pg.Fault(err)
}

// reign runs lead while the connection that holds the lock lives.
func (db *DB) reign(ctx context.Context, c *pgx.Conn, term int64, lead func(context.Context, int64) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var ended error
	over := make(chan struct{})
	go func() {
		defer close(over)
		ended = lead(ctx, term)
	}()
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-over:
			if ended != nil {
				return &leadError{ended}
			}
			return nil
		case <-ctx.Done():
			<-over // it was asked to end: whatever it returns is of that
			return ctx.Err()
		case <-db.stopped:
			end(db.closedErr())
			<-over // it was asked to end: whatever it returns is of that
			return db.closedErr()
		case <-t.C:
		}
		// Whether another leads though the lock is held: somebody called Lead.
		n, err := db.ask(ctx, c, fmt.Sprintf("UPDATE leadership SET beat = beat + 1 WHERE term = %d", term))
		if err == nil && n == 0 {
			err = fmt.Errorf("term %d: %w", term, ErrDeposed)
		}
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("leadership is lost: %w", err)
			end(err)
			<-over // it was asked to end: whatever it returns is of that
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
