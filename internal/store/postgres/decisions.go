package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
	"muster.dev/muster/internal/store/packed"
)

// lastDecision is the newest decision that this process stored.
type lastDecision struct {
	mu  sync.Mutex
	seq int64
	at  time.Time
}

// spares returns the seq of a decision stored so recently that an unchanged one
// need not be; 0: there is none.
func (l *lastDecision) spares(d fleet.DecisionRecord, within time.Duration) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := d.At.Sub(l.at); d.Changed || l.seq == 0 || age < 0 || age >= within {
		return 0
	}
	return l.seq
}

// AppendDecision implements fleet.Journal. An unchanged decision within
// Options.ThinDecisions of the last one that this process stored is not stored:
// the Seq of that one is returned, whose plan is the same.
func (db *DB) AppendDecision(ctx context.Context, d fleet.DecisionRecord, policy []byte) (int64, error) {
	parts := [3][]byte{packed.Pack(d.Observation), packed.Pack(d.Plan), packed.Pack(d.State)}
	digest := ""
	if len(policy) > 0 {
		digest = fleet.PolicyDigest(policy)
	}
	var seq int64
	err := db.journal.Write(ctx, &call{
		Name: "append decision", Led: true, Keys: []string{"decision"},
		Write: func(b *pgx.Batch) {
			if seq = db.last.spares(d, db.opt.ThinDecisions); seq > 0 {
				return
			}
			db.inOrder(b)
			db.trim(b, 1)
			if digest != "" {
				b.Queue("INSERT INTO policies (digest, policy) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM policies WHERE digest = $1)", digest, packed.Pack(policy))
			}
			b.Queue(`INSERT INTO decisions (at, changed, observation, plan, state, version, policy)
				VALUES ($1, $2, $3, $4, $5, $6, coalesce((SELECT id FROM policies WHERE digest = $7), 0)) RETURNING seq`,
				nano(d.At), d.Changed, parts[0], parts[1], parts[2], d.Version, digest).QueryRow(func(row pgx.Row) error { return row.Scan(&seq) })
		},
		After: func() error {
			db.last.mu.Lock()
			defer db.last.mu.Unlock()
			if seq > db.last.seq {
				db.last.seq, db.last.at = seq, d.At
			}
			return nil
		},
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// Policy implements fleet.Journal.
func (db *DB) Policy(ctx context.Context, digest string) ([]byte, error) {
	var b []byte
	err := db.read(ctx, "policy", func(ctx context.Context, p *pgxpool.Pool) error {
		return absent(p.QueryRow(ctx, "SELECT policy FROM policies WHERE digest = $1", digest).Scan(&b), "policy", digest)
	})
	if err != nil {
		return nil, err
	}
	if b, err = packed.Unpack(b); err != nil {
		return nil, fmt.Errorf("policy %s: %w: %w", digest, fleet.ErrCorrupt, err)
	}
	return b, nil
}

const selectDecision = `SELECT d.seq, d.at, d.changed, d.observation, d.plan, d.state, d.version, coalesce(p.digest, '')
	FROM decisions d LEFT JOIN policies p ON p.id = d.policy `

func scanDecision(row pgx.Row) (fleet.DecisionRecord, error) {
	var d fleet.DecisionRecord
	var at int64
	if err := row.Scan(&d.Seq, &at, &d.Changed, &d.Observation, &d.Plan, &d.State, &d.Version, &d.Policy); err != nil {
		return d, err
	}
	d.At = fromNano(at)
	for _, p := range []*[]byte{&d.Observation, &d.Plan, &d.State} {
		var err error
		if *p, err = packed.Unpack(*p); err != nil {
			return d, fmt.Errorf("decision %d: %w: %w", d.Seq, fleet.ErrCorrupt, err)
		}
	}
	return d, nil
}

// Decision implements fleet.Journal.
func (db *DB) Decision(ctx context.Context, seq int64) (fleet.DecisionRecord, error) {
	var d fleet.DecisionRecord
	err := db.read(ctx, "decision", func(ctx context.Context, p *pgxpool.Pool) (err error) {
		d, err = scanDecision(p.QueryRow(ctx, selectDecision+"WHERE d.seq = $1", seq))
		return absent(err, "decision", strconv.FormatInt(seq, 10))
	})
	return d, err
}

// Decisions implements fleet.Journal; oldest first.
func (db *DB) Decisions(ctx context.Context, f fleet.DecisionFilter) ([]fleet.DecisionRecord, error) {
	var w walk
	w.and("d.seq > ?", f.After)
	if !f.Since.IsZero() {
		w.and("d.at >= ?", moment(f.Since))
	}
	if !f.Until.IsZero() {
		w.and("d.at <= ?", moment(f.Until))
	}
	if f.Changed {
		w.and("d.changed")
	}
	query := selectDecision + "WHERE " + strings.Join(w.where, " AND ") + " ORDER BY d.seq LIMIT " + strconv.Itoa(lifecycle.Limit(f.Limit))
	out := []fleet.DecisionRecord{}
	err := db.read(ctx, "decisions", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.DecisionRecord{}
		rows, err := p.Query(ctx, query, w.args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			d, err := scanDecision(rows)
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
