package postgres

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// Task implements fleet.Tasks.
func (db *DB) Task(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	var r record
	err := db.read(ctx, "task", func(ctx context.Context, p *pgxpool.Pool) (err error) {
		r, err = scanTask(p.QueryRow(ctx, selectTask+"WHERE t.id = $1", string(id)))
		return absent(err, "task", string(id))
	})
	if err != nil {
		return fleet.Task{}, err
	}
	return r.Task, nil
}

// Tasks implements fleet.Tasks. It walks the index that fits the filter best,
// newest first.
func (db *DB) Tasks(ctx context.Context, f fleet.TaskFilter) ([]fleet.Task, error) {
	out := []fleet.Task{}
	limit := lifecycle.Limit(f.Limit)
	err := db.read(ctx, "tasks", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Task{}
		b := &pgx.Batch{}
		for _, w := range walks(f) {
			query := w.build(f, limit)
			b.Queue(query, w.args...).Query(func(rows pgx.Rows) error {
				got, err := scanTasks(rows)
				for _, r := range got {
					out = append(out, r.Task)
				}
				return err
			})
		}
		return p.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b fleet.Task) int { return cmp.Compare(b.ID, a.ID) })
	return out[:min(len(out), limit)], nil
}

// walk is a query over one index, newest first.
type walk struct {
	from  string // what is joined to tasks t and specs s
	where []string
	order string
	args  []any
}

func (w *walk) and(condition string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(w.args)), 1)
	}
	w.where = append(w.where, condition)
}

// build adds what the filter says beyond the walk's own conditions.
func (w *walk) build(f fleet.TaskFilter, limit int) string {
	if len(f.IDs) > 0 {
		w.and("t.id = ANY (?)", texts(f.IDs))
	}
	if f.Before != "" {
		w.and(w.order+" < ?", string(f.Before))
	}
	if f.Pool != "" {
		w.and("t.pool = ?", string(f.Pool))
	}
	if !f.Since.IsZero() {
		w.and("t.submitted_at >= ?", moment(f.Since))
	}
	where := ""
	if len(w.where) > 0 {
		where = " WHERE " + strings.Join(w.where, " AND ")
	}
	return "SELECT " + columns + " FROM " + w.from + where + " ORDER BY " + w.order + " DESC LIMIT " + strconv.Itoa(limit)
}

const tasksAndSpecs = "tasks t JOIN specs s ON s.id = t.id"

// walks are disjoint; one for each state where states are asked for.
func walks(f fleet.TaskFilter) []*walk {
	states := slices.Clone(f.States)
	slices.Sort(states)
	states = slices.Compact(states)
	if len(f.Labels) > 0 {
		keys := slices.Sorted(maps.Keys(f.Labels))
		w := &walk{from: "labels l JOIN tasks t ON t.id = l.task JOIN specs s ON s.id = t.id", order: "l.task"}
		w.and("l.key = ?", []byte(keys[0]))
		w.and("l.value = ?", []byte(f.Labels[keys[0]]))
		for _, k := range keys[1:] {
			w.and("EXISTS (SELECT FROM labels m WHERE m.task = t.id AND m.key = ? AND m.value = ?)", []byte(k), []byte(f.Labels[k]))
		}
		if len(states) > 0 {
			w.and("t.state = ANY (?)", texts(states))
		}
		return []*walk{w}
	}
	if len(states) == 0 {
		return []*walk{{from: tasksAndSpecs, order: "t.id"}}
	}
	var out []*walk
	add := func(place place, st fleet.TaskState) {
		w := &walk{from: tasksAndSpecs, order: "t.id"}
		w.where = append(w.where, "t.place = "+strconv.Itoa(int(place)))
		if place == hasEnded {
			w.and("t.outcome = ?", string(st))
		} else {
			w.and("t.state = ?", string(st))
		}
		out = append(out, w)
	}
	for _, st := range states {
		switch {
		case st == fleet.TaskQueued:
			add(isDue, st)
			add(isDelayed, st)
			add(isLeased, st)
		case st.Final():
			add(hasEnded, st)
		default:
			add(isClaimed, st)
		}
	}
	return out
}

func texts[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// PendingWebhooks implements fleet.Tasks.
func (db *DB) PendingWebhooks(ctx context.Context, limit int) ([]fleet.Task, error) {
	out := []fleet.Task{}
	err := db.read(ctx, "pending webhooks", func(ctx context.Context, p *pgxpool.Pool) error {
		rows, err := p.Query(ctx, selectTask+"WHERE t.webhook = 1 ORDER BY t.ended_at, t.id LIMIT $1", lifecycle.Limit(limit))
		if err != nil {
			return err
		}
		got, err := scanTasks(rows)
		out = []fleet.Task{}
		for _, r := range got {
			out = append(out, r.Task)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
