package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

func taskKey(id fleet.TaskID) string       { return "task " + string(id) }
func sandboxKey(id fleet.SandboxID) string { return "sandbox " + string(id) }

// Change implements fleet.Tasks.
func (db *DB) Change(ctx context.Context, id fleet.TaskID, fence int64, c fleet.Change) error {
	var r record
	var problem error
	var phases string
	return db.work.Write(ctx, &call{
		Name: "change", Loose: true, Led: true, Keys: []string{taskKey(id)},
		Read: func(b *pgx.Batch) { lockTask(b, id, &r, &problem) },
		Decide: func(*exchange) (err error) {
			if problem != nil {
				return problem
			}
			if err = r.owned(fence, db.now()); err != nil {
				return err
			}
			if !r.State.Active() {
				return fmt.Errorf("task %s has claimed no sandbox: %w", id, fleet.ErrFenced)
			}
			if r.Task, err = lifecycle.Changed(r.Task, c); err != nil {
				return err
			}
			phases, err = encodePhases(r.Phases)
			return err
		},
		Write: func(b *pgx.Batch) { r.progress(b, phases) },
	})
}

// Settle implements fleet.Tasks.
func (db *DB) Settle(ctx context.Context, id fleet.TaskID, fence int64, s fleet.Settlement) (fleet.Task, error) {
	return db.finish(ctx, "settle", fleet.Lease{Task: id, Fence: fence}, func(r *record) (err error) {
		r.Task, err = lifecycle.Settled(r.Task, s)
		return err
	})
}

// Retry implements fleet.Tasks.
func (db *DB) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	return db.finish(ctx, "retry", fleet.Lease{Task: id, Fence: fence}, func(r *record) error {
		r.Task = lifecycle.Retried(r.Task, due, why, db.now())
		r.deadline = lifecycle.ExpiresAt(r.Task)
		return nil
	})
}

// ending takes a task to where nobody holds it, as step says.
type ending struct {
	db      *DB
	id      fleet.TaskID
	problem error
	r       record
	was     record // before the step
	phases  string
	result  string
}

func (e *ending) read(b *pgx.Batch) { lockTask(b, e.id, &e.r, &e.problem) }

func (e *ending) take(x *exchange, step func(*record) error) error {
	e.was = e.r
	if err := step(&e.r); err != nil {
		return err
	}
	e.r.settled(e.db.now())
	var err error
	if e.phases, e.result, err = e.r.encoded(); err != nil {
		return err
	}
	x.woken, x.boxed = true, x.boxed || e.was.Sandbox != ""
	if e.r.place == isDelayed {
		x.expect(e.r.DueAt)
	}
	return nil
}

func (e *ending) write(b *pgx.Batch) {
	e.r.rest(b, e.phases, e.result)
	if e.was.Sandbox != "" {
		free(b, e.was.Sandbox, e.id, e.was.Fence)
	}
}

// finish ends what a lease has of a task: it is final or waits again
// afterwards, as step says.
func (db *DB) finish(ctx context.Context, name string, l fleet.Lease, step func(*record) error) (fleet.Task, error) {
	e := &ending{db: db, id: l.Task}
	err := db.work.Write(ctx, &call{
		Name: name, Led: true, Keys: []string{taskKey(l.Task)}, Read: e.read, Write: e.write,
		Decide: func(x *exchange) error {
			if e.problem != nil {
				return e.problem
			}
			if err := e.r.owned(l.Fence, db.now()); err != nil {
				return err
			}
			return e.take(x, step)
		},
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return e.r.Task, nil
}

// Cancel implements fleet.Tasks.
func (db *DB) Cancel(ctx context.Context, id fleet.TaskID, by string, now time.Time) (fleet.Task, error) {
	e := &ending{db: db, id: id}
	write := func(*pgx.Batch) {}
	err := db.work.Write(ctx, &call{
		Name: "cancel", Keys: []string{taskKey(id)}, Read: e.read,
		Decide: func(x *exchange) (err error) {
			write = func(*pgx.Batch) {}
			switch {
			case e.problem != nil:
				return e.problem
			case e.r.State.Final() || e.r.Cancel:
				return nil
			case e.r.State.Active():
				e.r.Cancel, e.r.CancelBy = true, by
				e.phases, err = encodePhases(e.r.Phases)
				x.woken, write = true, func(b *pgx.Batch) { e.r.progress(b, e.phases) }
				return err
			}
			write = e.write
			return e.take(x, func(r *record) error {
				r.Task = lifecycle.Cancelled(r.Task, by, now)
				return nil
			})
		},
		Write: func(b *pgx.Batch) { write(b) },
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return e.r.Task, nil
}
