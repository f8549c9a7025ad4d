package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// maxReason bounds what a dead letter keeps, in bytes.
const maxReason = 8 << 10

// Receive implements fleet.Source.
func (q *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if err := q.consumes(); err != nil {
		return nil, err
	}
	if visibility < time.Second || visibility > 12*time.Hour {
		return nil, fmt.Errorf("visibility %s: want 1s to 12h: %w", visibility, fleet.ErrInvalid)
	}
	out := []fleet.Message{}
	if n <= 0 {
		return out, ctx.Err()
	}
	err := q.call(ctx, "receive", func(ctx context.Context) error {
		got, err := q.lease(ctx, min(n, 1000), visibility)
		if err != nil || len(got) > 0 || q.own == nil {
			out = got
			return err
		}
		// Nothing: unless the time of some has just come.
		tag, err := q.pool.Exec(ctx, q.own.fill(ownReturn))
		if err == nil && tag.RowsAffected() > 0 {
			out, err = q.lease(ctx, min(n, 1000), visibility)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// consumes is nil where messages can be taken, not only counted.
func (q *Source) consumes() error {
	if q.cfg.ReadOnly {
		return fmt.Errorf("the queue is open to be read only, others work it off: %w", fleet.ErrInvalid)
	}
	if q.st.lease.sql == "" {
		return invalid("sql.lease", "lease, extend, ack, nack and deadLetter", "is missing: this queue can only be read")
	}
	return nil
}

func (q *Source) lease(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	at := time.Now()
	rows, err := q.query(ctx, q.st.lease, map[string]string{"n": strconv.Itoa(n), "seconds": seconds(visibility), "consumer": q.cfg.Consumer})
	if err != nil {
		return nil, err
	}
	out := []fleet.Message{}
	for _, r := range rows {
		m, err := r.message(at, visibility)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if q.own == nil && len(out) > 0 {
		for i := range out {
			out[i].Receipt = foreignReceipt(out[i].ID, out[i].Receipt)
		}
		q.later(visibility)
	}
	return out, nil
}

// Extend implements fleet.Source.
func (q *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if d <= 0 {
		return time.Time{}, fmt.Errorf("extend by %s: %w", d, fleet.ErrInvalid)
	}
	at := time.Now()
	if err := q.settle(ctx, "extend", q.st.extend, m, map[string]string{"seconds": seconds(d)}); err != nil {
		return time.Time{}, err
	}
	return at.Add(d), nil
}

// Ack implements fleet.Source.
func (q *Source) Ack(ctx context.Context, m fleet.Message) error {
	return q.settle(ctx, "ack", q.st.ack, m, map[string]string{})
}

// Nack implements fleet.Source.
func (q *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	delay = max(delay, 0)
	err := q.settle(ctx, "nack", q.st.nack, m, map[string]string{"seconds": seconds(delay)})
	if err == nil && q.own == nil {
		q.later(delay)
	}
	return err
}

// DeadLetter implements fleet.Source.
func (q *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	return q.settle(ctx, "dead-letter", q.st.deadLetter, m, map[string]string{"reason": reason(why)})
}

// reason is what a column of type text can hold.
func reason(why string) string {
	if len(why) > maxReason {
		why = why[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(why, "�"), "\x00", "�")
}

// settle runs a statement that changes the message if it is still ours.
func (q *Source) settle(ctx context.Context, what string, st statement, m fleet.Message, named map[string]string) error {
	if err := q.consumes(); err != nil {
		return err
	}
	receipt, known := q.receipt(m)
	named["id"], named["receipt"], named["consumer"] = m.ID, receipt, q.cfg.Consumer
	return q.call(ctx, what, func(ctx context.Context) error {
		if !known {
			return fmt.Errorf("message %.80q was never leased here: %w", m.ID, fleet.ErrFenced)
		}
		tag, err := q.pool.Exec(ctx, st.sql, st.values(named)[1:]...)
		if err == nil && tag.RowsAffected() == 0 {
			return fmt.Errorf("message %.80q: %w", m.ID, fleet.ErrFenced)
		}
		return err
	})
}

// foreignReceipt tells deliveries of different messages apart, whose receipts
// may be no more than the number of the attempt.
func foreignReceipt(id, receipt string) string { return id + " " + receipt }

// receipt is the one for the statements; false where it is none of this queue,
// such as one from before another queue was configured.
func (q *Source) receipt(m fleet.Message) (string, bool) {
	if q.own == nil {
		return strings.CutPrefix(m.Receipt, foreignReceipt(m.ID, ""))
	}
	// Names are numbers and receipts have the form of a UUID.
	_, err := strconv.ParseInt(m.ID, 10, 64)
	return m.Receipt, err == nil && len(m.Receipt) == 36 && strings.Trim(m.Receipt, "0123456789abcdef-") == ""
}

// later wakes when a lease or a delay of a foreign table ends; of our own the
// clock knows.
func (q *Source) later(d time.Duration) {
	if q.wake != nil {
		time.AfterFunc(d, q.awake)
	}
}

// denied: what a role that may only read cannot do is no failure.
func denied(err error) bool { return errors.Is(fault(err), fleet.ErrDenied) }
