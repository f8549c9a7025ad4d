package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/fleet"
)

// chunk is how many bytes of a file are in a row.
const chunk = 256 << 10

// PutFile implements fleet.Archive.
func (a *Archive) PutFile(id fleet.TaskID, name string, r io.Reader) (int64, error) {
	if err := names.CheckFile(id, name); err != nil {
		return 0, fmt.Errorf("store file: %w", err)
	}
	what := fmt.Sprintf("store %s of task %s", name, id)
	var content int64
	err := a.do(what, func(ctx context.Context, p *pgxpool.Pool) error {
		return p.QueryRow(ctx, "INSERT INTO nameless (content) VALUES (nextval('contents')) RETURNING content").Scan(&content)
	})
	if err != nil {
		return 0, err
	}
	size, err := a.fill(what, content, r)
	if err == nil {
		err = a.name(what, id, name, content, size)
	}
	if err != nil {
		// Where this fails too, it is deleted a day later.
		return 0, errors.Join(err, a.drop(content))
	}
	return size, nil
}

// fill writes a content, chunk by chunk.
func (a *Archive) fill(what string, content int64, r io.Reader) (size int64, err error) {
	buf := make([]byte, chunk)
	for n := 0; ; n++ {
		got, err := io.ReadFull(r, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		if got > 0 {
			if err := a.do(what, func(ctx context.Context, p *pgxpool.Pool) error {
				_, err := p.Exec(ctx, "INSERT INTO chunks (content, n, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", content, n, buf[:got])
				return err
			}); err != nil {
				return 0, err
			}
			size += int64(got)
		}
		if err != nil {
			return size, nil
		}
	}
}

// name gives a content its name, unless a name before or after it is one of a
// file already, as it would be on a disk.
func (a *Archive) name(what string, id fleet.TaskID, name string, content, size int64) error {
	parents := []string{}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		parents = append(parents, dir)
	}
	return a.do(what, func(ctx context.Context, p *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
			var old *int64
			var other string
			b := &pgx.Batch{}
			b.Queue("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "files of "+string(id))
			b.Queue("SELECT coalesce((SELECT name FROM files WHERE task = $1 AND (name = ANY ($2) OR starts_with(name, $3)) LIMIT 1), '')",
				string(id), parents, name+"/").QueryRow(func(row pgx.Row) error { return row.Scan(&other) })
			b.Queue("SELECT (SELECT content FROM files WHERE task = $1 AND name = $2)", string(id), name).QueryRow(func(row pgx.Row) error { return row.Scan(&old) })
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
			if other != "" {
				return fmt.Errorf("%.100q is a file, so that %.100q cannot be one: %w", other, name, fleet.ErrInvalid)
			}
			b = &pgx.Batch{}
			b.Queue("INSERT INTO files (task, name, content, size) VALUES ($1, $2, $3, $4) ON CONFLICT (task, name) DO UPDATE SET content = excluded.content, size = excluded.size",
				string(id), name, content, size)
			b.Queue("DELETE FROM nameless WHERE content = $1", content)
			if old != nil && *old != content {
				b.Queue("INSERT INTO nameless (content, since) VALUES ($1, now() - interval '1 day' + interval '15 minutes')", *old)
			}
			return tx.SendBatch(ctx, b).Close()
		})
	})
}

func (a *Archive) drop(content int64) error {
	return a.do("give up a file", func(ctx context.Context, p *pgxpool.Pool) error {
		b := &pgx.Batch{}
		b.Queue("DELETE FROM chunks WHERE content = $1 AND NOT EXISTS (SELECT FROM files WHERE content = $1)", content)
		b.Queue("DELETE FROM nameless WHERE content = $1", content)
		return p.SendBatch(ctx, b).Close()
	})
}

// keepTidy is the goroutine that deletes contents without a name. A failure is
// tried again.
func (a *Archive) keepTidy(ctx context.Context) {
	t := time.NewTicker(10 * time.Minute)
	defer t.Stop()
	for {
		_ = a.tidy()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (a *Archive) tidy() error {
	return a.do("delete what has no name", func(ctx context.Context, p *pgxpool.Pool) error {
		_, err := p.Exec(ctx, `WITH old AS (DELETE FROM nameless WHERE content IN (SELECT content FROM nameless WHERE since < now() - interval '1 day' LIMIT 100) RETURNING content)
			DELETE FROM chunks WHERE content IN (SELECT content FROM old)`)
		return err
	})
}

// OpenFile implements fleet.Archive.
func (a *Archive) OpenFile(id fleet.TaskID, name string) (io.ReadSeekCloser, error) {
	if err := names.CheckFile(id, name); err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	f := &file{a: a, what: fmt.Sprintf("read %s of task %s", name, id), have: -1}
	err := a.do(fmt.Sprintf("open %s of task %s", name, id), func(ctx context.Context, p *pgxpool.Pool) error {
		err := p.QueryRow(ctx, "SELECT content, size FROM files WHERE task = $1 AND name = $2", string(id), name).Scan(&f.content, &f.size)
		if errors.Is(err, pgx.ErrNoRows) {
			return fleet.ErrNotFound
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// file reads a content, one chunk at a time.
type file struct {
	a       *Archive
	what    string
	content int64
	size    int64
	at      int64
	have    int64 // number of the chunk in bytes; -1: none
	bytes   []byte
	closed  bool
}

// Read implements io.Reader.
func (f *file) Read(p []byte) (int, error) {
	switch {
	case f.closed:
		return 0, fmt.Errorf("%s: it was closed: %w", f.what, fleet.ErrInvalid)
	case f.at >= f.size:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if n := f.at / chunk; f.have != n {
		if err := f.load(n); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.bytes[f.at%chunk:])
	f.at += int64(n)
	return n, nil
}

func (f *file) load(n int64) error {
	f.have = -1
	err := f.a.do(f.what, func(ctx context.Context, p *pgxpool.Pool) error {
		err := p.QueryRow(ctx, "SELECT bytes FROM chunks WHERE content = $1 AND n = $2", f.content, n).Scan(&f.bytes)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("it was removed or replaced meanwhile: %w", fleet.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return err
	}
	if want := min(chunk, f.size-n*chunk); int64(len(f.bytes)) != want {
		return fmt.Errorf("%s: chunk %d has %d bytes, want %d: %w", f.what, n, len(f.bytes), want, fleet.ErrCorrupt)
	}
	f.have = n
	return nil
}

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	default:
		return 0, fmt.Errorf("%s: seek from %d: %w", f.what, whence, fleet.ErrInvalid)
	}
	if offset < 0 {
		return 0, fmt.Errorf("%s: seek to %d: %w", f.what, offset, fleet.ErrInvalid)
	}
	f.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.closed, f.bytes = true, nil
	return nil
}
