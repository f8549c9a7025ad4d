package postgres

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
	"muster.dev/muster/internal/store/lifecycle"
)

// ErrDeposed is fleet.ErrFenced for whoever led, and no longer does.
var ErrDeposed = fmt.Errorf("another control plane leads: %w", fleet.ErrFenced)

// termOver is what in_term raises.
const termOver = "MUS01"

func (db *DB) fault(err error) error {
	switch {
	case pg.Code(err) == termOver:
		return fmt.Errorf("%s: %w", pg.Message(err), ErrDeposed)
	case pg.Duplicate(err, "tasks_pkey"):
		return fmt.Errorf("a task of this id is there already: %w", fleet.ErrConflict)
	}
	return pg.Fault(err)
}

// absent turns the want of a row into fleet.ErrNotFound.
func absent(err error, kind, name string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s %s: %w", kind, name, fleet.ErrNotFound)
	}
	return err
}

// leaseEnded is the result, as JSON, of a task whose lease ended.
var leaseEnded = func() string {
	r := record{Task: lifecycle.Nacked(fleet.Task{}, time.Time{}, "lease ended before a sandbox was claimed")}
	_, result, _ := r.encoded() // of plain values: it cannot fail
	return result
}()

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
