package postgres

import (
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/pg"
)

// call is a write of this store.
type call = pg.Call[exchange]

// exchange is what the calls of one transaction share.
type exchange struct {
	added int // tasks, so far
	// woken, told and boxed say that consumers, readers of events and of records
	// of sandboxes have something to see; next is when the queue will change by
	// itself because of it.
	woken, told, boxed bool
	next               time.Time
}

// seen tells whether others have something to see.
func (x *exchange) seen() bool { return x.woken || x.told || x.boxed }

// expect notes that the queue changes at a time.
func (x *exchange) expect(at time.Time) {
	if x.next.IsZero() || at.Before(x.next) {
		x.next = at
	}
}

func (db *DB) hooks() pg.Hooks[exchange] {
	return pg.Hooks[exchange]{
		Begin: func(b *pgx.Batch, led bool) {
			if led {
				db.inTerm(b)
			}
		},
		End: func(b *pgx.Batch, lane int, x *exchange) {
			if x.seen() {
				db.mark(b, lane, *x)
			}
		},
		Committed: func(calls int, x exchange) {
			db.folding.moves.Add(int64(calls))
			db.changed(x)
		},
		Again: func(err error) bool { return pg.Duplicate(err, keyConstraint) },
		Fault: db.fault,
	}
}

// inTerm lets a transaction go on only while this store leads, if it ever did.
func (db *DB) inTerm(b *pgx.Batch) {
	if term := db.term.Load(); term > 0 {
		b.Queue("SELECT in_term($1, $2)", term, db.turnstile)
	}
}

// mark tells the other processes, should push not reach them.
func (db *DB) mark(b *pgx.Batch, lane int, x exchange) {
	b.Queue(`INSERT INTO peers AS p (id, lane, queue, events, boxes) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id, lane) DO UPDATE SET queue = p.queue + excluded.queue, events = p.events + excluded.events, boxes = p.boxes + excluded.boxes, at = now()`,
		db.id, lane, one(x.woken), one(x.told), one(x.boxed))
}

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// keysOf are the keys of a map, sorted.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
