package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
	"muster.dev/muster/internal/store/packed"
)

// lastDecision is the newest decision that was stored.
type lastDecision struct {
	seq int64
	at  time.Time
}

// AppendDecision implements fleet.Journal. An unchanged decision within
// Options.ThinDecisions of the last stored one is not stored: the Seq of that
// one is returned, whose plan is the same.
func (db *DB) AppendDecision(ctx context.Context, d fleet.DecisionRecord, policy []byte) (int64, error) {
	parts := [3][]byte{packed.Pack(d.Observation), packed.Pack(d.Plan), packed.Pack(d.State)}
	digest := fleet.PolicyDigest(policy)
	var seq int64
	err := db.write(ctx, "append decision", patient, func(t *tx) error {
		if last := db.last; !d.Changed && last.seq > 0 {
			if age := d.At.Sub(last.at); age >= 0 && age < db.opt.ThinDecisions {
				seq = last.seq
				return nil
			}
		}
		id, err := t.policy(digest, policy)
		if err != nil {
			return err
		}
		res, err := t.exec("INSERT INTO decisions (at, changed, observation, plan, state, version, policy) VALUES (?, ?, ?, ?, ?, ?, ?)",
			nano(d.At), d.Changed, parts[0], parts[1], parts[2], d.Version, id)
		if err != nil {
			return err
		}
		if seq, err = res.LastInsertId(); err != nil {
			return err
		}
		if err := t.bound("decisions", seq, db.opt.Decisions); err != nil {
			return err
		}
		if err := t.forgetPolicies(seq); err != nil {
			return err
		}
		db.last = lastDecision{seq, d.At} // forgotten again if this does not commit
		return nil
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// policy returns the number of a policy, storing it when it is new; 0: none.
func (t *tx) policy(digest string, policy []byte) (int64, error) {
	if len(policy) == 0 {
		return 0, nil
	}
	var id int64
	err := t.row("SELECT id FROM policies WHERE digest = ?", digest).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	res, err := t.exec("INSERT INTO policies (digest, policy) VALUES (?, ?)", digest, packed.Pack(policy))
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// forgetPolicies deletes those that no decision names any more, when bound
// deletes decisions.
func (t *tx) forgetPolicies(newest int64) error {
	if newest%portion != 0 {
		return nil
	}
	_, err := t.exec("DELETE FROM policies WHERE NOT EXISTS (SELECT 1 FROM decisions WHERE decisions.policy = policies.id)")
	return err
}

// Policy implements fleet.Journal.
func (db *DB) Policy(ctx context.Context, digest string) ([]byte, error) {
	var b []byte
	err := db.readers.QueryRowContext(ctx, "SELECT policy FROM policies WHERE digest = ?", digest).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("policy %s: %w", digest, fleet.ErrNotFound)
	}
	if err != nil {
		return nil, db.wrap("policy", err)
	}
	if b, err = packed.Unpack(b); err != nil {
		return nil, fmt.Errorf("policy %s: %w: %w", digest, fleet.ErrCorrupt, err)
	}
	return b, nil
}

const selectDecision = `SELECT seq, at, changed, observation, plan, state, version, ifnull(policies.digest, '')
	FROM decisions LEFT JOIN policies ON policies.id = decisions.policy `

func scanDecision(row scanner) (fleet.DecisionRecord, error) {
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
	d, err := scanDecision(db.readers.QueryRowContext(ctx, selectDecision+"WHERE seq = ?", seq))
	if errors.Is(err, sql.ErrNoRows) {
		return d, fmt.Errorf("decision %d: %w", seq, fleet.ErrNotFound)
	}
	return d, db.wrap("decision", err)
}

// Decisions implements fleet.Journal; oldest first.
func (db *DB) Decisions(ctx context.Context, f fleet.DecisionFilter) ([]fleet.DecisionRecord, error) {
	where, args := []string{"seq > ?"}, []any{f.After}
	if !f.Since.IsZero() {
		where, args = append(where, "at >= ?"), append(args, moment(f.Since))
	}
	if !f.Until.IsZero() {
		where, args = append(where, "at <= ?"), append(args, moment(f.Until))
	}
	if f.Changed {
		where = append(where, "changed = 1")
	}
	rows, err := db.readers.QueryContext(ctx, selectDecision+"WHERE "+strings.Join(where, " AND ")+" ORDER BY seq LIMIT ?",
		append(args, lifecycle.Limit(f.Limit))...)
	if err != nil {
		return nil, db.wrap("decisions", err)
	}
	defer rows.Close()
	out := []fleet.DecisionRecord{}
	for rows.Next() {
		d, err := scanDecision(rows)
		if err != nil {
			return nil, db.wrap("decisions", err)
		}
		out = append(out, d)
	}
	return out, db.wrap("decisions", rows.Err())
}

// moment is a time to compare with; those that nanoseconds cannot tell are
// before or after all that is stored.
func moment(t time.Time) int64 {
	switch y := t.Year(); {
	case y < 1700:
		return math.MinInt64
	case y > 2200:
		return math.MaxInt64
	}
	return t.UnixNano()
}
