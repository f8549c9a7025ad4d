package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"muster.dev/muster/internal/fleet"
)

// told are the columns of a reading beside backlog.
var told = []string{"delayed", "in_flight", "dead", "oldest_seconds", "arrived"}

// statement is a user's SQL with the names of its parameters in order.
type statement struct {
	field string // as the user knows it: sql.lease
	sql   string // with $1, $2…
	names []string
	needs []string // columns of its result
}

// compile replaces the named parameters (@id) by positions. Only those in may
// are known.
func compile(field, sql string, may, needs []string) (statement, error) {
	if len(sql) > maxSQL || strings.ContainsRune(sql, 0) {
		return statement{}, invalid(field, "at most 64 KiB without NUL", "has %d bytes", len(sql))
	}
	// pgx knows what is a string, a comment or an operator; it gives the values
	// in the order of the names.
	args := pgx.NamedArgs{}
	for _, name := range may {
		args[name] = name
	}
	text, values, err := args.RewriteQuery(context.Background(), nil, sql, nil)
	if err != nil {
		return statement{}, invalid(field, "SQL with the parameters "+parameters(may), "%v", err)
	}
	s := statement{field: field, sql: text, needs: needs}
	for _, v := range values {
		name, known := v.(string)
		if !known {
			return statement{}, invalid(field, parameters(may), "has a parameter (@name) that does not exist")
		}
		s.names = append(s.names, name)
	}
	return s, nil
}

func parameters(may []string) string {
	if len(may) == 0 {
		return "no parameters"
	}
	return "@" + strings.Join(may, ", @")
}

// statements are those of one queue, compiled.
type statements struct {
	stats                                statement
	lease, extend, ack, nack, deadLetter statement
}

func (s *SQL) compile() (out statements, err error) {
	held := []string{"id", "receipt", "consumer"}
	for _, x := range []struct {
		to         *statement
		name, text string
		may, needs []string
	}{
		{&out.stats, "sql.stats", s.Stats, nil, append([]string{"backlog"}, s.Tells...)},
		{&out.lease, "sql.lease", s.Lease, []string{"n", "seconds", "consumer"}, []string{"id", "receipt", "body"}},
		{&out.extend, "sql.extend", s.Extend, append([]string{"seconds"}, held...), nil},
		{&out.ack, "sql.ack", s.Ack, held, nil},
		{&out.nack, "sql.nack", s.Nack, append([]string{"seconds"}, held...), nil},
		{&out.deadLetter, "sql.deadLetter", s.DeadLetter, append([]string{"reason"}, held...), nil},
	} {
		if *x.to, err = compile(x.name, x.text, x.may, x.needs); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s statements) all() []statement {
	out := []statement{s.stats}
	if s.lease.sql != "" {
		out = append(out, s.lease, s.extend, s.ack, s.nack, s.deadLetter)
	}
	return out
}

// prepare has the server read every statement, without running any.
func (s statements) prepare(ctx context.Context, c *pgx.Conn, text bool) error {
	for _, st := range s.all() {
		d, err := c.Prepare(ctx, "", st.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", st.field, err)
		}
		for _, name := range st.needs {
			i := slices.IndexFunc(d.Fields, func(f pgconn.FieldDescription) bool { return f.Name == name })
			if i < 0 {
				return invalid(st.field, "a result with the columns "+strings.Join(st.needs, ", "), "has no column %s", name)
			}
			if bytea := d.Fields[i].DataTypeOID == pgtype.ByteaOID; name == "body" && bytea == text {
				return invalid(st.field, "bytea without sql.text; json, jsonb or text with it", "the column body is bytea: %t, sql.text: %t", bytea, text)
			}
		}
	}
	return nil
}

// values are the parameters in the statement's order. All are sent as text, so
// that the server reads each as the type its place in the statement has.
func (s statement) values(named map[string]string) []any {
	// Bytes come as they are; everything else is read as text.
	out := []any{pgx.QueryResultFormatsByOID{pgtype.ByteaOID: pgx.BinaryFormatCode}}
	for _, name := range s.names {
		out = append(out, named[name])
	}
	return out
}

// fault gives an error its kind. It never has a password in it: neither pgx
// nor the server repeats one.
func fault(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil || kind(err):
		return err
	case !errors.As(err, &pg):
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	// PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
	switch {
	case strings.HasPrefix(pg.Code, "28"), pg.Code == "42501":
		return fmt.Errorf("%w: %w", fleet.ErrDenied, err)
	case slices.Contains([]string{"3D000", "3F000", "42P01"}, pg.Code): // database, schema, table
		return fmt.Errorf("%w: %w", fleet.ErrNotFound, err)
	case strings.HasPrefix(pg.Code, "42"), strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"), strings.HasPrefix(pg.Code, "26"):
		return fmt.Errorf("%w: %w", fleet.ErrInvalid, err)
	}
	return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
}

func kind(err error) bool {
	for _, k := range []error{fleet.ErrUnavailable, fleet.ErrDenied, fleet.ErrNotFound, fleet.ErrInvalid, fleet.ErrFenced, fleet.ErrCorrupt} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}
