package postgres

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

var start = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func rec(offset int64, data string) fleet.LogRecord {
	return fleet.LogRecord{Offset: offset, At: start, Stream: fleet.StreamStdout, Data: []byte(data)}
}

func count(t testing.TB, a *Archive, query string) (n int) {
	t.Helper()
	if err := a.do("count", func(ctx context.Context, p *pgxpool.Pool) error { return p.QueryRow(ctx, query).Scan(&n) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOutage: what cannot be stored is said so, and what was stored is there
// when the server is back; sending again is harmless.
func TestOutage(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	a := open(t, s, Options{Patience: 2 * time.Second})
	id := fleet.NewTaskID(start)
	if err := a.AppendLog(id, 1, rec(0, "before ")); err != nil {
		t.Fatal(err)
	}
	if err := a.EndLog(id, 1); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	calls := map[string]func() error{
		"append": func() error { return a.AppendLog(id, 1, rec(7, "after")) },
		"size":   func() error { _, err := a.LogSize(id, 1); return err },
		"read":   func() error { return a.ReadLog(id, 1, 0, func(fleet.LogRecord) error { return nil }) },
		"put":    func() error { _, err := a.PutFile(id, "patch", strings.NewReader("x")); return err },
		"open":   func() error { _, err := a.OpenFile(id, "patch"); return err },
		"remove": func() error { return a.Remove(fleet.NewTaskID(start)) },
		"tasks":  func() error { return a.Tasks(func(fleet.TaskID) error { return nil }) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("%s without a server: %v", name, err)
		}
	}
	s.Start()
	for range 2 {
		var err error
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
			if err = calls["append"](); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text := ""
	if err := a.ReadLog(id, 1, 0, func(r fleet.LogRecord) error { text += string(r.Data); return nil }); err != nil || text != "before after" {
		t.Errorf("log %q, %v", text, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := calls["append"](); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("append to a closed archive: %v", err)
	}
}

// TestNothingStays: contents that were replaced, given up or removed are
// deleted in the end.
func TestNothingStays(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	a := open(t, s, Options{})
	id := fleet.NewTaskID(start)
	for range 3 {
		if _, err := a.PutFile(id, "patch", strings.NewReader(strings.Repeat("x", 3*chunk))); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("lost")
	if _, err := a.PutFile(id, "patch", io.MultiReader(strings.NewReader(strings.Repeat("x", chunk)), broke{broken})); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	const chunks = "SELECT count(*) FROM chunks"
	if n := count(t, a, chunks); n != 9 {
		t.Errorf("%d chunks, want those of the file and of the two that may be read still", n)
	}
	count(t, a, "WITH u AS (UPDATE nameless SET since = since - interval '16 minutes' RETURNING 1) SELECT count(*) FROM u")
	if err := a.tidy(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, a, chunks); n != 3 {
		t.Errorf("%d chunks after tidying up, want 3", n)
	}
	if err := a.Remove(id); err != nil {
		t.Fatal(err)
	}
	if n := count(t, a, "SELECT (SELECT count(*) FROM chunks) + (SELECT count(*) FROM files) + (SELECT count(*) FROM nameless)"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

type broke struct{ err error }

func (b broke) Read([]byte) (int, error) { return 0, b.err }

// BenchmarkAppendLog is 32 tasks that write lines, in pieces of 4 KiB.
func BenchmarkAppendLog(b *testing.B) {
	s := servers.StartPostgres(b, servers.PostgresSetup{Settings: []string{"fsync=on", "full_page_writes=on"}})
	a := open(b, s, Options{})
	line := strings.Repeat("x", 4<<10)
	b.SetBytes(int64(len(line)))
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			id := fleet.NewTaskID(start)
			for n := w; n < b.N; n += 32 {
				if err := a.AppendLog(id, 1, rec(int64(n/32*len(line)), line)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
