package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// PutSchedule implements fleet.Schedules.
func (db *DB) PutSchedule(ctx context.Context, s fleet.Schedule) error {
	if s.Name == "" {
		return fmt.Errorf("put schedule without a name: %w", fleet.ErrInvalid)
	}
	s.Next, s.LastAt = lifecycle.Clean(s.Next), lifecycle.Clean(s.LastAt)
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("put schedule %q: %w", s.Name, err)
	}
	return db.work.Write(ctx, &call{Name: "put schedule", Keys: []string{"schedule " + s.Name}, Write: func(b *pgx.Batch) {
		b.Queue("INSERT INTO schedules (name, schedule) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule", []byte(s.Name), string(text))
	}})
}

// DeleteSchedule implements fleet.Schedules.
func (db *DB) DeleteSchedule(ctx context.Context, name string) error {
	found := false
	return db.work.Write(ctx, &call{
		Name: "delete schedule", Keys: []string{"schedule " + name},
		Write: func(b *pgx.Batch) {
			b.Queue("DELETE FROM schedules WHERE name = $1", []byte(name)).Exec(func(tag pgconn.CommandTag) error {
				found = tag.RowsAffected() > 0
				return nil
			})
		},
		After: func() error {
			if !found {
				return fmt.Errorf("schedule %q: %w", name, fleet.ErrNotFound)
			}
			return nil
		},
	})
}

// Schedules implements fleet.Schedules; in order of name.
func (db *DB) Schedules(ctx context.Context) ([]fleet.Schedule, error) {
	out := []fleet.Schedule{}
	err := db.read(ctx, "schedules", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.Schedule{}
		rows, err := p.Query(ctx, "SELECT name, schedule FROM schedules ORDER BY name")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, text []byte
			if err := rows.Scan(&name, &text); err != nil {
				return err
			}
			var s fleet.Schedule
			if err := json.Unmarshal(text, &s); err != nil {
				return fmt.Errorf("schedule %q: %w: %w", name, fleet.ErrCorrupt, err)
			}
			out = append(out, s)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Setting implements fleet.Settings.
func (db *DB) Setting(ctx context.Context, key string) ([]byte, error) {
	var b []byte
	err := db.read(ctx, "setting", func(ctx context.Context, p *pgxpool.Pool) error {
		err := p.QueryRow(ctx, "SELECT value FROM settings WHERE key = $1", key).Scan(&b)
		if errors.Is(err, pgx.ErrNoRows) {
			b = nil
			return nil
		}
		return err
	})
	return b, err
}

// PutSetting implements fleet.Settings.
func (db *DB) PutSetting(ctx context.Context, key string, value []byte) error {
	value = append([]byte{}, value...)
	return db.work.Write(ctx, &call{Name: "put setting", Loose: true, Led: true, Keys: []string{"setting " + key}, Write: func(b *pgx.Batch) {
		b.Queue("INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	}})
}

// HeldMessages implements fleet.Messages.
func (db *DB) HeldMessages(ctx context.Context, queue string) ([]fleet.HeldMessage, error) {
	out := []fleet.HeldMessage{}
	err := db.read(ctx, "held messages", func(ctx context.Context, p *pgxpool.Pool) error {
		out = []fleet.HeldMessage{}
		rows, err := p.Query(ctx, `SELECT m.task, m.queue, m.message, m.receipt, t.state
			FROM messages m JOIN tasks t ON t.id = m.task WHERE m.queue = $1 ORDER BY m.task`, queue)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var m fleet.HeldMessage
			var message, receipt []byte
			if err := rows.Scan(&m.Task, &m.Queue, &message, &receipt, &m.State); err != nil {
				return err
			}
			m.Message, m.Receipt = string(message), string(receipt)
			out = append(out, m)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// HoldMessage implements fleet.Messages.
func (db *DB) HoldMessage(ctx context.Context, m fleet.HeldMessage) error {
	found := false
	return db.work.Write(ctx, &call{
		Name: "hold message", Keys: []string{taskKey(m.Task)},
		Write: func(b *pgx.Batch) {
			b.Queue(`INSERT INTO messages (task, queue, message, receipt) SELECT id, $2, $3, $4 FROM tasks WHERE id = $1
				ON CONFLICT (task) DO UPDATE SET queue = excluded.queue, message = excluded.message, receipt = excluded.receipt`,
				string(m.Task), m.Queue, []byte(m.Message), []byte(m.Receipt)).Exec(func(tag pgconn.CommandTag) error {
				found = tag.RowsAffected() > 0
				return nil
			})
		},
		After: func() error {
			if !found {
				return fmt.Errorf("task %s: %w", m.Task, fleet.ErrNotFound)
			}
			return nil
		},
	})
}

// ReleaseMessage implements fleet.Messages.
func (db *DB) ReleaseMessage(ctx context.Context, id fleet.TaskID) error {
	return db.work.Write(ctx, &call{Name: "release message", Loose: true, Keys: []string{taskKey(id)}, Write: func(b *pgx.Batch) {
		b.Queue("DELETE FROM messages WHERE task = $1", string(id))
	}})
}
