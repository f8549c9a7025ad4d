package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
)

// Source is a queue in PostgreSQL. It implements fleet.Source; with the SQL of
// Config.SQL for reading only, fleet.Signal.
type Source struct {
	cfg    Config
	own    *table // nil with Config.SQL
	sql    *SQL   // own's, or the user's
	st     statements
	traits fleet.SignalTraits
	log    *slog.Logger
	pool   *pgxpool.Pool
	conns  *connections

	wake chan struct{} // nil where the queue is polled
	kick chan struct{} // the clock looks again when the next lease ends

	base   context.Context // ends with Close
	end    context.CancelFunc
	tasks  sync.WaitGroup
	closed sync.Once

	mu      sync.Mutex
	checked bool // the server has read the statements
}

var _ fleet.Source = (*Source)(nil)

// New returns the queue. It does not need the server: one that is down is
// reported by each call until it is back. Where it is up, statements it cannot
// read are an error now. Errors match fleet.ErrInvalid; those of one field are
// a *fleet.FieldError.
func New(ctx context.Context, cfg Config) (*Source, error) {
	q, err := prepared(cfg)
	if err != nil {
		return nil, err
	}
	pc, err := q.cfg.pool()
	if err != nil {
		return nil, err
	}
	q.conns = newConnections(pc.ConnConfig.DialFunc)
	pc.ConnConfig.DialFunc = q.conns.dial
	q.base, q.end = context.WithCancel(context.WithoutCancel(ctx))
	if q.pool, err = pgxpool.NewWithConfig(q.base, pc); err != nil {
		q.end()
		return nil, fmt.Errorf("pool of connections: %w: %w", fleet.ErrInvalid, err)
	}
	short, cancel := context.WithTimeout(ctx, greeting)
	err = q.call(short, "check", func(context.Context) error { return nil })
	cancel()
	if errors.Is(err, fleet.ErrInvalid) {
		return nil, errors.Join(err, q.Close())
	}
	if q.wake != nil {
		q.tasks.Go(func() { q.listen(pc.ConnConfig) })
	}
	if q.own != nil && !q.cfg.ReadOnly {
		q.tasks.Go(q.clock)
	}
	return q, nil
}

// prepared is a queue without connections.
func prepared(cfg Config) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	q := &Source{cfg: cfg, sql: cfg.SQL, log: cfg.Log, kick: make(chan struct{}, 1)}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.sql == nil {
		t, err := parseTable(cfg.Table)
		if err != nil {
			return nil, err
		}
		q.own, q.sql = &t, t.own()
	}
	var err error
	if q.st, err = q.sql.compile(); err != nil {
		return nil, err
	}
	if cfg.ReadOnly {
		q.st = statements{stats: q.st.stats}
	}
	q.traits = fleet.SignalTraits{Push: q.sql.Channel != "" && !cfg.Poll, Names: true, Durable: true, Binary: !q.sql.Text}
	for _, name := range q.sql.Tells {
		switch name {
		case "delayed":
			q.traits.Delayed = true
		case "in_flight":
			q.traits.InFlight = true
		case "dead":
			q.traits.Dead = true
		case "oldest_seconds":
			q.traits.Oldest = true
		case "arrived":
			q.traits.Arrived = true
		}
	}
	if q.traits.Push {
		q.wake = make(chan struct{}, 1)
	}
	return q, nil
}

// call runs one operation, with a bound in time, on a server whose tables are
// known to be there.
func (q *Source) call(ctx context.Context, what string, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if q.base.Err() != nil {
		return fmt.Errorf("%s: the queue is closed: %w", what, fleet.ErrUnavailable)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(q.base, cancel)()
	err := q.ensure(bounded)
	if err == nil {
		err = f(bounded)
	}
	switch {
	case err == nil:
		return nil
	case q.base.Err() != nil:
		return fmt.Errorf("%s: the queue is closed: %w", what, fleet.ErrUnavailable)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", what, fleet.ErrUnavailable, ctx.Err())
	case bounded.Err() != nil:
		err = fmt.Errorf("no answer within %s: %w", patience, fleet.ErrUnavailable)
	}
	err = fault(err)
	q.recover(err)
	return fmt.Errorf("%s: %w", what, err)
}

// recover prepares for the next call after a failure: the tables may be gone,
// and what broke one connection broke all.
func (q *Source) recover(err error) {
	if errors.Is(err, fleet.ErrNotFound) || errors.Is(err, fleet.ErrInvalid) {
		q.mu.Lock()
		q.checked = false
		q.mu.Unlock()
	}
	var pg *pgconn.PgError
	if errors.Is(err, fleet.ErrUnavailable) && (!errors.As(err, &pg) || strings.HasPrefix(pg.Code, "57P")) {
		q.pool.Reset()
	}
}

// ensure checks once per failure that the table and the statements are good,
// and makes the table where that is asked for.
func (q *Source) ensure(ctx context.Context) error {
	q.mu.Lock()
	checked := q.checked
	q.mu.Unlock()
	if checked {
		return nil
	}
	err := q.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		if q.own != nil {
			if err := q.create(ctx, c.Conn()); err != nil {
				return err
			}
		}
		return q.st.prepare(ctx, c.Conn(), q.sql.Text)
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	q.checked = true
	q.mu.Unlock()
	return nil
}

// create makes our table where it is missing.
func (q *Source) create(ctx context.Context, c *pgx.Conn) error {
	// Not to_regclass: within a transaction it may answer from before another
	// process committed the table.
	exists := func(on interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) (there bool, err error) {
		err = on.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
			WHERE n.nspname = $1::text AND c.relname = $2::text)`, q.own.schema, q.own.name).Scan(&there)
		return there, err
	}
	there, err := exists(c)
	if err != nil || there {
		return err
	}
	if q.cfg.ReadOnly {
		return fmt.Errorf("table %s.%s: %w", q.own.schema, q.own.name, fleet.ErrNotFound)
	}
	ddl := q.own.fill(definition)
	if !q.cfg.Create {
		return fmt.Errorf("table %s.%s: %w; set create, or run\n%s", q.own.schema, q.own.name, fleet.ErrNotFound, ddl)
	}
	return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		// Two processes that begin together: the second waits, and finds it.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))`, q.own.channel()); err != nil {
			return err
		}
		if there, err := exists(tx); err != nil || there {
			return err
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, ddl).ReadAll(); err != nil {
			return fmt.Errorf("create table %s.%s: %w", q.own.schema, q.own.name, err)
		}
		return nil
	})
}

// Traits implements fleet.Signal.
func (q *Source) Traits() fleet.SignalTraits { return q.traits }

// Wake implements fleet.Signal.
func (q *Source) Wake() <-chan struct{} { return q.wake }

func (q *Source) awake() {
	select {
	case q.wake <- struct{}{}:
	default: // also where wake is nil
	}
}

// Close implements fleet.Signal. What is leased comes back when its lease ends.
func (q *Source) Close() error {
	q.closed.Do(func() {
		q.end()
		q.tasks.Wait()
		// Calls in flight end with their context; a server that does not answer
		// would keep their connections open for 15 s otherwise.
		q.conns.sever()
		q.pool.Close()
	})
	return nil
}

// Stats implements fleet.Signal: one round trip; with ReadOnly three, since the
// server is to refuse a query that writes.
func (q *Source) Stats(ctx context.Context) (st fleet.SignalStats, err error) {
	at := time.Now()
	err = q.call(ctx, "stats", func(ctx context.Context) error {
		rows, err := q.readings(ctx)
		if err != nil {
			return err
		}
		if len(rows) != 1 {
			return invalid("sql.stats", "one row", "gave %d rows", len(rows))
		}
		st, err = rows[0].stats(at)
		return err
	})
	return st, err
}

func (q *Source) readings(ctx context.Context) (rows []row, err error) {
	if !q.cfg.ReadOnly {
		return q.query(ctx, q.st.stats, nil)
	}
	err = pgx.BeginTxFunc(ctx, q.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err = query(ctx, tx, q.st.stats, nil)
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "25006" { // read_only_sql_transaction
		return nil, invalid("sql.stats", "a query that writes nothing", "%s", pg.Message)
	}
	return rows, err
}

func (q *Source) query(ctx context.Context, st statement, named map[string]string) ([]row, error) {
	return query(ctx, q.pool, st, named)
}

func query(ctx context.Context, on interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, st statement, named map[string]string) ([]row, error) {
	rows, err := on.Query(ctx, st.sql, st.values(named)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []row
	for rows.Next() {
		out = append(out, readRow(rows))
	}
	return out, rows.Err()
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }

// connections are those that are open, so that Close can end them at once.
type connections struct {
	under pgconn.DialFunc
	mu    sync.Mutex
	open  map[net.Conn]bool // nil once severed
}

type severable struct {
	net.Conn
	of *connections
}

func newConnections(under pgconn.DialFunc) *connections {
	return &connections{under: under, open: map[net.Conn]bool{}}
}

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.under(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	c.open[conn] = true
	return &severable{conn, c}, nil
}

// Close implements net.Conn.
func (s *severable) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s.Conn)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

func (c *connections) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}
