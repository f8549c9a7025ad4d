package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"muster.dev/muster/internal/fleet"
)

// SQLSTATEs; PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
const (
	uniqueViolation     = "23505"
	serializationFailed = "40001"
	deadlockDetected    = "40P01"
	diskFull            = "53100"
	insufficientRights  = "42501"
)

var (
	damaged = []string{"XX001", "XX002"}                   // data, index
	missing = []string{"3F000", "42P01", "42703", "42883"} // schema, table, column, function
)

// Fault gives an error of the driver its kind and says what to do about it. It
// has no password in it: neither pgx nor the server repeats one.
func Fault(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil || known(err):
		return err
	case !errors.As(err, &pg):
		return fmt.Errorf("PostgreSQL: %w: %w", fleet.ErrUnavailable, err)
	}
	code := pg.Code
	switch class := code[:min(2, len(code))]; {
	case code == diskFull:
		return fmt.Errorf("no space left on the disk of PostgreSQL; make room, nothing that was accepted is lost: %w (%w)", fleet.ErrFull, err)
	case class == "28", code == insufficientRights:
		return fmt.Errorf("PostgreSQL refuses: %w: %w", fleet.ErrDenied, err)
	case slices.Contains(damaged, code), slices.Contains(missing, code):
		return fmt.Errorf("what is kept in PostgreSQL was damaged or changed by another; restore it from a backup: %w: %w", fleet.ErrCorrupt, err)
	case class == "23":
		return fmt.Errorf("%w: %w", fleet.ErrConflict, err)
	case class == "22":
		return fmt.Errorf("%w: %w", fleet.ErrInvalid, err)
	}
	return fmt.Errorf("PostgreSQL: %w: %w", fleet.ErrUnavailable, err)
}

func known(err error) bool {
	return slices.ContainsFunc([]error{
		context.Canceled, context.DeadlineExceeded, fleet.ErrUnavailable, fleet.ErrDenied, fleet.ErrNotFound,
		fleet.ErrInvalid, fleet.ErrFenced, fleet.ErrCorrupt, fleet.ErrConflict, fleet.ErrFull,
	}, func(kind error) bool { return errors.Is(err, kind) })
}

// Duplicate reports whether a constraint found something twice.
func Duplicate(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == uniqueViolation && pg.ConstraintName == constraint
}

// Crossed reports whether the server undid a transaction for the sake of
// another: it can be run again.
func Crossed(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == deadlockDetected || pg.Code == serializationFailed)
}

// Refused reports whether the server answered, and refused one statement.
func Refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code[:min(2, len(pg.Code))] != "57" && pg.Severity != "FATAL"
}

// Code is the SQLSTATE of an error; empty where the server did not say.
func Code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// Message is what the server said; empty where it did not say anything.
func Message(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message
	}
	return ""
}
