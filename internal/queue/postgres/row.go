package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
)

// row is one row of a result: text by column, nil for null; bytea as it is.
type row map[string][]byte

func readRow(rows pgx.Rows) row {
	out := row{}
	raw := rows.RawValues()
	for i, f := range rows.FieldDescriptions() {
		// What pgx hands out is good only until the next row.
		out[f.Name] = bytes.Clone(raw[i])
	}
	return out
}

func (r row) fault(column, right string) error {
	return invalid("column "+column, right, "%.80q", r[column])
}

// whole is a number of messages; null is 0.
func (r row) whole(column string) (int64, error) {
	if r[column] == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(r[column]), 10, 64)
	if err != nil || n < 0 {
		return 0, r.fault(column, "a whole number, not negative")
	}
	return n, nil
}

// ago is the time some seconds before now; zero for null.
func (r row) ago(column string, now time.Time) (time.Time, error) {
	if r[column] == nil {
		return time.Time{}, nil
	}
	s, err := strconv.ParseFloat(string(r[column]), 64)
	if err != nil || math.IsNaN(s) || math.Abs(s) > 1e9 {
		return time.Time{}, r.fault(column, "seconds")
	}
	return now.Add(-time.Duration(max(s, 0) * float64(time.Second))), nil
}

// stats reads a reading; at is when it was asked for.
func (r row) stats(at time.Time) (fleet.SignalStats, error) {
	st := fleet.SignalStats{AsOf: at}
	if r["backlog"] == nil {
		return st, r.fault("backlog", "a whole number, not null")
	}
	for _, c := range []struct {
		name string
		to   *int64
	}{{"backlog", &st.Backlog}, {"delayed", &st.Delayed}, {"in_flight", &st.InFlight}, {"dead", &st.Dead}, {"arrived", &st.Arrived}} {
		n, err := r.whole(c.name)
		if err != nil {
			return fleet.SignalStats{}, err
		}
		*c.to = n
	}
	oldest, err := r.ago("oldest_seconds", at)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	if st.Backlog > 0 {
		st.Oldest = oldest
	}
	return st, nil
}

const (
	maxID      = 512
	maxReceipt = 3 << 10 // with the ID before it, less than the port's 4 KiB
)

// message reads a delivery asked for at the time at.
func (r row) message(at time.Time, visibility time.Duration) (fleet.Message, error) {
	m := fleet.Message{ID: string(r["id"]), Receipt: string(r["receipt"]), Body: r["body"], Attempt: 1}
	// The lease began after we asked, so it ends later than this.
	m.Until = at.Add(visibility)
	if m.ID == "" || len(m.ID) > maxID || !utf8.ValidString(m.ID) {
		return m, r.fault("id", fmt.Sprintf("text of 1 to %d bytes", maxID))
	}
	if m.Receipt == "" || len(m.Receipt) > maxReceipt || !utf8.ValidString(m.Receipt) {
		return m, r.fault("receipt", fmt.Sprintf("text of 1 to %d bytes", maxReceipt))
	}
	if m.Body == nil {
		m.Body = []byte{}
	}
	attempt, err := r.whole("attempt")
	if err != nil {
		return m, err
	}
	m.Attempt = int(min(max(attempt, 1), math.MaxInt32))
	if m.At, err = r.ago("age_seconds", at); err != nil {
		return m, err
	}
	m.Headers = headers(r["headers"])
	return m, nil
}

// headers reads a JSON object; values that are no text are kept as JSON. What
// is no object gives none: a producer's mistake there must not keep a message,
// and all behind it, from being delivered.
func headers(b []byte) map[string]string {
	var in map[string]json.RawMessage
	if len(b) == 0 || json.Unmarshal(b, &in) != nil || len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, raw := range in {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		} else if string(raw) == "null" {
			s = ""
		}
		out[k] = s
	}
	return out
}
