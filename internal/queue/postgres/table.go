package postgres

import (
	_ "embed"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed table.sql
var definition string

// table is a queue of our own and what belongs to it.
type table struct{ schema, name string }

func parseTable(s string) (table, error) {
	m := tableName.FindStringSubmatch(s)
	if m == nil {
		return table{}, invalid("table", "name or schema.name of lower case letters, digits and _", "%.80q", s)
	}
	t := table{schema: m[1], name: m[2]}
	if t.schema == "" {
		t.schema = "public"
	}
	if len(t.name) > maxName || len(t.channel()) > 63 {
		return table{}, invalid("table", "a name of at most 48 bytes, 63 with its schema", "%.80q is too long", s)
	}
	return t, nil
}

// channel is what the table's triggers notify: schema.name.
func (t table) channel() string { return t.schema + "." + t.name }

// fill puts the names into a text.
func (t table) fill(s string) string {
	in := func(suffix string) string { return pgx.Identifier{t.schema, t.name + suffix}.Sanitize() }
	return strings.NewReplacer(
		"{{table}}", in(""), "{{count}}", in("_count"), "{{counted}}", in("_counted"),
		"{{ready}}", pgx.Identifier{t.name + "_ready"}.Sanitize(), "{{due}}", pgx.Identifier{t.name + "_due"}.Sanitize(),
		"{{channel}}", "'"+t.channel()+"'",
	).Replace(s)
}

// Definition is the SQL that creates a queue's table ("name" or "schema.name")
// with what belongs to it. The error is a *fleet.FieldError.
func Definition(name string) (string, error) {
	t, err := parseTable(name)
	if err != nil {
		return "", err
	}
	return t.fill(definition), nil
}

// own are the statements on our own table.
func (t table) own() *SQL {
	return &SQL{
		Stats: t.fill(ownStats), Tells: told, Lease: t.fill(ownLease), Channel: t.channel(),
		Extend:     t.fill(`UPDATE {{table}} SET due_at = now() + make_interval(secs => @seconds::float8) ` + ownHeld),
		Ack:        t.fill(`DELETE FROM {{table}} ` + ownHeld),
		Nack:       t.fill(`UPDATE {{table}} SET lease_token = NULL, due_at = CASE WHEN @seconds::float8 > 0 THEN now() + make_interval(secs => @seconds::float8) END ` + ownHeld),
		DeadLetter: t.fill(`UPDATE {{table}} SET lease_token = NULL, due_at = NULL, dead_at = now(), dead_reason = @reason::text ` + ownHeld),
	}
}

// ownHeld fences: the lease is this delivery's and has not ended, by the
// server's clock.
const ownHeld = `WHERE id = @id::bigint AND lease_token = @receipt::uuid AND due_at > now()`

// ownStats sums what triggers counted, and corrects it by what time alone has
// changed since: messages whose delay or lease ended and that were not put back
// yet, at most the 100,000 oldest of them. The oldest is found by one probe of
// the index for each priority; numbers follow the order of arrival.
const ownStats = `WITH RECURSIVE head AS (
	(SELECT priority, enqueued_at FROM {{table}} WHERE state = 'ready' ORDER BY priority DESC, id LIMIT 1)
	UNION ALL
	SELECT lower.priority, lower.enqueued_at FROM head, LATERAL (
		SELECT priority, enqueued_at FROM {{table}} WHERE state = 'ready' AND priority < head.priority
		ORDER BY priority DESC, id LIMIT 1) AS lower
), late AS (
	SELECT count(*) FILTER (WHERE state = 'delayed') AS delayed, count(*) FILTER (WHERE state = 'leased') AS leased, min(enqueued_at) AS oldest
	FROM (SELECT state, enqueued_at FROM {{table}} WHERE state IN ('delayed', 'leased') AND due_at <= now()
		ORDER BY due_at LIMIT 100000) AS ended
), counted AS (
	SELECT coalesce(sum(ready), 0) AS ready, coalesce(sum(delayed), 0) AS delayed, coalesce(sum(leased), 0) AS leased,
		coalesce(sum(dead), 0) AS dead, coalesce(sum(arrived), 0) AS arrived FROM {{count}}
)
SELECT counted.ready + late.delayed + late.leased AS backlog, counted.delayed - late.delayed AS delayed,
	counted.leased - late.leased AS in_flight, counted.dead, counted.arrived,
	extract(epoch FROM now() - least(late.oldest, (SELECT min(enqueued_at) FROM head))) AS oldest_seconds
FROM counted, late`

// ownLease takes the first messages that nobody else is taking, 32 MiB of
// bodies at once (and one message in any case), so that an answer fits into the
// time of a call.
const ownLease = `WITH next AS MATERIALIZED (
	SELECT id, priority, octet_length(body) AS size FROM {{table}} WHERE state = 'ready'
	ORDER BY priority DESC, id LIMIT @n::int FOR UPDATE SKIP LOCKED
), fitting AS (
	SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY priority DESC, id) - size AS before FROM next) AS s WHERE before < 33554432
), taken AS (
	UPDATE {{table}} AS q SET lease_token = gen_random_uuid(), leased_by = @consumer::text, attempts = attempts + 1,
		due_at = now() + make_interval(secs => @seconds::float8)
	FROM fitting WHERE q.id = fitting.id
	RETURNING q.id, q.priority, q.lease_token, q.body, q.headers, q.attempts, q.enqueued_at
)
SELECT id, lease_token AS receipt, body, headers, attempts AS attempt, extract(epoch FROM now() - enqueued_at) AS age_seconds
FROM taken ORDER BY priority DESC, id`

// ownReturn puts back what has become due: delays and leases that ended.
const ownReturn = `UPDATE {{table}} SET lease_token = NULL, due_at = NULL WHERE id IN (
	SELECT id FROM {{table}} WHERE state IN ('delayed', 'leased') AND due_at <= now()
	ORDER BY due_at LIMIT 2000 FOR UPDATE SKIP LOCKED)`

// ownFold sums the rows of the count into one. Two that do it at once take
// different rows.
const ownFold = `WITH gone AS (
	DELETE FROM {{count}} WHERE id IN (
		SELECT id FROM {{count}} WHERE (SELECT count(*) FROM {{count}}) > 64
		ORDER BY id LIMIT 20000 FOR UPDATE SKIP LOCKED)
	RETURNING ready, delayed, leased, dead, arrived
)
INSERT INTO {{count}} (ready, delayed, leased, dead, arrived)
SELECT sum(ready), sum(delayed), sum(leased), sum(dead), sum(arrived) FROM gone HAVING count(*) > 0`

// ownNext is in how many seconds the next delay or lease ends.
const ownNext = `SELECT extract(epoch FROM min(due_at) - now())::float8 FROM {{table}} WHERE state IN ('delayed', 'leased')`
