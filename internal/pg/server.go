package pg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
)

// Server is a schema on a PostgreSQL server. All methods are safe for
// concurrent use.
type Server struct {
	opt    Options
	pool   *pgxpool.Pool
	single *pgx.ConnConfig // of connections beside the pool
	conns  *connections
	base   context.Context // ends with Close
	end    context.CancelFunc
	tasks  sync.WaitGroup
	closed sync.Once
}

// Connect returns a Server. It does not need the server yet. An error is one of
// the DSN or the options, a *fleet.FieldError.
func Connect(ctx context.Context, dsn string, o Options) (*Server, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	pc, err := o.pool(dsn)
	if err != nil {
		return nil, err
	}
	s := &Server{opt: o, conns: &connections{under: pc.ConnConfig.DialFunc, open: map[net.Conn]struct{}{}}}
	pc.ConnConfig.DialFunc = s.conns.dial
	s.single = pc.ConnConfig.Copy()
	s.base, s.end = context.WithCancel(context.WithoutCancel(ctx))
	if s.pool, err = pgxpool.NewWithConfig(s.base, pc); err != nil {
		s.end()
		return nil, fmt.Errorf("pool of connections: %w: %w", fleet.ErrInvalid, err)
	}
	return s, nil
}

// Schema that everything is in.
func (s *Server) Schema() string { return s.opt.Schema }

// Options with defaults filled in.
func (s *Server) Options() Options { return s.opt }

// Close ends the connections. Whatever uses them must have ended, or fails.
func (s *Server) Close() {
	s.closed.Do(func() {
		s.end()
		s.tasks.Wait()
		s.conns.sever()
		s.pool.Close()
	})
}

// Err is fleet.ErrUnavailable once the Server was closed.
func (s *Server) Err() error {
	if s.base.Err() != nil {
		return fmt.Errorf("the connection to PostgreSQL was closed: %w", fleet.ErrUnavailable)
	}
	return nil
}

// Do runs f, which calls the server, within the patience; what gives an error
// its kind.
func (s *Server) Do(ctx context.Context, what string, f func(context.Context, *pgxpool.Pool) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	bounded, cancel := context.WithTimeout(ctx, s.opt.Patience)
	defer cancel()
	defer context.AfterFunc(s.base, cancel)()
	err := f(bounded, s.pool)
	if err != nil && pgconn.SafeToRetry(err) && bounded.Err() == nil {
		s.pool.Reset() // the connection had died; so have its like
		err = f(bounded, s.pool)
	}
	switch {
	case err == nil:
		return nil
	case s.base.Err() != nil:
		return fmt.Errorf("%s: %w", what, s.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case bounded.Err() != nil:
		err = fmt.Errorf("PostgreSQL gave no answer within %s: %w", s.opt.Patience, fleet.ErrUnavailable)
	}
	s.suspect(err)
	return fmt.Errorf("%s: %w", what, Fault(err))
}

// suspect ends the idle connections after one broke: what broke it broke all.
func (s *Server) suspect(err error) {
	if errors.Is(err, fleet.ErrUnavailable) || !known(err) && !Refused(err) {
		s.pool.Reset()
	}
}

// Dedicated is a connection beside the pool, which the caller closes.
func (s *Server) Dedicated(ctx context.Context) (*pgx.Conn, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.Patience)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, s.single.Copy())
	return c, Fault(err)
}

// connections are those that are open, so that Close can end them at once: a
// server that does not answer would keep them open for many seconds.
type connections struct {
	under pgconn.DialFunc
	mu    sync.Mutex
	open  map[net.Conn]struct{} // nil once severed
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
	c.open[conn] = struct{}{}
	return &counted{conn, c}, nil
}

func (c *connections) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		// In order where there is somebody to hear it, and not for long.
		_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	}
	c.open = nil
}

type counted struct {
	net.Conn
	of *connections
}

// Close implements net.Conn.
func (n *counted) Close() error {
	n.of.mu.Lock()
	delete(n.of.open, n.Conn)
	n.of.mu.Unlock()
	return n.Conn.Close()
}

// SetDeadline implements net.Conn; once severed, nothing prolongs it.
func (n *counted) SetDeadline(t time.Time) error {
	n.of.mu.Lock()
	severed := n.of.open == nil
	n.of.mu.Unlock()
	if soon := time.Now().Add(100 * time.Millisecond); severed && (t.IsZero() || t.After(soon)) {
		t = soon
	}
	return n.Conn.SetDeadline(t)
}

// LockNumber is the number of an advisory lock by its name.
func LockNumber(name string) int64 {
	sum := sha256.Sum256([]byte("muster " + name))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any bits will do
}
