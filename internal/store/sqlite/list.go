package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Task implements fleet.Tasks.
func (db *DB) Task(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	r, err := scanTask(db.readers.QueryRowContext(ctx, selectTask+"WHERE t.id = ?", string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Task{}, fmt.Errorf("task %s: %w", id, fleet.ErrNotFound)
	}
	return r.Task, db.wrap("task", err)
}

// Tasks implements fleet.Tasks. It walks the index that fits the filter best,
// newest first, and drops what the rest of the filter does not select.
func (db *DB) Tasks(ctx context.Context, f fleet.TaskFilter) ([]fleet.Task, error) {
	out := []fleet.Task{}
	ways := walks(f)
	f.IDs = nil // the walks see to them
	for _, w := range ways {
		found, err := db.walk(ctx, w, f)
		if err != nil {
			return nil, db.wrap("tasks", err)
		}
		out = append(out, found...)
	}
	slices.SortFunc(out, func(a, b fleet.Task) int { return cmp.Compare(b.ID, a.ID) })
	return out[:min(len(out), lifecycle.Limit(f.Limit))], nil
}

// walk is a query over one index, newest first.
type walk struct {
	query string
	args  []any
}

// walks are disjoint; one for each state where states are asked for.
func walks(f fleet.TaskFilter) []walk {
	before := string(f.Before)
	if before == "" {
		before = "u" // ids begin with t
	}
	switch {
	case len(f.IDs) > 0:
		var out []walk
		ids := slices.Clone(f.IDs)
		slices.Sort(ids)
		for part := range slices.Chunk(slices.Compact(ids), 500) {
			args := []any{before}
			for _, id := range part {
				args = append(args, string(id))
			}
			out = append(out, walk{selectTask + "WHERE t.id < ? AND t.id IN (" + marks(len(part)) + ") ORDER BY t.id DESC", args})
		}
		return out
	case len(f.Labels) > 0:
		k := slices.Sorted(maps.Keys(f.Labels))[0]
		return []walk{{"SELECT " + columns + ` FROM labels l JOIN tasks t ON t.id = l.task JOIN specs s ON s.seq = t.seq
			WHERE l.key = ? AND l.value = ? AND l.task < ? ORDER BY l.task DESC`, []any{k, f.Labels[k], before}}}
	case len(f.States) > 0:
		states := slices.Clone(f.States)
		slices.Sort(states)
		var out []walk
		for _, st := range slices.Compact(states) {
			out = append(out, walk{selectTask + "WHERE t.state = ? AND t.id < ? ORDER BY t.id DESC", []any{string(st), before}})
		}
		return out
	case f.Pool != "":
		return []walk{{selectTask + "WHERE t.pool = ? AND t.id < ? ORDER BY t.id DESC", []any{string(f.Pool), before}}}
	}
	return []walk{{selectTask + "WHERE t.id < ? ORDER BY t.id DESC", []any{before}}}
}

// marks are the placeholders of n values.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// slack is how much later than its id says a task may have been submitted.
const slack = time.Hour

func (db *DB) walk(ctx context.Context, w walk, f fleet.TaskFilter) ([]fleet.Task, error) {
	rows, err := db.readers.QueryContext(ctx, w.query, w.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []fleet.Task
	for limit := lifecycle.Limit(f.Limit); len(out) < limit && rows.Next(); {
		r, err := scanTask(rows)
		if err != nil {
			return nil, err
		}
		// Ids sort by time: nothing after this one can be young enough.
		if !f.Since.IsZero() && r.SubmittedAt.Before(f.Since.Add(-slack)) {
			break
		}
		if lifecycle.MatchesTask(f, r.Task) {
			out = append(out, r.Task)
		}
	}
	return out, rows.Err()
}

// PendingWebhooks implements fleet.Tasks.
func (db *DB) PendingWebhooks(ctx context.Context, limit int) ([]fleet.Task, error) {
	rows, err := db.readers.QueryContext(ctx, selectTask+"WHERE t.webhook = 1 ORDER BY t.ended_at, t.id LIMIT ?", lifecycle.Limit(limit))
	if err != nil {
		return nil, db.wrap("pending webhooks", err)
	}
	defer rows.Close()
	out := []fleet.Task{}
	for rows.Next() {
		r, err := scanTask(rows)
		if err != nil {
			return nil, db.wrap("pending webhooks", err)
		}
		out = append(out, r.Task)
	}
	return out, db.wrap("pending webhooks", rows.Err())
}
