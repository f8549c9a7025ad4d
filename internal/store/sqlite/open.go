package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"

	"muster.dev/muster/internal/fleet"
)

// Share is what one tenant may have of the fleet.
type Share = fleet.Share

// Options shape a DB; the zero value is good.
type Options struct {
	// Tenants without an entry have weight 1 and no cap.
	Tenants map[fleet.TenantID]Share
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
	// BackupEvery is the time between copies of the file; 0: 6 h; below 0:
	// none are made but before a migration.
	BackupEvery time.Duration
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
	if o.BackupEvery == 0 {
		o.BackupEvery = 6 * time.Hour
	}
	return o
}

// DB is an open database. All methods are safe for concurrent use.
type DB struct {
	path    string
	opt     Options
	readers *sql.DB
	writes  *sql.DB
	writer  writer
	syncer  syncer
	mover   mover
	wake    chan struct{}
	stopped chan struct{}  // closed by Close
	aside   sync.WaitGroup // backups

	mu    sync.Mutex // guards what follows
	line  *line
	stale bool // line does not agree with the file; mend rebuilds it
	timer *time.Timer

	watchMu     sync.Mutex
	watchers    map[chan struct{}]struct{} // of events
	boxWatchers map[chan struct{}]struct{} // of records of sandboxes

	tx        *tx // of the writer's goroutine, until that has ended
	closing   sync.Once
	closeErr  error
	suspicion sync.Once

	last lastDecision // used by the writer only

	onCall func(*call) // tests only
}

// fdatasync is what SQLite syncs with on Linux unless told otherwise; the
// driver's build does not detect it. Same durability, fewer journal writes.
var fdatasync = sync.OnceFunc(func() { _, _ = sqlite.Fdatasync(true) })

// Open opens the database at path, making it if there is none, brings its
// schema up to date and takes the leases of the process before back. The
// caller must hold the data directory (Lock). Errors wrap fleet.ErrCorrupt for
// a file that cannot be trusted, fleet.ErrFull, fleet.ErrUnavailable, and
// fleet.ErrInvalid for the file of a newer program or of another one.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	fdatasync()
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := &DB{
		path: path, opt: o.withDefaults(), wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		watchers: map[chan struct{}]struct{}{}, boxWatchers: map[chan struct{}]struct{}{}, line: newLine(o.Tenants), stale: true,
		writer: writer{kick: make(chan struct{}, 1), ended: make(chan struct{})},
		syncer: syncer{kick: make(chan struct{}, 1), ended: make(chan struct{})},
		mover:  mover{grown: make(chan struct{}, 1), ended: make(chan struct{})},
	}
	if err := db.probe(ctx); err != nil {
		return nil, fmt.Errorf("open database: %w", db.kind(err))
	}
	t, err := db.connect(ctx)
	db.tx = t
	if err == nil {
		err = db.migrate(ctx, t)
	}
	if err == nil {
		err = db.takeBack(t)
	}
	if err == nil {
		err = db.mend(t)
	}
	if err == nil {
		err = db.leaveSyncing(ctx, t)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", db.kind(err)), db.disconnect())
	}
	go db.run(t)
	go db.syncer.run(db)
	go db.mover.run(db)
	if db.opt.BackupEvery > 0 {
		db.aside.Go(db.backups)
	}
	db.notify()
	return db, nil
}

// source is the name of the file as the driver wants it.
func source(path string, params url.Values) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: params.Encode()}
	return u.String()
}

// connect opens the one connection that writes and the pool that reads.
func (db *DB) connect(ctx context.Context) (*tx, error) {
	var err error
	db.writes, err = sql.Open("sqlite", source(db.path, url.Values{
		"_busy_timeout": {"10000"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
		"_pragma": {"journal_size_limit(67108864)", "cache_size(-16384)", "temp_store(MEMORY)"},
		"_dqs":    {"0"}, "_defensive": {"1"},
	}))
	if err != nil {
		return nil, err
	}
	db.writes.SetMaxOpenConns(1)
	db.readers, err = sql.Open("sqlite", source(db.path, url.Values{
		"_busy_timeout": {"10000"}, "_query_only": {"1"}, "_dqs": {"0"}, "_defensive": {"1"},
	}))
	if err != nil {
		return nil, err
	}
	db.readers.SetMaxOpenConns(4)
	db.readers.SetMaxIdleConns(2)
	conn, err := db.writes.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &tx{conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

// leaveSyncing takes from the connection that writes what it did itself while
// the file was opened: syncing, and moving the log.
func (db *DB) leaveSyncing(ctx context.Context, t *tx) error {
	if _, err := t.conn.ExecContext(ctx, "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0"); err != nil {
		return err
	}
	if err := db.openLog(); err != nil {
		return err
	}
	return db.openMover()
}

// disconnect closes the pools; closing the last connection of a process moves
// the write-ahead log into the file.
func (db *DB) disconnect() error {
	var errs []error
	if db.tx != nil {
		errs = append(errs, db.tx.close())
	}
	if db.syncer.wal != nil {
		errs = append(errs, db.syncer.wal.Close())
	}
	if db.mover.conn != nil {
		errs = append(errs, db.mover.conn.Close())
	}
	if db.readers != nil {
		errs = append(errs, db.readers.Close())
	}
	if db.writes != nil {
		errs = append(errs, db.writes.Close())
	}
	return errors.Join(errs...)
}

// Close writes what is waiting to be written and closes the file. Later calls
// fail with fleet.ErrUnavailable.
func (db *DB) Close() error {
	db.closing.Do(func() {
		close(db.stopped)
		db.mu.Lock()
		if db.timer != nil {
			db.timer.Stop()
		}
		db.mu.Unlock()
		db.writer.stop()
		db.syncer.stop()
		<-db.mover.ended
		db.aside.Wait()
		if err := db.disconnect(); err != nil {
			db.closeErr = fmt.Errorf("close database %s: %w", db.path, err)
		}
	})
	return db.closeErr
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	if err := db.readers.QueryRowContext(ctx, "SELECT 1 FROM schema_version LIMIT 1").Scan(&one); err != nil {
		return db.wrap("ping", err)
	}
	return nil
}

// SetTenants changes shares and caps from the next lease on.
func (db *DB) SetTenants(t map[fleet.TenantID]Share) {
	db.mu.Lock()
	db.opt.Tenants = t
	db.line.shares = t
	db.mu.Unlock()
	db.notify()
}

// Size is what the database takes on disk, its write-ahead log included.
func (db *DB) Size() int64 {
	var n int64
	for _, suffix := range []string{"", "-wal"} {
		if st, err := os.Stat(db.path + suffix); err == nil {
			n += st.Size()
		}
	}
	return n
}

func (db *DB) now() time.Time { return fromNano(db.opt.Clock().UnixNano()) }

var _ fleet.Store = (*DB)(nil)
