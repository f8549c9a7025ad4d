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

const selectSandbox = "SELECT id, state, task, fence, claimed_at, gone_at, record FROM sandboxes "

func scanSandbox(row scanner) (fleet.Sandbox, error) {
	var (
		s             fleet.Sandbox
		id            fleet.SandboxID
		state         fleet.SandboxState
		task          fleet.TaskID
		fence         int64
		claimed, gone int64
		record        []byte
	)
	if err := row.Scan(&id, &state, &task, &fence, &claimed, &gone, &record); err != nil {
		return s, err
	}
	if err := json.Unmarshal(record, &s); err != nil {
		return s, fmt.Errorf("record of sandbox %s: %w: %w", id, fleet.ErrCorrupt, err)
	}
	s.State, s.Task, s.Fence = state, task, fence
	s.ClaimedAt, s.GoneAt = fromNano(claimed), fromNano(gone)
	return s, nil
}

// PutSandbox implements fleet.SandboxRecords. Writing over a claim that the
// writer has not seen is fleet.ErrConflict.
func (db *DB) PutSandbox(ctx context.Context, s fleet.Sandbox) error {
	s = lifecycle.CleanSandbox(s)
	return db.write(ctx, "put sandbox", prompt, func(t *tx) error {
		var was fleet.Sandbox
		err := t.row("SELECT state, task, fence FROM sandboxes WHERE id = ?", string(s.Spec.ID)).Scan(&was.State, &was.Task, &was.Fence)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if lifecycle.Overlooks(was, s) {
			return fmt.Errorf("sandbox %s as %s: task %s has claimed it: %w", s.Spec.ID, s.State, was.Task, fleet.ErrConflict)
		}
		return t.putSandbox(s)
	})
}

// ClaimSandbox implements fleet.SandboxRecords. Claiming again what the same
// lease has claimed returns the task as it is.
func (db *DB) ClaimSandbox(ctx context.Context, l fleet.Lease, c fleet.Claim) (fleet.Task, error) {
	var out fleet.Task
	err := db.write(ctx, "claim sandbox", prompt, func(t *tx) error {
		h, err := db.held(t, l.Task, l.Fence)
		if err != nil {
			return err
		}
		out, err = db.claim(t, h, c)
		return err
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return out, nil
}

// claim joins a leased task and a ready sandbox.
func (db *DB) claim(t *tx, h *hold, c fleet.Claim) (fleet.Task, error) {
	s, err := t.sandbox(c.Sandbox)
	if err == nil {
		err = lifecycle.Foreign(s, c.Owner)
	}
	if err != nil {
		return fleet.Task{}, err
	}
	r, err := t.held(h)
	if err != nil {
		return fleet.Task{}, err
	}
	switch {
	case s.State == fleet.SandboxClaimed && s.Task == h.id && s.Fence == h.fence:
		return lifecycle.CloneTask(r.Task), nil
	case r.State.Active():
		return fleet.Task{}, fmt.Errorf("sandbox %s: task %s holds sandbox %s: %w", c.Sandbox, h.id, r.Sandbox, fleet.ErrConflict)
	case s.State != fleet.SandboxReady:
		return fleet.Task{}, fmt.Errorf("sandbox %s is %s: %w", c.Sandbox, s.State, fleet.ErrConflict)
	}
	r.Task, s = lifecycle.Claimed(r.Task, s, c.Launch, c.At)
	if err := r.claim(t); err != nil {
		return fleet.Task{}, err
	}
	if _, err := t.exec("UPDATE sandboxes SET state = ?, task = ?, fence = ?, claimed_at = ? WHERE id = ?",
		string(s.State), string(s.Task), s.Fence, nano(s.ClaimedAt), string(c.Sandbox)); err != nil {
		return fleet.Task{}, err
	}
	t.boxed = true
	db.mu.Lock()
	db.line.claim(h)
	db.mu.Unlock()
	db.remember(t, h, r)
	return lifecycle.CloneTask(r.Task), nil
}

// Sandbox implements fleet.SandboxRecords.
func (db *DB) Sandbox(ctx context.Context, id fleet.SandboxID) (fleet.Sandbox, error) {
	s, err := scanSandbox(db.readers.QueryRowContext(ctx, selectSandbox+"WHERE id = ?", string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Sandbox{}, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return s, db.wrap("sandbox", err)
}

// Sandboxes implements fleet.SandboxRecords; in order of id.
func (db *DB) Sandboxes(ctx context.Context, goneSince time.Time) ([]fleet.Sandbox, error) {
	out := []fleet.Sandbox{}
	query, args := selectSandbox+"WHERE state <> 'gone' ORDER BY id", []any{}
	if !goneSince.IsZero() {
		query, args = selectSandbox+"WHERE state <> 'gone' OR gone_at >= ? ORDER BY id", []any{goneSince.UnixNano()}
	}
	rows, err := db.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, db.wrap("sandboxes", err)
	}
	defer rows.Close()
	for rows.Next() {
		s, err := scanSandbox(rows)
		if err != nil {
			return nil, db.wrap("sandboxes", err)
		}
		out = append(out, s)
	}
	return out, db.wrap("sandboxes", rows.Err())
}
