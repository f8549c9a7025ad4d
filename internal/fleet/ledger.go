package fleet

import (
	"context"
	"time"
)

// BookSpan is how much time one book is about.
type BookSpan string

// The spans of books.
const (
	BookHour BookSpan = "hour" // of UTC
	BookDay  BookSpan = "day"  // of UTC
)

// Book is what was charged in one hour or day, encoded by whoever charges.
type Book struct {
	Span    BookSpan
	From    time.Time // its beginning, a full hour or midnight UTC
	Content []byte
}

// TaskCost is what one task has cost.
type TaskCost struct {
	Task     TaskID        `json:"task"`
	MicroUSD int64         `json:"microUSD"`          // so far; 0 or more
	Busy     time.Duration `json:"busyNanoseconds"`   // how long sandboxes were held for it, in full milliseconds
	Outcome  TaskState     `json:"outcome,omitempty"` // once it is final
}

// Posting is one step of the ledger: the books and tasks that it adds to, each
// whole, and the state to go on from. All is written, or nothing.
type Posting struct {
	Seq   int64 // one more than that of the step before; the first is 1
	State []byte
	Books []Book     // in place of those of the same span and time
	Tasks []TaskCost // in place of those of the same task
}

// Ledger keeps what was charged. All methods block until the store answers.
type Ledger interface {
	// LedgerState returns the last posting's Seq and State; 0 and nil before the
	// first.
	LedgerState(ctx context.Context) (int64, []byte, error)
	// Post writes a posting durably. ErrConflict when its Seq does not follow
	// the last one's: somebody else has posted, or this very posting is there.
	Post(ctx context.Context, p Posting) error
	// Books lists those of a span that begin in [from, until), oldest first.
	Books(ctx context.Context, span BookSpan, from, until time.Time) ([]Book, error)
	// TaskCosts returns what is known of these tasks, in no order; a task that
	// has cost nothing may be missing.
	TaskCosts(ctx context.Context, ids []TaskID) ([]TaskCost, error)
	// DearestTasks returns the tasks submitted in [from, until) that cost most,
	// those first; at most limit, 1 to 10,000.
	DearestTasks(ctx context.Context, from, until time.Time, limit int) ([]TaskCost, error)
	// PruneLedger deletes books of before a time, and tasks submitted before it.
	PruneLedger(ctx context.Context, before time.Time) error
}

// FirstTaskID sorts before every TaskID made at or after a time, and after
// those made before its millisecond.
func FirstTaskID(at time.Time) TaskID {
	ms := uint64(max(0, at.UnixMilli())) //nolint:gosec // not negative
	b := [13]byte{byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)}
	return TaskID("t" + idEncoding.EncodeToString(b[:])[:20])
}

// Pack is an id in 13 bytes that sort as ids do; one that is no id of ours is
// its own text after a byte that no id begins with.
func (id TaskID) Pack() []byte {
	if ValidID("t", string(id)) {
		if b, err := idEncoding.DecodeString(string(id[1:]) + "0"); err == nil && len(b) == 13 {
			return b
		}
	}
	return append([]byte{0xff}, id...)
}

// UnpackTaskID is the reverse of Pack.
func UnpackTaskID(b []byte) TaskID {
	if len(b) == 13 && b[0] != 0xff {
		return TaskID("t" + idEncoding.EncodeToString(b)[:20])
	}
	if len(b) > 0 {
		b = b[1:]
	}
	return TaskID(b)
}
