package postgres

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/archive/watch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
)

// appendCall is a write to logs.
type appendCall = pg.Call[grown]

func timeOf(nano int64) time.Time { return time.Unix(0, nano).UTC() }

// WatchLog implements fleet.Archive.
func (a *Archive) WatchLog(id fleet.TaskID, attempt int) (<-chan struct{}, func()) {
	return a.watchers.Watch(&a.mu, logKey{id, attempt})
}

func (a *Archive) wakeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.watchers {
		a.watchers.Wake(k)
	}
}

// grew wakes who watches, here and elsewhere.
func (a *Archive) grew(logs ...logKey) {
	if len(logs) == 0 {
		return
	}
	a.mu.Lock()
	for _, k := range logs {
		a.watchers.Wake(k)
		a.toTell[k] = struct{}{}
	}
	a.mu.Unlock()
	watch.Poke(a.push)
}

func (a *Archive) channel() string { return a.server.Schema() + "_logs" }

const (
	// between is the least time between two notifications: the server commits
	// transactions that notify one after another.
	between = 20 * time.Millisecond
	// mostNamed is how many logs a notification names; PostgreSQL bounds it to
	// 8,000 bytes. More are told as "all".
	mostNamed = 200
	all       = "*"
)

// keepPushing is the goroutine that tells the others. One that fails is made
// up for by their looking.
func (a *Archive) keepPushing(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.push:
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		a.mu.Lock()
		var list []string
		for k := range a.toTell {
			list = append(list, k.String())
		}
		clear(a.toTell)
		a.mu.Unlock()
		if len(list) > mostNamed {
			list = []string{all}
		}
		_ = a.server.Notify(ctx, a.channel(), strings.Join(list, " "))
		pause.Reset(between)
	}
}

// heard is told of a notification, of others or our own: a watcher may be woken
// twice.
func (a *Archive) heard(payload string) {
	if payload == all {
		a.wakeAll()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range strings.FieldsSeq(payload) {
		task, attempt, _ := strings.Cut(name, "/")
		if n, err := strconv.Atoi(attempt); err == nil {
			a.watchers.Wake(logKey{fleet.TaskID(task), n})
		}
	}
}

// seen is a log as it was looked at last.
type seen struct {
	size  int64
	ended bool
}

// keepLooking is the goroutine that looks at the logs which are watched, should
// push fail.
func (a *Archive) keepLooking(ctx context.Context) {
	last := map[logKey]seen{}
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		a.mu.Lock()
		var tasks []string
		var attempts []int
		for k := range a.watchers {
			tasks, attempts = append(tasks, string(k.task)), append(attempts, k.attempt)
		}
		a.mu.Unlock()
		now := map[logKey]seen{}
		if len(tasks) > 0 && a.look(tasks, attempts, now) != nil {
			continue // the readers' next call reports it
		}
		a.mu.Lock()
		for k, s := range now {
			// Whatever came between the watcher and the first look is told, too.
			if was, known := last[k]; !known || was != s {
				a.watchers.Wake(k)
			}
		}
		a.mu.Unlock()
		last = now
	}
}

func (a *Archive) look(tasks []string, attempts []int, into map[logKey]seen) error {
	return a.do("look at logs", func(ctx context.Context, p *pgxpool.Pool) error {
		rows, err := p.Query(ctx, `SELECT w.task, w.attempt, coalesce(l.size, 0), coalesce(l.ended, false)
			FROM unnest($1::text[], $2::int[]) AS w (task, attempt) LEFT JOIN logs l USING (task, attempt)`, tasks, attempts)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k logKey
			var s seen
			if err := rows.Scan(&k.task, &k.attempt, &s.size, &s.ended); err != nil {
				return err
			}
			into[k] = s
		}
		return rows.Err()
	})
}
