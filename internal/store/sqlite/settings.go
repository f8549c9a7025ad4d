package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// PutSchedule implements fleet.Schedules; durable.
func (db *DB) PutSchedule(ctx context.Context, s fleet.Schedule) error {
	if s.Name == "" {
		return fmt.Errorf("put schedule without a name: %w", fleet.ErrInvalid)
	}
	s.Next, s.LastAt = lifecycle.Clean(s.Next), lifecycle.Clean(s.LastAt)
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("put schedule %q: %w", s.Name, err)
	}
	return db.write(ctx, "put schedule", durable, func(t *tx) error {
		_, err := t.exec("INSERT INTO schedules (name, schedule) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule",
			s.Name, string(b))
		return err
	})
}

// DeleteSchedule implements fleet.Schedules; durable.
func (db *DB) DeleteSchedule(ctx context.Context, name string) error {
	return db.write(ctx, "delete schedule", durable, func(t *tx) error {
		res, err := t.exec("DELETE FROM schedules WHERE name = ?", name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return fmt.Errorf("schedule %q: %w", name, fleet.ErrNotFound)
		}
		return nil
	})
}

// Schedules implements fleet.Schedules; in order of name.
func (db *DB) Schedules(ctx context.Context) ([]fleet.Schedule, error) {
	rows, err := db.readers.QueryContext(ctx, "SELECT name, schedule FROM schedules ORDER BY name")
	if err != nil {
		return nil, db.wrap("schedules", err)
	}
	defer rows.Close()
	out := []fleet.Schedule{}
	for rows.Next() {
		var name string
		var b []byte
		if err := rows.Scan(&name, &b); err != nil {
			return nil, db.wrap("schedules", err)
		}
		var s fleet.Schedule
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("schedule %q: %w: %w", name, fleet.ErrCorrupt, err)
		}
		out = append(out, s)
	}
	return out, db.wrap("schedules", rows.Err())
}

// Setting implements fleet.Settings.
func (db *DB) Setting(ctx context.Context, key string) ([]byte, error) {
	var b []byte
	err := db.readers.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = ?", key).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, db.wrap("setting", err)
}

// PutSetting implements fleet.Settings.
func (db *DB) PutSetting(ctx context.Context, key string, value []byte) error {
	return db.write(ctx, "put setting", patient, func(t *tx) error {
		_, err := t.exec("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
			key, append([]byte{}, value...))
		return err
	})
}
