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
// beat and patienceOfLeader; the server lets go of the lock of one that is cut
// off within the keep-alive times, which are shorter than the patience of an
// operator and longer than a leader goes on.
const (
	beat             = time.Second
	patienceOfLeader = 2 * time.Second
	candidacy        = 500 * time.Millisecond
)

// Campaign waits until this process is elected, begins a term (Lead), and runs
// lead with a context that ends when leadership does; then it campaigns again,
// until ctx ends, the store is closed, or lead returns an error. One process among those that
// campaign on a schema leads at a time: whoever holds a lock that the server
// ties to a connection, so that a leader that dies, or that the server cannot
// reach any more, is followed by another within some seconds. Its error is
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
	number := pg.LockNumber(db.server.Schema() + " leader")
	for {
		got, err := db.try(ctx, c, number)
		if err != nil {
			return false, err
		}
		if got {
			break
		}
		if err := sleep(ctx, candidacy); err != nil {
			return false, err
		}
	}
	term, err := db.Lead(ctx)
	if err != nil {
		return false, err
	}
	return true, db.reign(ctx, c, term, lead)
}

func (db *DB) try(ctx context.Context, c *pgx.Conn, number int64) (got bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patienceOfLeader)
	defer cancel()
	err = c.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", number).Scan(&got)
	return got, pg.Fault(err)
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
	over := make(chan error, 1)
	go func() { over <- lead(ctx, term) }()
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case err := <-over:
			if err != nil {
				err = &leadError{err}
			}
			return err
		case <-ctx.Done():
			<-over
			return ctx.Err()
		case <-db.stopped:
			end(db.closedErr())
			<-over
			return db.closedErr()
		case <-t.C:
		}
		// Whether another leads though the lock is held: somebody called Lead.
		n, err := db.ask(ctx, c, fmt.Sprintf("SELECT FROM leadership WHERE term = %d", term))
		if err == nil && n == 0 {
			err = fmt.Errorf("term %d: %w", term, ErrDeposed)
		}
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("leadership is lost: %w", err)
			end(err)
			<-over
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
