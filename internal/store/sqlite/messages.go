package sqlite

import (
	"context"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// HeldMessages implements fleet.Messages.
func (db *DB) HeldMessages(ctx context.Context, queue string) ([]fleet.HeldMessage, error) {
	rows, err := db.readers.QueryContext(ctx, `SELECT m.task, m.queue, m.message, m.receipt, t.state
		FROM messages m JOIN tasks t ON t.id = m.task WHERE m.queue = ? ORDER BY m.task`, queue)
	if err != nil {
		return nil, db.wrap("held messages", err)
	}
	defer rows.Close()
	out := []fleet.HeldMessage{}
	for rows.Next() {
		var m fleet.HeldMessage
		if err := rows.Scan(&m.Task, &m.Queue, &m.Message, &m.Receipt, &m.State); err != nil {
			return nil, db.wrap("held messages", err)
		}
		out = append(out, m)
	}
	return out, db.wrap("held messages", rows.Err())
}

// HoldMessage implements fleet.Messages.
func (db *DB) HoldMessage(ctx context.Context, m fleet.HeldMessage) error {
	return db.write(ctx, "hold message", prompt, func(t *tx) error {
		if _, err := t.taskByID(m.Task); err != nil {
			return fmt.Errorf("task %s: %w", m.Task, fleet.ErrNotFound)
		}
		return t.hold(m)
	})
}

func (t *tx) hold(m fleet.HeldMessage) error {
	_, err := t.exec(`INSERT INTO messages (task, queue, message, receipt) VALUES (?, ?, ?, ?)
		ON CONFLICT (task) DO UPDATE SET queue = excluded.queue, message = excluded.message, receipt = excluded.receipt`,
		string(m.Task), m.Queue, m.Message, m.Receipt)
	return err
}

// ReleaseMessage implements fleet.Messages.
func (db *DB) ReleaseMessage(ctx context.Context, id fleet.TaskID) error {
	return db.write(ctx, "release message", patient, func(t *tx) error {
		_, err := t.exec("DELETE FROM messages WHERE task = ?", string(id))
		return err
	})
}
