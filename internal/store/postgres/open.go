package postgres

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options shape a DB; the zero value is good.
type Options struct {
	// Schema of the database that everything is kept in; empty: "muster".
	Schema string
	// Connections of the pool, 1 to 200; 0: 16. Two more listen and lead.
	Connections int
	// Patience bounds each exchange with the server; 0: 10 s.
	Patience time.Duration
	// Poll does without LISTEN: other processes are noticed once a second.
	Poll bool
	// Name of this process, for people; empty: "muster".
	Name string
	// Log hears of push that is lost and found; nil: nobody.
	Log *slog.Logger

	// Tenants without an entry have weight 1 and no cap.
	Tenants map[fleet.TenantID]fleet.Share
	// MaxBacklog bounds waiting tasks (delayed ones included); 0: no bound.
	// Tasks that come back for another attempt are never refused.
	MaxBacklog int
	// Clock is time.Now unless set. Timers always run on the time package.
	Clock func() time.Time
	// Events and Decisions bound the journal, in records; 0: 200,000 events
	// and 20,000 decisions.
	Events, Decisions int
	// ThinDecisions is how long after a stored decision unchanged ones are not
	// stored; 0: 10 s; below 0: all are stored.
	ThinDecisions time.Duration
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Events <= 0 {
		o.Events = 200_000
	}
	if o.Decisions <= 0 {
		o.Decisions = 20_000
	}
	if o.ThinDecisions == 0 {
		o.ThinDecisions = 10 * time.Second
	}
	if o.Name == "" {
		o.Name = "muster"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// The numbers of lanes; rows of peers.
const (
	workLanes   = 3 // 0 to 2
	journalLane = workLanes
	turnLane    = workLanes + 1
)

// DB is an open store. All methods are safe for concurrent use.
type DB struct {
	opt    Options
	server *pg.Server
	id     int64 // of this open store among others
	// turnstile, leases and submissions are the numbers of advisory locks.
	turnstile, leases, submissions, journals int64

	work, journal *pg.Writer[exchange]
	leasing       sync.Mutex // one lease of this process at a time; guards doubts
	doubts        []doubt
	term          atomic.Int64
	stopped       chan struct{} // closed by Close
	aside         sync.WaitGroup
	closing       sync.Once
	wake          chan struct{}
	clock         clock
	push          chan struct{} // holds one value while others are to be told
	toTell        atomic.Uint32 // toldQueue, toldEvents, toldBoxes
	untrimmed     atomic.Int64  // records of the journal since the last trim
	last          lastDecision  // of the journal's lane
	folding       folding

	mu          sync.Mutex // guards what follows
	tenants     map[fleet.TenantID]fleet.Share
	watchers    map[chan struct{}]struct{} // of events
	boxWatchers map[chan struct{}]struct{} // of records of sandboxes
}

// Open opens the store in a schema of the database at dsn (a postgres:// URL or
// the words of a connection string, with password and TLS settings, none of
// which is logged or part of an error), making the schema if there is none, and
// brings it up to date. Errors are a *fleet.FieldError or wrap
// fleet.ErrUnavailable, fleet.ErrDenied, or fleet.ErrInvalid for the schema of
// a newer program.
func Open(ctx context.Context, dsn string, o Options) (*DB, error) {
	o = o.withDefaults()
	server, err := pg.Connect(ctx, dsn, pg.Options{
		Schema: o.Schema, Connections: o.Connections, Patience: o.Patience, Poll: o.Poll, Application: o.Name, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := server.Migrate(ctx, "store", migrations); err != nil {
		server.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	db := &DB{
		opt: o, server: server, id: rand.Int64(), //nolint:gosec // to be told from others, no secret
		tenants: o.Tenants, watchers: map[chan struct{}]struct{}{}, boxWatchers: map[chan struct{}]struct{}{},
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), push: make(chan struct{}, 1),
		clock: clock{kick: make(chan struct{}, 1)},
	}
	db.turnstile, db.leases = pg.LockNumber(server.Schema()+" term"), pg.LockNumber(server.Schema()+" lease")
	db.submissions, db.journals = pg.LockNumber(server.Schema()+" submit"), pg.LockNumber(server.Schema()+" journal")
	hooks := db.hooks()
	db.work, db.journal = pg.NewWriter(server, 0, workLanes, hooks), pg.NewWriter(server, journalLane, 1, hooks)
	db.aside.Go(db.keepTime)
	db.aside.Go(db.keepPushing)
	db.aside.Go(db.keepFolding)
	server.Listen(db.channel(), db.heard, func() { db.heard("qes") })
	poke(db.wake)
	return db, nil
}

// SchemaFor is a name for the schema of a fleet: of its namespace and name, or
// any other parts. Different parts give different names.
func SchemaFor(parts ...string) string { return pg.SchemaFor(parts...) }

// Close writes what is waiting to be written, gives back the leases of this
// process that have claimed no sandbox, and ends the connections. Later calls
// fail with fleet.ErrUnavailable.
func (db *DB) Close() error {
	db.closing.Do(func() {
		close(db.stopped)
		db.work.Close()
		db.journal.Close()
		db.leasing.Lock()
		db.giveBack()
		db.leasing.Unlock()
		db.aside.Wait()
		db.server.Close()
	})
	return nil
}

// giveBack ends this process's leases that have claimed no sandbox; one that
// cannot be given back now ends with its time.
func (db *DB) giveBack() {
	err := db.server.Do(context.Background(), "give leases back", func(ctx context.Context, p *pgxpool.Pool) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		b := &pgx.Batch{}
		b.Queue("UPDATE tasks SET place = 0, phases = '', lease_until = 0 WHERE place = 2 AND lease_owner = $1", db.id)
		b.Queue("DELETE FROM peers WHERE id = $1 OR at < now() - interval '1 day'", db.id)
		b.Queue("SELECT pg_notify($1, $2)", db.channel(), "q")
		return p.SendBatch(ctx, b).Close()
	})
	if err != nil {
		db.opt.Log.Warn("leases are not given back; they end with their time", "error", err)
	}
}

func (db *DB) closedErr() error {
	return fmt.Errorf("the store was closed: %w", fleet.ErrUnavailable)
}

// read runs queries outside of a transaction of ours.
func (db *DB) read(ctx context.Context, what string, f func(context.Context, *pgxpool.Pool) error) error {
	select {
	case <-db.stopped:
		return fmt.Errorf("%s: %w", what, db.closedErr())
	default:
	}
	return db.server.Do(ctx, what, f)
}

// Ping implements fleet.Store.
func (db *DB) Ping(ctx context.Context) error {
	return db.read(ctx, "ping", func(ctx context.Context, p *pgxpool.Pool) error {
		_, err := p.Exec(ctx, "SELECT 1")
		return err
	})
}

// SetTenants changes shares and caps from this process's next lease on.
func (db *DB) SetTenants(t map[fleet.TenantID]fleet.Share) {
	db.mu.Lock()
	db.tenants = t
	db.mu.Unlock()
	poke(db.wake)
}

func (db *DB) shares() map[fleet.TenantID]fleet.Share {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.tenants
}

func (db *DB) now() time.Time { return fromNano(db.opt.Clock().UnixNano()) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var _ fleet.Store = (*DB)(nil)
