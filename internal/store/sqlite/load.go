package sqlite

import (
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// takeBack ends the leases of the process that had the file before: it is
// gone, and whatever it leased without claiming a sandbox can go to another.
func (db *DB) takeBack(t *tx) error {
	_, err := t.exec(`UPDATE tasks SET place = 0, phases = '' WHERE place = 1 AND state = 'queued'`)
	if err != nil {
		return fmt.Errorf("take back leases: %w", err)
	}
	return nil
}

// mend rebuilds the line from the file when the two may disagree. It runs on
// the connection that writes, outside a transaction.
func (db *DB) mend(t *tx) error {
	db.mu.Lock()
	stale := db.stale
	old := db.line
	db.mu.Unlock()
	if !stale {
		return nil
	}
	l := newLine(old.shares)
	// What is due goes straight to its row, in the order of the index.
	l.horizon, l.ended = db.now().UnixNano(), old.ended
	for _, part := range []func(*tx, *line) error{loadPools, loadWaiting, loadHeld, loadCounts} {
		if err := part(t, l); err != nil {
			return fmt.Errorf("read the queue: %w", err)
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	l.shares = db.opt.Tenants
	// Ends of leases are known in memory only, and move while the file is read.
	// A lease that is in the file and not in memory was not committed, as far
	// as its caller was told.
	for _, h := range l.holds {
		for _, was := range []*hold{old.ended[h.id], old.holds[h.id]} {
			if was != nil && was.fence == h.fence {
				h.until = was.until
			}
		}
	}
	l.advance(db.now())
	db.line, db.stale = l, false
	return nil
}

func loadPools(t *tx, l *line) error {
	rows, err := t.rows("SELECT pool, arrived FROM pools")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key fleet.PoolKey
		var n int64
		if err := rows.Scan(&key, &n); err != nil {
			return err
		}
		l.pool(key).arrived = n
	}
	return rows.Err()
}

func loadWaiting(t *tx, l *line) error {
	rows, err := t.rows("SELECT pool, tenant, priority, due_at, seq FROM tasks INDEXED BY tasks_waiting WHERE place = 0")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key fleet.PoolKey
		var in rowKey
		var s spot
		if err := rows.Scan(&key, &in.tenant, &in.priority, &s.due, &s.seq); err != nil {
			return err
		}
		l.join(s, key, in)
	}
	return rows.Err()
}

func loadHeld(t *tx, l *line) error {
	rows, err := t.rows("SELECT seq, id, tenant, pool, attempt, fence, state FROM tasks WHERE place = 1")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		h := &hold{}
		var key fleet.PoolKey
		if err := rows.Scan(&h.seq, &h.id, &h.tenant, &key, &h.attempt, &h.fence, &h.state); err != nil {
			return err
		}
		h.pool = l.pool(key)
		l.keep(h)
	}
	return rows.Err()
}

func loadCounts(t *tx, l *line) error {
	if err := t.row("SELECT count(*) FROM tasks WHERE dead = 1").Scan(&l.dead); err != nil {
		return err
	}
	return t.row("SELECT coalesce(max(seq), 0) FROM tasks").Scan(&l.lastSeq)
}
