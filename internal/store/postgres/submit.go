package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// keyConstraint keeps idempotency keys apart. A submission that runs into it
// was overtaken by its twin, and finds that when it is run again.
const keyConstraint = "tasks_key"

// rowWeight is what a task weighs beside its spec: it is in a dozen indexes.
const rowWeight = 1 << 10

// submission is one call of Submit.
type submission struct {
	db      *DB
	fresh   []record
	digests []string
	specs   []string
	weight  int
	keys    map[string]int // tenant and key → first of fresh that has it

	earlier map[string]found // by tenant and key
	waiting int64
	out     []fleet.Task
	added   []int // of fresh
}

// found is the task of an earlier submission.
type found struct {
	task   fleet.Task
	digest string
}

// Submit implements fleet.Tasks.
func (db *DB) Submit(ctx context.Context, tasks []fleet.Task) ([]fleet.Task, error) {
	s := &submission{db: db, keys: map[string]int{}}
	for i, t := range tasks {
		fresh, err := lifecycle.Submitted(t, db.now())
		if err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
		digest, err := lifecycle.Digest(fresh.Spec)
		if err != nil {
			return nil, fmt.Errorf("submit: %w", err)
		}
		spec, err := json.Marshal(fresh.Spec)
		if err != nil {
			return nil, fmt.Errorf("submit: encode spec: %w: %w", fleet.ErrInvalid, err)
		}
		s.fresh = append(s.fresh, record{Task: fresh, deadline: lifecycle.ExpiresAt(fresh)})
		s.weight += len(spec) + rowWeight
		s.digests, s.specs = append(s.digests, string(digest)), append(s.specs, string(spec))
		if k := idemKey(fresh.Spec); k != "" {
			if _, twice := s.keys[k]; !twice {
				s.keys[k] = i
			}
		}
	}
	if len(tasks) == 0 {
		return []fleet.Task{}, ctx.Err()
	}
	err := db.work.Write(ctx, &call{Name: "submit", Keys: keysOf(s.keys), Weight: s.weight, Read: s.read, Decide: s.decide, Write: s.write})
	if err != nil {
		return nil, err
	}
	return s.out, nil
}

// idemKey names an idempotency key among all tenants'; empty: none.
func idemKey(spec fleet.TaskSpec) string {
	if spec.IdempotencyKey == "" {
		return ""
	}
	return "key " + string(spec.Tenant) + "\x00" + spec.IdempotencyKey
}

func (s *submission) read(b *pgx.Batch) {
	s.earlier, s.waiting = map[string]found{}, 0
	if s.db.opt.MaxBacklog > 0 {
		// One after another, so that the bound holds over all processes.
		b.Queue("SELECT pg_advisory_xact_lock($1)", s.db.submissions)
		b.Queue("SELECT coalesce(sum(due + delayed), 0)::bigint FROM tally").QueryRow(func(row pgx.Row) error { return row.Scan(&s.waiting) })
	}
	if len(s.keys) == 0 {
		return
	}
	var tenants []string
	var keys [][]byte
	for _, i := range s.keys {
		spec := s.fresh[i].Spec
		tenants, keys = append(tenants, string(spec.Tenant)), append(keys, []byte(spec.IdempotencyKey))
	}
	b.Queue("SELECT t.digest, "+columns+` FROM unnest($1::text[], $2::bytea[]) AS k (tenant, key)
		JOIN tasks t ON t.tenant = k.tenant AND t.idem_key = k.key JOIN specs s ON s.id = t.id`, tenants, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var f found
			r, err := scanTask(prefixed{rows, &f.digest})
			if err != nil {
				return err
			}
			f.task = r.Task
			s.earlier[idemKey(r.Spec)] = f
		}
		return rows.Err()
	})
}

// prefixed scans one more column before those of a task.
type prefixed struct {
	pgx.Row
	first any
}

// Scan implements pgx.Row.
func (p prefixed) Scan(to ...any) error { return p.Row.Scan(append([]any{p.first}, to...)...) }

func (s *submission) decide(x *exchange) error {
	s.out, s.added = make([]fleet.Task, len(s.fresh)), nil
	inCall := map[string]int{}
	for i := range s.fresh {
		r := &s.fresh[i]
		k := idemKey(r.Spec)
		had, known := s.earlier[k]
		if first, twin := inCall[k]; k != "" && twin {
			had, known = found{s.out[first], s.digests[first]}, true
		}
		if known {
			if had.digest != s.digests[i] {
				return fmt.Errorf("idempotency key %q was used by task %s with another content: %w", r.Spec.IdempotencyKey, had.task.ID, fleet.ErrConflict)
			}
			s.out[i] = lifecycle.CloneTask(had.task)
			continue
		}
		if k != "" {
			inCall[k] = i
		}
		s.added = append(s.added, i)
		r.settled(s.db.now())
		s.out[i] = lifecycle.CloneTask(r.Task)
		s.out[i].Receipt = ""
	}
	waiting := int(s.waiting) + x.added
	if most := s.db.opt.MaxBacklog; most > 0 && len(s.added) > 0 && waiting+len(s.added) > most {
		return fmt.Errorf("%d tasks wait and the queue is bounded to %d (spec.queue.maxBacklog): %w", waiting, most, fleet.ErrFull)
	}
	x.added += len(s.added)
	for _, i := range s.added {
		x.woken = true
		if r := s.fresh[i]; r.place == isDelayed {
			x.expect(r.DueAt)
		}
	}
	return nil
}

// rows are columns of what is inserted.
type rows struct {
	ids, tenants, pools, digests, specs []string
	keys                                [][]byte // nil: none
	priorities, places                  []int
	submitted, due, deadlines           []int64

	labelKeys, labelValues [][]byte
	labelTasks             []string

	messageTasks, queues []string
	messages, receipts   [][]byte
}

func (s *submission) columns() rows {
	var c rows
	for _, i := range s.added {
		r := s.fresh[i]
		id := string(r.ID)
		c.ids, c.tenants, c.pools = append(c.ids, id), append(c.tenants, string(r.Spec.Tenant)), append(c.pools, string(r.Spec.Pool))
		c.digests, c.specs = append(c.digests, s.digests[i]), append(c.specs, s.specs[i])
		var key []byte
		if r.Spec.IdempotencyKey != "" {
			key = []byte(r.Spec.IdempotencyKey)
		}
		c.keys, c.priorities, c.places = append(c.keys, key), append(c.priorities, r.Spec.Priority), append(c.places, int(r.place))
		c.submitted, c.due, c.deadlines = append(c.submitted, nano(r.SubmittedAt)), append(c.due, nano(r.DueAt)), append(c.deadlines, nano(r.deadline))
		for k, v := range r.Spec.Labels {
			c.labelKeys, c.labelValues, c.labelTasks = append(c.labelKeys, []byte(k)), append(c.labelValues, []byte(v)), append(c.labelTasks, id)
		}
		if o := r.Spec.Origin; o != nil {
			c.messageTasks, c.queues = append(c.messageTasks, id), append(c.queues, o.Queue)
			c.messages, c.receipts = append(c.messages, []byte(o.Message)), append(c.receipts, []byte(r.Receipt))
		}
	}
	return c
}

func (s *submission) write(b *pgx.Batch) {
	if len(s.added) == 0 {
		return
	}
	c := s.columns()
	// In order, since seq is given in the order of insertion.
	b.Queue(`INSERT INTO tasks (id, tenant, pool, digest, idem_key, priority, place, submitted_at, due_at, deadline, state)
		SELECT id, tenant, pool, digest, key, priority, place, submitted, due, deadline, 'queued'
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::int[], $7::int[], $8::bigint[], $9::bigint[], $10::bigint[])
		WITH ORDINALITY AS n (id, tenant, pool, digest, key, priority, place, submitted, due, deadline, i) ORDER BY i`,
		c.ids, c.tenants, c.pools, c.digests, c.keys, c.priorities, c.places, c.submitted, c.due, c.deadlines)
	b.Queue("INSERT INTO specs (id, spec) SELECT * FROM unnest($1::text[], $2::text[])", c.ids, c.specs)
	if len(c.labelTasks) > 0 {
		b.Queue("INSERT INTO labels (key, value, task) SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[])", c.labelKeys, c.labelValues, c.labelTasks)
	}
	if len(c.messageTasks) > 0 {
		b.Queue("INSERT INTO messages (task, queue, message, receipt) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[])",
			c.messageTasks, c.queues, c.messages, c.receipts)
	}
}
