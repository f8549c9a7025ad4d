package postgres

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
	"muster.dev/muster/internal/store/lifecycle"
)

// mostLeased is how many tasks one transaction leases at most.
const mostLeased = 64

// Lease implements fleet.Queue: three exchanges with the server for each
// mostLeased tasks, one when there is nothing to lease. With Claim at most
// mostLeased are leased.
func (q queue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	if r.Visibility <= 0 {
		return nil, fmt.Errorf("lease: visibility %s: want more than 0: %w", r.Visibility, fleet.ErrInvalid)
	}
	q.leasing.Lock()
	defer q.leasing.Unlock()
	l := &leasing{db: q.DB, request: r, slots: maps.Clone(r.Slots)}
	out := []fleet.Delivery{}
	for {
		got, err := l.round(ctx)
		if err != nil && len(out) == 0 {
			return nil, fmt.Errorf("lease: %w", err)
		}
		// What was leased before a later round failed is leased.
		if err != nil || len(got) == 0 {
			return out, nil
		}
		out = append(out, got...)
		if r.Claim != nil {
			return out, nil // a later round that fails would leave sandboxes named for nothing
		}
		for _, d := range got {
			l.slots[d.Task.Spec.Pool]--
		}
	}
}

// leasing is one call of Lease; a round is one transaction of it.
type leasing struct {
	db      *DB
	request fleet.LeaseRequest
	slots   map[fleet.PoolKey]int

	x      exchange
	now    time.Time
	rows   []row
	picked []record
	claims []fleet.Claim // of each picked; no sandbox: none
	boxed  map[fleet.TaskID]boxed
	got    []fleet.Delivery
	named  bool // Claim has been called: nothing may be run again
}

// boxed is a sandbox that was claimed along with a task.
type boxed struct {
	sandbox fleet.SandboxID
	node    fleet.NodeID
}

func (l *leasing) round(ctx context.Context) ([]fleet.Delivery, error) {
	open := false
	for _, n := range l.slots {
		open = open || n > 0
	}
	select {
	case <-l.db.stopped:
		return nil, l.db.closedErr()
	default:
	}
	if !open {
		return nil, nil
	}
	var err error
	for range pg.Attempts {
		l.named = false
		err = l.db.server.Do(ctx, "write", func(ctx context.Context, p *pgxpool.Pool) error {
			if l.named {
				return fmt.Errorf("the connection was lost: %w", fleet.ErrUnavailable)
			}
			return pg.OnConn(ctx, p, func(c *pgx.Conn) error { return l.transact(ctx, c) })
		})
		if err == nil || l.named || !pg.Crossed(err) {
			break
		}
	}
	if err != nil {
		if l.named && !pg.Refused(err) {
			l.doubt()
		}
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, l.db.fault(err)
	}
	l.db.doubts = nil
	l.db.folding.moves.Add(int64(len(l.got)))
	l.db.changed(l.x)
	return l.got, nil
}

// doubt is a task that may have been leased, and a sandbox that may have been
// claimed for it, though the caller was told that neither was: the connection
// broke during the commit. It is undone before the next lease.
type doubt struct {
	task    fleet.TaskID
	fence   int64
	sandbox fleet.SandboxID
}

func (l *leasing) doubt() {
	for i, r := range l.picked {
		l.db.doubts = append(l.db.doubts, doubt{r.ID, r.Fence, l.claims[i].Sandbox})
	}
}

func (d doubt) queue(b *pgx.Batch) {
	b.Queue(`UPDATE tasks SET place = 0, state = 'queued', phases = '', lease_until = 0, sandbox = '', node = '', launch = '', claimed_at = 0
		WHERE id = $1 AND fence = $2 AND place IN (2, 3)`, string(d.task), d.fence)
	b.Queue("UPDATE sandboxes SET state = 'ready', task = '', fence = 0, claimed_at = 0 WHERE id = $1 AND state = 'claimed' AND task = $2 AND fence = $3",
		string(d.sandbox), string(d.task), d.fence)
}

func (l *leasing) transact(ctx context.Context, c *pgx.Conn) error {
	l.x, l.now, l.got = exchange{}, l.db.now(), nil
	if err := l.look(ctx, c); err != nil {
		return err
	}
	ids := choose(l.rows, l.db.shares(), l.slots, mostLeased)
	if len(ids) == 0 {
		b := &pgx.Batch{}
		if l.x.seen() {
			l.db.mark(b, turnLane, l.x)
		}
		b.Queue("COMMIT")
		return c.SendBatch(ctx, b).Close()
	}
	if err := l.pick(ctx, c, ids); err != nil {
		return err
	}
	l.name()
	return l.take(ctx, c)
}

// look reads the front of each row, with no other lease under way. The fewer
// rows there are the more of each is read.
func (l *leasing) look(ctx context.Context, c *pgx.Conn) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	l.db.inTerm(b)
	b.Queue("SELECT pg_advisory_xact_lock($1)", l.db.leases)
	l.db.queueTurn(b, &l.x.woken)
	for _, d := range l.db.doubts {
		l.x.boxed = true
		d.queue(b)
	}
	var pools []string
	var wants []int
	for pool, n := range l.slots {
		if n > 0 {
			pools, wants = append(pools, string(pool)), append(wants, min(n, mostLeased))
		}
	}
	b.Queue(`WITH c AS (SELECT pool, tenant, priority, sum(due)::bigint AS due, sum(held)::bigint AS held FROM tally GROUP BY pool, tenant, priority),
		w AS (SELECT pool, least(want, greatest(4, 512 / (SELECT count(*) + 1 FROM c WHERE due > 0))) AS want FROM unnest($1::text[], $2::int[]) AS w (pool, want))
		SELECT c.pool, c.tenant, c.priority, c.due, c.held, coalesce(w.want, 0)::int, coalesce(f.id, ''), coalesce(f.due_at, 0), coalesce(f.seq, 0)
		FROM c LEFT JOIN w ON w.pool = c.pool LEFT JOIN LATERAL (SELECT t.id, t.due_at, t.seq FROM tasks t
			WHERE c.due > 0 AND t.place = 0 AND t.pool = w.pool AND t.tenant = c.tenant AND t.priority = c.priority
			ORDER BY t.due_at, t.seq LIMIT w.want) AS f ON true
		ORDER BY c.pool, c.tenant, c.priority, f.due_at, f.seq`, pools, wants).Query(l.scanFronts)
	return c.SendBatch(ctx, b).Close()
}

func (l *leasing) scanFronts(rows pgx.Rows) error {
	defer rows.Close()
	l.rows = nil
	for rows.Next() {
		var r row
		var s spot
		if err := rows.Scan(&r.pool, &r.tenant, &r.priority, &r.due, &r.held, &r.want, &s.id, &s.due, &s.seq); err != nil {
			return err
		}
		if n := len(l.rows); n == 0 || l.rows[n-1].pool != r.pool || l.rows[n-1].tenant != r.tenant || l.rows[n-1].priority != r.priority {
			l.rows = append(l.rows, r)
		}
		if last := &l.rows[len(l.rows)-1]; s.id != "" {
			last.front = append(last.front, s)
		}
	}
	return rows.Err()
}

// pick locks what was chosen; what another transaction is busy with, which can
// only be its end, is passed over.
func (l *leasing) pick(ctx context.Context, c *pgx.Conn, ids []fleet.TaskID) error {
	rows, err := c.Query(ctx, selectTask+"JOIN unnest($1::text[]) WITH ORDINALITY AS n (id, i) ON n.id = t.id WHERE t.place = 0 ORDER BY n.i FOR UPDATE OF t SKIP LOCKED", texts(ids))
	if err != nil {
		return err
	}
	l.picked, err = scanTasks(rows)
	return err
}

// name asks for the sandboxes of what was picked.
func (l *leasing) name() {
	l.claims = make([]fleet.Claim, len(l.picked))
	for i := range l.picked {
		r := &l.picked[i]
		r.Task = lifecycle.Leased(r.Task, l.now)
		r.until = l.now.Add(l.request.Visibility)
		if l.request.Claim == nil {
			continue
		}
		l.named = true
		if c, ok := l.request.Claim(lifecycle.CloneTask(r.Task)); ok {
			l.claims[i] = c
		}
	}
}

// take writes leases and claims.
func (l *leasing) take(ctx context.Context, c *pgx.Conn) error {
	l.boxed = map[fleet.TaskID]boxed{}
	b := &pgx.Batch{}
	if err := l.queueTake(b); err != nil {
		return err
	}
	if l.x.seen() {
		l.db.mark(b, turnLane, l.x)
	}
	b.Queue("COMMIT")
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	for i := range l.picked {
		r := l.picked[i]
		if box, ok := l.boxed[r.ID]; ok {
			s := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: box.sandbox, Node: box.node}}
			r.Task, _ = lifecycle.Claimed(r.Task, s, l.claims[i].Launch, l.claims[i].At)
		} else {
			l.x.expect(r.until)
		}
		l.got = append(l.got, fleet.Delivery{Lease: fleet.Lease{Task: r.ID, Attempt: r.Attempt, Fence: r.Fence, Until: r.until}, Task: r.Task})
	}
	return nil
}

// queueTake queues the one statement that leases all, and claims a sandbox that
// is still ready for each task that one was named for.
func (l *leasing) queueTake(b *pgx.Batch) error {
	var ids, phases, boxes, launches, owners []string
	var at []int64
	for i, r := range l.picked {
		p, err := encodePhases(r.Phases)
		if err != nil {
			return err
		}
		ids, phases, at = append(ids, string(r.ID)), append(phases, p), append(at, nano(l.claims[i].At))
		boxes, launches = append(boxes, string(l.claims[i].Sandbox)), append(launches, string(l.claims[i].Launch))
		owners = append(owners, clean(l.claims[i].Owner))
		l.x.boxed = l.x.boxed || l.claims[i].Sandbox != ""
	}
	b.Queue(`WITH w AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $9::text[]) AS w (id, phases, box, launch, at, owner)),
		box AS (UPDATE sandboxes s SET state = 'claimed', task = w.id, fence = t.fence + 1, claimed_at = w.at
			FROM w JOIN tasks t ON t.id = w.id WHERE s.id = w.box AND s.state = 'ready' AND s.owner = w.owner RETURNING s.id, s.node, w.id AS task)
		UPDATE tasks t SET attempt = t.attempt + 1, fence = t.fence + 1, phases = w.phases, lease_until = CASE WHEN box.id IS NULL THEN $6::bigint ELSE 0 END,
			lease_owner = $7, lease_term = $8, place = CASE WHEN box.id IS NULL THEN 2 ELSE 3 END, state = CASE WHEN box.id IS NULL THEN t.state ELSE 'claimed' END,
			sandbox = coalesce(box.id, ''), node = coalesce(box.node, ''), launch = CASE WHEN box.id IS NULL THEN '' ELSE w.launch END,
			claimed_at = CASE WHEN box.id IS NULL THEN 0 ELSE w.at END, result = CASE WHEN box.id IS NULL THEN t.result ELSE '' END
		FROM w LEFT JOIN box ON box.task = w.id WHERE t.id = w.id RETURNING t.id, t.sandbox, t.node`,
		ids, phases, boxes, launches, at, l.now.Add(l.request.Visibility).UnixNano(), l.db.id, l.db.term.Load(), owners).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var id fleet.TaskID
			var box boxed
			if err := rows.Scan(&id, &box.sandbox, &box.node); err != nil {
				return err
			}
			if box.sandbox != "" {
				l.boxed[id] = box
			}
		}
		return rows.Err()
	})
	return nil
}
