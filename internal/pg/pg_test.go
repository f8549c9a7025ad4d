package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgconn"

	"muster.dev/muster/internal/fleet"
)

func TestSchemaFor(t *testing.T) {
	seen := map[string]string{}
	for _, parts := range [][]string{
		{"default", "coding-agents"}, {"default-coding", "agents"}, {"default", "coding_agents"}, {"default_coding", "agents"}, {"a"}, {"a", "b"}, {"a_b"}, {"a-b"}, {"A"},
		{strings.Repeat("n", 63), strings.Repeat("f", 253)}, {strings.Repeat("n", 63), strings.Repeat("f", 252)}, {"ünï", "x"}, {`";DROP`, "x"},
	} {
		name := SchemaFor(parts...)
		o := Options{Schema: name}
		if err := o.Check(); err != nil {
			t.Errorf("%q: %v", parts, err)
		}
		if was, twice := seen[name]; twice {
			t.Errorf("%q and %s have one schema: %s", parts, was, name)
		}
		seen[name] = fmt.Sprintf("%q", parts)
		if name != SchemaFor(parts...) {
			t.Errorf("%q has two schemas", parts)
		}
	}
}

func TestFault(t *testing.T) {
	for code, want := range map[string]error{
		"53100": fleet.ErrFull, "28P01": fleet.ErrDenied, "42501": fleet.ErrDenied, "XX001": fleet.ErrCorrupt, "42P01": fleet.ErrCorrupt,
		"23505": fleet.ErrConflict, "22021": fleet.ErrInvalid, "57P01": fleet.ErrUnavailable, "53300": fleet.ErrUnavailable, "57014": fleet.ErrUnavailable,
		"25006": fleet.ErrUnavailable, "40P01": fleet.ErrUnavailable, "": fleet.ErrUnavailable,
	} {
		err := Fault(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code, Message: "m"}))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", code, err, want)
		}
	}
	if err := Fault(errors.New("connection reset")); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
	for _, err := range []error{nil, context.Canceled, fleet.ErrNotFound} {
		if got := Fault(err); !errors.Is(got, err) || errors.Is(got, fleet.ErrUnavailable) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if Refused(&pgconn.PgError{Code: "57P01", Severity: "FATAL"}) || !Refused(&pgconn.PgError{Code: "23505", Severity: "ERROR"}) || Refused(errors.New("x")) {
		t.Error("refused")
	}
}

func TestMigrations(t *testing.T) {
	file := func() *fstest.MapFile { return &fstest.MapFile{Data: []byte("SELECT 1")} }
	got, err := Migrations(fstest.MapFS{"migrations/0002_b.sql": file(), "migrations/0001_a.sql": file(), "other.sql": file()})
	if err != nil || len(got) != 2 || got[1].Name != "0002_b.sql" || got[1].Version != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []fstest.MapFS{
		{"migrations/0002_b.sql": file()}, {"migrations/0001_a.sql": file(), "migrations/0003_c.sql": file()}, {"migrations/x.sql": file()},
	} {
		if _, err := Migrations(bad); err == nil {
			t.Errorf("took %v", bad)
		}
	}
}

func TestTake(t *testing.T) {
	w := &Writer[int]{busy: map[string]struct{}{"b": {}}}
	heavy := &Call[int]{Name: "heavy", Weight: 2 * heaviest}
	calls := []*Call[int]{{Name: "1", Keys: []string{"a"}}, heavy, {Name: "2", Keys: []string{"a"}}, {Name: "3", Keys: []string{"b"}}, {Name: "4"}}
	w.waiting = slices.Clone(calls)
	names := func(calls []*Call[int]) (out []string) {
		for _, c := range calls {
			out = append(out, c.Name)
		}
		return out
	}
	for _, want := range [][]string{{"1", "4"}, {"heavy"}, nil} {
		if got := names(w.takeLocked()); !slices.Equal(got, want) {
			t.Errorf("took %v, want %v", got, want)
		}
	}
	delete(w.busy, "a")
	delete(w.busy, "b")
	if got := names(w.takeLocked()); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("took %v", got)
	}
}
