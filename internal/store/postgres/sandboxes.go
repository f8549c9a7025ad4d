package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

const selectSandbox = "SELECT id, state, task, fence, claimed_at, gone_at, record FROM sandboxes "

func scanSandbox(row pgx.Row) (fleet.Sandbox, error) {
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
	record, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("put sandbox %s: %w", s.Spec.ID, err)
	}
	var was fleet.Sandbox
	return db.work.Write(ctx, &call{
		Name: "put sandbox", Led: true, Keys: []string{sandboxKey(s.Spec.ID)},
		Read: func(b *pgx.Batch) {
			was = fleet.Sandbox{}
			b.Queue("SELECT state, task, fence FROM sandboxes WHERE id = $1 FOR UPDATE", string(s.Spec.ID)).QueryRow(func(row pgx.Row) error {
				err := row.Scan(&was.State, &was.Task, &was.Fence)
				if errors.Is(err, pgx.ErrNoRows) {
					return nil
				}
				return err
			})
		},
		Decide: func(x *exchange) error {
			if lifecycle.Overlooks(was, s) {
				return fmt.Errorf("sandbox %s as %s: task %s has claimed it: %w", s.Spec.ID, s.State, was.Task, fleet.ErrConflict)
			}
			x.boxed = true
			return nil
		},
		Write: func(b *pgx.Batch) { putSandbox(b, &s, string(record)) },
	})
}

// claiming is one call of ClaimSandbox.
type claiming struct {
	db      *DB
	lease   fleet.Lease
	claim   fleet.Claim
	r       record
	problem error
	box     fleet.Sandbox
	absent  error // why there is no sandbox
	writes  bool
}

// ClaimSandbox implements fleet.SandboxRecords. Claiming again what the same
// lease has claimed returns the task as it is.
func (db *DB) ClaimSandbox(ctx context.Context, l fleet.Lease, claim fleet.Claim) (fleet.Task, error) {
	c := &claiming{db: db, lease: l, claim: claim}
	err := db.work.Write(ctx, &call{
		Name: "claim sandbox", Led: true, Keys: []string{taskKey(l.Task), sandboxKey(claim.Sandbox)},
		Read: c.read, Decide: c.decide, Write: c.write,
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return c.r.Task, nil
}

func (c *claiming) read(b *pgx.Batch) {
	lockTask(b, c.lease.Task, &c.r, &c.problem)
	lockSandbox(b, c.claim.Sandbox, &c.box, &c.absent)
}

func (c *claiming) decide(x *exchange) error {
	c.writes = false
	if c.problem != nil {
		return c.problem
	}
	if err := c.r.owned(c.lease.Fence, c.db.now()); err != nil {
		return err
	}
	switch id := c.claim.Sandbox; {
	case c.absent != nil:
		return c.absent
	case lifecycle.Foreign(c.box, c.claim.Owner) != nil:
		return lifecycle.Foreign(c.box, c.claim.Owner)
	case c.box.State == fleet.SandboxClaimed && c.box.Task == c.r.ID && c.box.Fence == c.r.Fence:
		return nil
	case c.r.State.Active():
		return fmt.Errorf("sandbox %s: task %s holds sandbox %s: %w", id, c.r.ID, c.r.Sandbox, fleet.ErrConflict)
	case c.box.State != fleet.SandboxReady:
		return fmt.Errorf("sandbox %s is %s: %w", id, c.box.State, fleet.ErrConflict)
	}
	c.r.Task, c.box = lifecycle.Claimed(c.r.Task, c.box, c.claim.Launch, c.claim.At)
	c.writes, x.boxed = true, true
	return nil
}

func (c *claiming) write(b *pgx.Batch) {
	if !c.writes {
		return
	}
	b.Queue(`UPDATE tasks SET place = 3, state = $2, sandbox = $3, node = $4, launch = $5, claimed_at = $6, result = '', lease_until = 0 WHERE id = $1`,
		string(c.r.ID), string(c.r.State), string(c.r.Sandbox), string(c.r.Node), string(c.r.Launch), nano(c.r.ClaimedAt))
	b.Queue("UPDATE sandboxes SET state = $2, task = $3, fence = $4, claimed_at = $5 WHERE id = $1",
		string(c.claim.Sandbox), string(c.box.State), string(c.box.Task), c.box.Fence, nano(c.box.ClaimedAt))
}

// Sandbox implements fleet.SandboxRecords.
func (db *DB) Sandbox(ctx context.Context, id fleet.SandboxID) (fleet.Sandbox, error) {
	var s fleet.Sandbox
	err := db.read(ctx, "sandbox", func(ctx context.Context, p *pgxpool.Pool) (err error) {
		s, err = scanSandbox(p.QueryRow(ctx, selectSandbox+"WHERE id = $1", string(id)))
		return absent(err, "sandbox", string(id))
	})
	if err != nil {
		return fleet.Sandbox{}, err
	}
	return s, nil
}

// Sandboxes implements fleet.SandboxRecords; in order of id.
func (db *DB) Sandboxes(ctx context.Context, goneSince time.Time) ([]fleet.Sandbox, error) {
	query, args := selectSandbox+"WHERE NOT gone ORDER BY id", []any{}
	if !goneSince.IsZero() {
		query, args = selectSandbox+"WHERE NOT gone OR gone AND gone_at >= $1 ORDER BY id", []any{moment(goneSince)}
	}
	var out []fleet.Sandbox
	err := db.read(ctx, "sandboxes", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Sandbox{}
		rows, err := p.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			s, err := scanSandbox(rows)
			if err != nil {
				return err
			}
			out = append(out, s)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
