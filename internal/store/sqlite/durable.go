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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// syncer takes what is committed to the disk. A transaction is committed to
// the write-ahead log without a sync, so that whoever works on what it says
// (the lease of a task just submitted) need not wait for the disk; who was
// promised durability is answered after the sync that follows. One sync serves
// all that wait for one, and the writer commits further meanwhile.
//
// The log after such a sync is what synchronous=FULL leaves: frames up to and
// with the commit, each with a checksum over all before it.
type syncer struct {
	wal  *os.File     // the log; it is the same file as long as a connection is open
	sync func() error // of the log; tests put another in its place
	// unsure says a sync has failed. The kernel may have dropped what it could
	// not write, and a later sync would not say so.
	unsure bool

	mu      sync.Mutex
	waiting []*call
	closed  bool
	kick    chan struct{}
	ended   chan struct{}
}

// openLog is called once there is a log.
func (db *DB) openLog() error {
	wal, err := os.OpenFile(db.path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &db.syncer
	s.wal, s.sync = wal, func() error { return unix.Fdatasync(int(wal.Fd())) }
	return syncPath(filepath.Dir(db.path)) // the log's name
}

// answer ends calls that were committed, or were not.
func (db *DB) answer(batch []*call) {
	var wait []*call
	for _, c := range batch {
		if c.how == durable && c.err == nil {
			wait = append(wait, c)
		} else {
			close(c.done)
		}
	}
	if len(wait) == 0 {
		return
	}
	s := &db.syncer
	s.mu.Lock()
	s.waiting = append(s.waiting, wait...)
	s.mu.Unlock()
	poke(s.kick)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run is the goroutine that syncs.
func (s *syncer) run(db *DB) {
	defer close(s.ended)
	for range s.kick {
		for {
			s.mu.Lock()
			batch, closed := s.waiting, s.closed
			s.waiting = nil
			s.mu.Unlock()
			if len(batch) == 0 {
				if closed {
					return
				}
				break
			}
			err := db.reachDisk()
			for _, c := range batch {
				c.err = err
				close(c.done)
			}
		}
	}
}

// stop ends the goroutine once everybody was answered; the writer has ended.
func (s *syncer) stop() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	poke(s.kick)
	<-s.ended
}

// reachDisk returns once what is committed is on the disk. Where it fails what
// was committed is in the file still, as far as this process and its heirs can
// read: its callers are told that nobody knows.
func (db *DB) reachDisk() error {
	s := &db.syncer
	var failed error
	if !s.unsure {
		if failed = s.sync(); failed == nil {
			return nil
		}
		s.unsure = true
	}
	// Only a log that was moved whole into the file, which is synced then, and
	// begun anew makes certain again.
	_, err := db.moveLog("TRUNCATE")
	if err == nil {
		err = s.wal.Sync()
	}
	if err == nil {
		s.unsure = false
		return nil
	}
	err = errors.Join(failed, err)
	if errors.Is(err, unix.ENOSPC) || noSpace(db.path) {
		return full(db.path, err)
	}
	return fmt.Errorf("sync %s: %w: %w", db.path, fleet.ErrUnavailable, err)
}

// mover moves the log into the file, beside the writer: a writer that did it
// would let everybody wait for tens of milliseconds once in a thousand pages.
type mover struct {
	conn    *sql.DB
	grown   chan struct{} // holds one value when there is something to move
	ended   chan struct{}
	commits atomic.Int64
	finish  atomic.Bool // the writer is to move what came meanwhile
	since   int         // calls since grown was told; the writer's own
}

const (
	// moveAfter is how many calls make it worth while.
	moveAfter = 256
	// mostFrames is how long the log may get before the writer moves the rest
	// of it: only a log that is moved whole is begun anew.
	mostFrames = 8192
	// lull is how long nothing is to be committed before the log is moved;
	// after lulls of them it is moved anyway.
	lull, lulls = 50 * time.Millisecond, 4
)

func (db *DB) openMover() error {
	var err error
	db.mover.conn, err = sql.Open("sqlite", source(db.path, url.Values{
		"_busy_timeout": {"10000"}, "_synchronous": {"FULL"}, "_dqs": {"0"}, "_defensive": {"1"},
	}))
	if err == nil {
		db.mover.conn.SetMaxOpenConns(1)
	}
	return err
}

// committed is told of each transaction, by the writer.
func (m *mover) committed(calls int) {
	m.commits.Add(1)
	if m.since += calls; m.since >= moveAfter {
		m.since = 0
		poke(m.grown)
	}
}

// run moves the log when it has grown, in a lull if there is one soon.
func (m *mover) run(db *DB) {
	defer close(m.ended)
	tick := time.NewTicker(lull)
	tick.Stop()
	for {
		select {
		case <-db.stopped:
			return
		case <-m.grown:
		}
		tick.Reset(lull)
		for range lulls {
			before := m.commits.Load()
			select {
			case <-db.stopped:
				return
			case <-tick.C:
			}
			if m.commits.Load() == before {
				break
			}
		}
		tick.Stop()
		// A failure (a full disk) leaves the log as it is, and it is tried again.
		if frames, err := db.moveLog("PASSIVE"); err == nil && frames > mostFrames {
			m.finish.Store(true)
		}
	}
}

// moveLog moves the log into the file and syncs that; it returns how many
// frames the log had.
func (db *DB) moveLog(mode string) (int, error) {
	var busy, frames, moved int
	err := db.mover.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &frames, &moved)
	if err == nil && busy != 0 && mode != "PASSIVE" {
		err = fmt.Errorf("the log of %s is in use: %w", db.path, fleet.ErrUnavailable)
	}
	return frames, db.wrap("move the log", err)
}
