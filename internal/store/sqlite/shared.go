package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// sandbox is a record as this transaction sees it.
func (t *tx) sandbox(id fleet.SandboxID) (fleet.Sandbox, error) {
	s, err := scanSandbox(t.row(selectSandbox+"WHERE id = ?", string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return s, err
}

// putSandbox writes a record whole.
func (t *tx) putSandbox(s fleet.Sandbox) error {
	record, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode sandbox %s: %w: %w", s.Spec.ID, fleet.ErrInvalid, err)
	}
	_, err = t.exec(`INSERT INTO sandboxes (id, state, task, fence, claimed_at, gone_at, record) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, task = excluded.task, fence = excluded.fence,
		claimed_at = excluded.claimed_at, gone_at = excluded.gone_at, record = excluded.record`,
		string(s.Spec.ID), string(s.State), string(s.Task), s.Fence, nano(s.ClaimedAt), nano(s.GoneAt), string(record))
	t.boxed = true
	return err
}

// SwapSandbox implements fleet.SharedRecords.
func (db *DB) SwapSandbox(ctx context.Context, s fleet.Sandbox, state fleet.SandboxState, owner string) error {
	s = lifecycle.CleanSandbox(s)
	return db.write(ctx, "swap sandbox", prompt, func(t *tx) error {
		stored, err := t.sandbox(s.Spec.ID)
		if err != nil {
			return err
		}
		if err := lifecycle.MaySwap(stored, s, state, owner); err != nil {
			return err
		}
		return t.putSandbox(s)
	})
}

// TakeOver implements fleet.SharedRecords; durable.
func (db *DB) TakeOver(ctx context.Context, id fleet.SandboxID, from, to string) (fleet.Sandbox, fleet.Task, error) {
	var box fleet.Sandbox
	var running fleet.Task
	err := db.write(ctx, "take over sandbox", durable, func(t *tx) (err error) {
		box, running, err = db.takeOver(t, id, from, to)
		return err
	})
	if err != nil {
		return fleet.Sandbox{}, fleet.Task{}, err
	}
	return box, running, nil
}

func (db *DB) takeOver(t *tx, id fleet.SandboxID, from, to string) (fleet.Sandbox, fleet.Task, error) {
	s, err := t.sandbox(id)
	if err != nil {
		return s, fleet.Task{}, err
	}
	if err := lifecycle.MayTake(s, from); err != nil {
		return s, fleet.Task{}, err
	}
	db.mu.Lock()
	h := db.line.holds[s.Task]
	db.mu.Unlock()
	if h != nil {
		r, err := t.held(h)
		if err != nil {
			return s, fleet.Task{}, err
		}
		if lifecycle.Inside(r.Task, s) {
			s = lifecycle.TakenOver(s, &r.Task, to)
			return s, lifecycle.CloneTask(r.Task), errors.Join(t.putSandbox(s), db.raise(t, h, r))
		}
	}
	s = lifecycle.TakenOver(s, nil, to)
	return s, fleet.Task{}, t.putSandbox(s)
}

// raise writes the fence of a held task, which is another from now on.
func (db *DB) raise(t *tx, h *hold, r record) error {
	if _, err := t.exec("UPDATE tasks SET fence = ? WHERE seq = ?", r.Fence, r.seq); err != nil {
		return err
	}
	db.remember(t, h, r)
	db.mu.Lock()
	h.fence = r.Fence
	db.mu.Unlock()
	return nil
}

// WakeSandboxes implements fleet.SharedRecords: what this process wrote, there
// is no other.
func (db *DB) WakeSandboxes() (<-chan struct{}, func()) { return db.watch(db.boxWatchers) }

// watch adds a channel to those that tell wakes.
func (db *DB) watch(all map[chan struct{}]struct{}) (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	db.watchMu.Lock()
	defer db.watchMu.Unlock()
	all[w] = struct{}{}
	return w, func() {
		db.watchMu.Lock()
		defer db.watchMu.Unlock()
		delete(all, w)
	}
}

// tell wakes everyone who waits for events, or for records of sandboxes.
func (db *DB) tell(all map[chan struct{}]struct{}) {
	db.watchMu.Lock()
	defer db.watchMu.Unlock()
	for w := range all {
		poke(w)
	}
}

// PutConsumer implements fleet.Consumers.
func (db *DB) PutConsumer(ctx context.Context, c fleet.Consumer) error {
	if c.Name == "" {
		return fmt.Errorf("put consumer without a name: %w", fleet.ErrInvalid)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("put consumer %q: %w: %w", c.Name, fleet.ErrInvalid, err)
	}
	return db.write(ctx, "put consumer", patient, func(t *tx) error {
		_, err := t.exec("INSERT INTO consumers (name, told, consumer) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET told = excluded.told, consumer = excluded.consumer",
			c.Name, nano(db.now()), string(b))
		return err
	})
}

// DeleteConsumer implements fleet.Consumers.
func (db *DB) DeleteConsumer(ctx context.Context, name string) error {
	return db.write(ctx, "delete consumer", patient, func(t *tx) error {
		_, err := t.exec("DELETE FROM consumers WHERE name = ?", name)
		return err
	})
}

// Consumers implements fleet.Consumers.
func (db *DB) Consumers(ctx context.Context) ([]fleet.Consumer, error) {
	rows, err := db.readers.QueryContext(ctx, "SELECT name, told, consumer FROM consumers ORDER BY name")
	if err != nil {
		return nil, db.wrap("consumers", err)
	}
	defer rows.Close()
	out, now := []fleet.Consumer{}, db.now()
	for rows.Next() {
		var name string
		var told int64
		var b []byte
		if err := rows.Scan(&name, &told, &b); err != nil {
			return nil, db.wrap("consumers", err)
		}
		var c fleet.Consumer
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, fmt.Errorf("consumer %q: %w: %w", name, fleet.ErrCorrupt, err)
		}
		c.Name, c.Age = name, max(0, now.Sub(time.Unix(0, told)))
		out = append(out, c)
	}
	return out, db.wrap("consumers", rows.Err())
}
