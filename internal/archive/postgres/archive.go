package postgres

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/archive/watch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options shape an Archive; the zero value is good.
type Options struct {
	// Schema of the database that everything is kept in; empty: "muster".
	Schema string
	// Connections of the pool, 1 to 200; 0: 8. One more listens.
	Connections int
	// Patience bounds each exchange with the server; 0: 10 s.
	Patience time.Duration
	// Poll does without LISTEN: logs that others append to are looked at once a
	// second.
	Poll bool
	// Log hears of push that is lost and found; nil: nobody.
	Log *slog.Logger
}

// lanes is how many transactions append at a time.
const lanes = 2

// Archive is a fleet.Archive in PostgreSQL. All methods are safe for concurrent
// use.
type Archive struct {
	server *pg.Server
	writer *pg.Writer[grown]
	push   chan struct{} // holds one value while others are to be told

	mu       sync.Mutex
	watchers watch.Watchers[logKey]
	toTell   map[logKey]struct{}

	closing sync.Once
}

// grown are the logs that a transaction appended to.
type grown struct{ logs []logKey }

type logKey struct {
	task    fleet.TaskID
	attempt int
}

func (k logKey) String() string { return fmt.Sprintf("%s/%d", k.task, k.attempt) }

// Open opens the archive in a schema of the database at dsn, making it if need
// be. Errors are a *fleet.FieldError or wrap fleet.ErrUnavailable,
// fleet.ErrDenied, or fleet.ErrInvalid for the schema of a newer program; none
// has the dsn in it.
func Open(ctx context.Context, dsn string, o Options) (*Archive, error) {
	if o.Connections == 0 {
		o.Connections = 8
	}
	server, err := pg.Connect(ctx, dsn, pg.Options{Schema: o.Schema, Connections: o.Connections, Patience: o.Patience, Poll: o.Poll, Application: "muster archive", Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if err := server.Migrate(ctx, "archive", migrations); err != nil {
		server.Close()
		return nil, fmt.Errorf("open archive: %w", err)
	}
	a := &Archive{
		server: server, push: make(chan struct{}, 1),
		watchers: watch.Watchers[logKey]{}, toTell: map[logKey]struct{}{},
	}
	a.writer = pg.NewWriter(server, 0, lanes, pg.Hooks[grown]{
		Committed: func(_ int, g grown) { a.grew(g.logs...) },
		Fault:     pg.Fault,
	})
	server.Go(a.keepPushing)
	server.Go(a.keepLooking)
	server.Go(a.keepTidy)
	server.Listen(a.channel(), a.heard, a.wakeAll)
	return a, nil
}

// Close ends the connections. Later calls fail with fleet.ErrUnavailable.
func (a *Archive) Close() error {
	a.closing.Do(func() {
		a.writer.Close()
		a.server.Close()
	})
	return nil
}

// do runs queries outside of a transaction of ours.
func (a *Archive) do(what string, f func(context.Context, *pgxpool.Pool) error) error {
	return a.server.Do(context.Background(), what, f)
}

// page is how many tasks are read at once.
const page = 1000

// Tasks implements fleet.Archive.
func (a *Archive) Tasks(f func(fleet.TaskID) error) error {
	after := ""
	for {
		var ids []string
		err := a.do("tasks of the archive", func(ctx context.Context, p *pgxpool.Pool) error {
			rows, err := p.Query(ctx, `(SELECT DISTINCT task FROM logs WHERE task > $1 ORDER BY task LIMIT $2)
				UNION (SELECT DISTINCT task FROM files WHERE task > $1 ORDER BY task LIMIT $2) ORDER BY task LIMIT $2`, after, page)
			if err != nil {
				return err
			}
			ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := f(fleet.TaskID(id)); err != nil {
				return err
			}
		}
		if len(ids) < page {
			return nil
		}
		after = ids[len(ids)-1]
	}
}

// Remove implements fleet.Archive.
func (a *Archive) Remove(id fleet.TaskID) error {
	if err := names.CheckTask(id); err != nil {
		return err
	}
	err := a.do(fmt.Sprintf("remove what task %s left", id), func(ctx context.Context, p *pgxpool.Pool) error {
		b := &pgx.Batch{}
		b.Queue("DELETE FROM log_pieces WHERE task = $1", string(id))
		b.Queue("DELETE FROM logs WHERE task = $1", string(id))
		b.Queue("WITH f AS (DELETE FROM files WHERE task = $1 RETURNING content) DELETE FROM chunks WHERE content IN (SELECT content FROM f)", string(id))
		return p.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	var gone []logKey
	for k := range a.watchers {
		if k.task == id {
			gone = append(gone, k)
		}
	}
	a.mu.Unlock()
	a.grew(gone...)
	return nil
}

var _ fleet.Archive = (*Archive)(nil)
