package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/fleet"
)

const (
	// longestPiece bounds the bytes of a row; longer records are split.
	longestPiece = 64 << 10
	// readAtOnce is how many rows a reader holds.
	readAtOnce = 32
)

// AppendLog implements fleet.Archive.
func (a *Archive) AppendLog(id fleet.TaskID, attempt int, r fleet.LogRecord) error {
	if err := names.CheckLog(id, attempt); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	if r.Offset < 0 {
		return fmt.Errorf("append to log %d of task %s: offset %d: %w", attempt, id, r.Offset, fleet.ErrInvalid)
	}
	p := &appending{key: logKey{id, attempt}, r: r}
	return a.writer.Write(context.Background(), &appendCall{
		Name: fmt.Sprintf("append to log %d of task %s", attempt, id), Loose: true, Keys: []string{p.key.String()}, Weight: len(r.Data),
		Read: p.read, Decide: p.decide, Write: p.write,
	})
}

// appending is one call of AppendLog.
type appending struct {
	key  logKey
	r    fleet.LogRecord
	size int64 // stored before
	data []byte
}

func (p *appending) read(b *pgx.Batch) {
	p.size = 0
	b.Queue("SELECT size FROM logs WHERE task = $1 AND attempt = $2 FOR UPDATE", string(p.key.task), p.key.attempt).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&p.size); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil
	})
}

func (p *appending) decide(g *grown) error {
	p.data = nil
	if p.r.Offset > p.size {
		return fmt.Errorf("at %d, and %d bytes are stored: %w", p.r.Offset, p.size, fleet.ErrInvalid)
	}
	if skip := p.size - p.r.Offset; skip < int64(len(p.r.Data)) {
		p.data = p.r.Data[skip:]
		g.logs = append(g.logs, p.key)
	}
	return nil
}

func (p *appending) write(b *pgx.Batch) {
	if len(p.data) == 0 {
		return
	}
	task, end := string(p.key.task), p.size+int64(len(p.data))
	if p.size == 0 {
		b.Queue("INSERT INTO logs (task, attempt, size) VALUES ($1, $2, $3)", task, p.key.attempt, end)
	} else {
		b.Queue("UPDATE logs SET size = $3 WHERE task = $1 AND attempt = $2", task, p.key.attempt, end)
	}
	for at := p.size; at < end; {
		piece := p.data[at-p.size:]
		piece = piece[:min(len(piece), longestPiece)]
		b.Queue("INSERT INTO log_pieces (task, attempt, at_byte, at, stream, bytes) VALUES ($1, $2, $3, $4, $5, $6)",
			task, p.key.attempt, at, p.r.At.UnixNano(), int16(p.r.Stream), piece)
		at += int64(len(piece))
	}
}

// LogSize implements fleet.Archive.
func (a *Archive) LogSize(id fleet.TaskID, attempt int) (int64, error) {
	if err := names.CheckLog(id, attempt); err != nil {
		return 0, fmt.Errorf("log size: %w", err)
	}
	var size int64
	err := a.do(fmt.Sprintf("size of log %d of task %s", attempt, id), func(ctx context.Context, p *pgxpool.Pool) error {
		err := p.QueryRow(ctx, "SELECT size FROM logs WHERE task = $1 AND attempt = $2", string(id), attempt).Scan(&size)
		if errors.Is(err, pgx.ErrNoRows) {
			size = 0
			return nil
		}
		return err
	})
	return size, err
}

// ReadLog implements fleet.Archive. It reads what was stored when it was called.
func (a *Archive) ReadLog(id fleet.TaskID, attempt int, offset int64, f func(fleet.LogRecord) error) error {
	end, err := a.LogSize(id, attempt)
	if err != nil {
		return err
	}
	offset = max(0, offset)
	for offset < end {
		pieces, err := a.pieces(logKey{id, attempt}, offset, end)
		if err != nil {
			return err
		}
		for _, r := range pieces {
			skip := offset - r.Offset
			if skip < 0 || skip >= int64(len(r.Data)) {
				return fmt.Errorf("read log %d of task %s: at %d: a record is missing: %w", attempt, id, offset, fleet.ErrCorrupt)
			}
			r.Offset, r.Data = offset, r.Data[skip:]
			offset += int64(len(r.Data))
			if err := f(r); err != nil {
				return fmt.Errorf("read log %d of task %s: %w", attempt, id, err)
			}
		}
		if len(pieces) == 0 { // removed meanwhile
			return nil
		}
	}
	return nil
}

// pieces reads the first rows that have something at or after offset.
func (a *Archive) pieces(k logKey, offset, end int64) ([]fleet.LogRecord, error) {
	var out []fleet.LogRecord
	err := a.do(fmt.Sprintf("read log %d of task %s", k.attempt, k.task), func(ctx context.Context, p *pgxpool.Pool) error {
		out = nil
		rows, err := p.Query(ctx, `SELECT at_byte, at, stream, bytes FROM log_pieces WHERE task = $1 AND attempt = $2
			AND at_byte >= coalesce((SELECT max(at_byte) FROM log_pieces WHERE task = $1 AND attempt = $2 AND at_byte <= $3), $3) AND at_byte < $4
			ORDER BY at_byte LIMIT $5`, string(k.task), k.attempt, offset, end, readAtOnce)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r fleet.LogRecord
			var at int64
			var stream int16
			if err := rows.Scan(&r.Offset, &at, &stream, &r.Data); err != nil {
				return err
			}
			r.At, r.Stream = timeOf(at), fleet.Stream(stream) //nolint:gosec // as it was written
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// EndLog implements fleet.Archive; the log is on the server's disk then.
func (a *Archive) EndLog(id fleet.TaskID, attempt int) error {
	if err := names.CheckLog(id, attempt); err != nil {
		return fmt.Errorf("end log: %w", err)
	}
	k := logKey{id, attempt}
	return a.writer.Write(context.Background(), &appendCall{
		Name: fmt.Sprintf("end log %d of task %s", attempt, id), Keys: []string{k.String()},
		Decide: func(g *grown) error {
			g.logs = append(g.logs, k)
			return nil
		},
		// A commit that is waited for takes all before it to the disk.
		Write: func(b *pgx.Batch) {
			b.Queue("UPDATE logs SET ended = true WHERE task = $1 AND attempt = $2", string(id), attempt)
		},
	})
}
