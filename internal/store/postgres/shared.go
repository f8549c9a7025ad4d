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

// lockSandbox reads a sandbox for a call that will write it. What cannot be
// read is the call's error and nobody else's.
func lockSandbox(b *pgx.Batch, id fleet.SandboxID, to *fleet.Sandbox, problem *error) {
	*to, *problem = fleet.Sandbox{}, nil
	b.Queue(selectSandbox+"WHERE id = $1 FOR UPDATE", string(id)).QueryRow(func(row pgx.Row) error {
		s, err := scanSandbox(row)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			*problem = fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
		case errors.Is(err, fleet.ErrCorrupt):
			*problem = err
		case err != nil:
			return err
		}
		*to = s
		return nil
	})
}

// putSandbox queues the writing of a record whole, of which text is the JSON.
func putSandbox(b *pgx.Batch, s *fleet.Sandbox, text string) {
	b.Queue(`INSERT INTO sandboxes (id, state, task, fence, node, claimed_at, gone_at, gone, owner, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, task = excluded.task, fence = excluded.fence, node = excluded.node,
		claimed_at = excluded.claimed_at, gone_at = excluded.gone_at, gone = excluded.gone, owner = excluded.owner, record = excluded.record`,
		string(s.Spec.ID), string(s.State), string(s.Task), s.Fence, string(s.Spec.Node),
		nano(s.ClaimedAt), nano(s.GoneAt), s.State == fleet.SandboxGone, clean(s.Owner), text)
}

// SwapSandbox implements fleet.SharedRecords.
func (db *DB) SwapSandbox(ctx context.Context, s fleet.Sandbox, state fleet.SandboxState, owner string) error {
	s = lifecycle.CleanSandbox(s)
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("swap sandbox %s: %w: %w", s.Spec.ID, fleet.ErrInvalid, err)
	}
	var stored fleet.Sandbox
	var problem error
	return db.work.Write(ctx, &call{
		Name: "swap sandbox", Led: true, Keys: []string{sandboxKey(s.Spec.ID)},
		Read: func(b *pgx.Batch) { lockSandbox(b, s.Spec.ID, &stored, &problem) },
		Decide: func(x *exchange) error {
			if problem != nil {
				return problem
			}
			if err := lifecycle.MaySwap(stored, s, state, owner); err != nil {
				return err
			}
			x.boxed = true
			return nil
		},
		Write: func(b *pgx.Batch) { putSandbox(b, &s, string(text)) },
	})
}

// errOther is that another task is in a sandbox than was when it was looked at.
var errOther = errors.New("another task is in it than was")

// TakeOver implements fleet.SharedRecords. Tasks are locked before sandboxes, so
// that which task is in it must be known first.
func (db *DB) TakeOver(ctx context.Context, id fleet.SandboxID, from, to string) (fleet.Sandbox, fleet.Task, error) {
	for range 3 { // a sandbox has one task in its life
		s, err := db.Sandbox(ctx, id)
		if err != nil {
			return fleet.Sandbox{}, fleet.Task{}, fmt.Errorf("take over: %w", err)
		}
		t := &taking{id: id, task: s.Task, from: from, to: to}
		keys := []string{sandboxKey(id)}
		if s.Task != "" {
			keys = append(keys, taskKey(s.Task))
		}
		err = db.work.Write(ctx, &call{
			Name: "take over sandbox", Led: true, Keys: keys,
			Read: t.read, Decide: t.decide, Write: t.write,
		})
		if err == nil {
			return t.box, t.running, nil
		}
		if !errors.Is(err, errOther) {
			return fleet.Sandbox{}, fleet.Task{}, err
		}
	}
	return fleet.Sandbox{}, fleet.Task{}, fmt.Errorf("take over sandbox %s: %w: %w", id, errOther, fleet.ErrConflict)
}

// taking is one attempt of TakeOver, for a sandbox in which this task was seen.
type taking struct {
	id       fleet.SandboxID
	task     fleet.TaskID
	from, to string

	r       record
	missing error // why there is no task
	box     fleet.Sandbox
	problem error
	running fleet.Task
	text    string
}

func (t *taking) read(b *pgx.Batch) {
	t.r, t.missing = record{}, nil
	if t.task != "" {
		lockTask(b, t.task, &t.r, &t.missing)
	}
	lockSandbox(b, t.id, &t.box, &t.problem)
}

func (t *taking) decide(x *exchange) error {
	t.running = fleet.Task{}
	switch {
	case t.problem != nil:
		return t.problem
	case t.missing != nil && !errors.Is(t.missing, fleet.ErrNotFound): // pruned: it is no task any more
		return t.missing
	case t.box.Task != t.task:
		return errOther
	}
	if err := lifecycle.MayTake(t.box, t.from); err != nil {
		return err
	}
	if lifecycle.Inside(t.r.Task, t.box) {
		t.box = lifecycle.TakenOver(t.box, &t.r.Task, t.to)
		t.running = t.r.Task
	} else {
		t.box = lifecycle.TakenOver(t.box, nil, t.to)
	}
	text, err := json.Marshal(t.box)
	if err != nil {
		return fmt.Errorf("encode sandbox %s: %w: %w", t.id, fleet.ErrInvalid, err)
	}
	t.text = string(text)
	x.boxed = true
	return nil
}

func (t *taking) write(b *pgx.Batch) {
	if t.running.ID != "" {
		b.Queue("UPDATE tasks SET fence = $2 WHERE id = $1", string(t.running.ID), t.running.Fence)
	}
	putSandbox(b, &t.box, t.text)
}

// WakeSandboxes implements fleet.SharedRecords.
func (db *DB) WakeSandboxes() (<-chan struct{}, func()) { return db.watch(db.boxWatchers) }

// PutConsumer implements fleet.Consumers. A crash of the server may lose it.
func (db *DB) PutConsumer(ctx context.Context, c fleet.Consumer) error {
	if c.Name == "" {
		return fmt.Errorf("put consumer without a name: %w", fleet.ErrInvalid)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("put consumer %q: %w: %w", c.Name, fleet.ErrInvalid, err)
	}
	return db.work.Write(ctx, &call{Name: "put consumer", Loose: true, Keys: []string{"consumer " + c.Name}, Write: func(b *pgx.Batch) {
		b.Queue(`INSERT INTO consumers (name, told, consumer) VALUES ($1, clock_timestamp(), $2)
			ON CONFLICT (name) DO UPDATE SET told = excluded.told, consumer = excluded.consumer`, []byte(c.Name), string(text))
	}})
}

// DeleteConsumer implements fleet.Consumers.
func (db *DB) DeleteConsumer(ctx context.Context, name string) error {
	return db.work.Write(ctx, &call{Name: "delete consumer", Led: true, Keys: []string{"consumer " + name}, Write: func(b *pgx.Batch) {
		b.Queue("DELETE FROM consumers WHERE name = $1", []byte(name))
	}})
}

// Consumers implements fleet.Consumers. Ages are by the server's clock.
func (db *DB) Consumers(ctx context.Context) ([]fleet.Consumer, error) {
	out := []fleet.Consumer{}
	err := db.read(ctx, "consumers", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Consumer{}
		rows, err := p.Query(ctx, "SELECT name, (extract(epoch FROM clock_timestamp() - told) * 1000000)::bigint, consumer FROM consumers ORDER BY name")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, text []byte
			var micros int64
			if err := rows.Scan(&name, &micros, &text); err != nil {
				return err
			}
			var c fleet.Consumer
			if err := json.Unmarshal(text, &c); err != nil {
				return fmt.Errorf("consumer %q: %w: %w", name, fleet.ErrCorrupt, err)
			}
			c.Name, c.Age = string(name), max(0, time.Duration(micros)*time.Microsecond)
			out = append(out, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
