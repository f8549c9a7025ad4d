package fleet

import (
	"context"
	"time"
)

// SignalTraits say what a queue outside Muster can tell; they do not change
// while it is open. What it cannot tell is estimated by the reader from the
// readings before, and said to be an estimate.
type SignalTraits struct {
	Oldest   bool // SignalStats.Oldest
	Arrived  bool // SignalStats.Arrived
	InFlight bool // SignalStats.InFlight
	Delayed  bool // SignalStats.Delayed
	Dead     bool // SignalStats.Dead
	// Push: Wake follows an arrival by itself, without anybody reading.
	Push bool
	// Names: every message has an ID. Where false some may, such as one that the
	// producer gave it.
	Names bool
	// Durable: a receipt is good after a reconnect and in another process, so
	// that a restarted control plane goes on holding what it held.
	Durable bool
	// Binary: a body may be any bytes; otherwise it is text, UTF-8.
	Binary bool
	// Fees: each reading costs money, so it is not to be read more often than
	// needed.
	Fees bool
}

// SignalStats is one reading of a queue outside Muster, in messages. A reading
// that failed is an error, never a zero.
type SignalStats struct {
	AsOf     time.Time // when it was true, by our clock
	Backlog  int64     // waiting for a consumer, due
	Delayed  int64     // waiting for their time
	InFlight int64     // leased to consumers, ours and others
	Dead     int64     // set aside
	// Oldest is when the message that waits longest was enqueued; zero when the
	// backlog is empty or it cannot be told.
	Oldest time.Time
	// Arrived counts messages ever enqueued; it grows while the backend keeps
	// its count, and may fall when the backend is emptied or replaced.
	Arrived int64
}

// Signal is a queue, or anything that measures one, that can only be read.
// All methods are safe for concurrent use. Errors wrap ErrUnavailable where the
// backend could not be reached, ErrDenied where it refuses the credentials,
// ErrNotFound where the queue does not exist, and name neither credentials nor
// an address with a password in it. A Signal reconnects by itself, with
// back-off of at most 5 s: once the backend is back, so is it.
type Signal interface {
	Traits() SignalTraits
	// Stats reads the signals, in time that does not grow with the queue. It
	// returns within 5 s, with an error where the backend does not answer.
	Stats(ctx context.Context) (SignalStats, error)
	// Wake delivers a value soon after a message arrived or became due again;
	// values may be merged, and one too many does no harm. nil where Traits.Push
	// is false: the reader polls then.
	Wake() <-chan struct{}
	// Close ends every goroutine and connection. Messages that are leased go
	// back to the queue when their lease ends, or at once.
	Close() error
}

// Message is one delivery of a message of an outside queue: until the lease
// ends, no other consumer gets it.
type Message struct {
	// ID names the message within its queue, the same at every delivery and for
	// every consumer; may be empty where Traits.Names is false. At most 512 bytes.
	ID string
	// Receipt is what the adapter needs to extend or settle this delivery; it
	// stays the same until then, and differs between deliveries of one message.
	// At most 4 KiB, UTF-8.
	Receipt string
	Body    []byte
	Headers map[string]string // headers or attributes, as text; may be nil
	// Attempt counts deliveries, this one included; at least 1. Where the
	// backend does not count, 2 stands for "delivered before".
	Attempt int
	At      time.Time // enqueued; zero where it cannot be told
	Until   time.Time // the lease holds until then unless extended
}

// Source is a queue outside Muster that tasks are taken from: the contract of
// Signal, and at-least-once delivery with leases. What settles a message takes
// the message as Receive returned it (ID, Receipt, Body, Headers; a restarted
// process may have only ID and Receipt, where Traits.Durable is true).
type Source interface {
	Signal
	// Receive leases up to n messages that are there now, and returns an empty
	// slice rather than wait for one. visibility (1 s to 12 h) is how long the
	// lease holds unless extended; where the backend has no such clock the
	// adapter keeps it. A source may hold one more message to learn of arrivals;
	// that one counts as backlog, and goes back after at most 5 s.
	Receive(ctx context.Context, n int, visibility time.Duration) ([]Message, error)
	// Extend makes the lease hold until now+d and returns that time; ErrFenced
	// when the lease was lost: it ended, or the message was delivered again.
	Extend(ctx context.Context, m Message, d time.Duration) (time.Time, error)
	// Ack removes a message that was worked off; ErrFenced when the lease was
	// lost. Not idempotent: the second call is ErrFenced.
	Ack(ctx context.Context, m Message) error
	// Nack returns a message to the queue, to be delivered again after delay
	// (0 to 15 min), sooner where the backend cannot wait; ErrFenced as above.
	Nack(ctx context.Context, m Message, delay time.Duration) error
	// DeadLetter sets a message aside with the reason, by the backend's own
	// means where it has any, so that it is not delivered again; body and
	// headers are kept. It takes the message whole. ErrFenced as above.
	DeadLetter(ctx context.Context, m Message, why string) error
}
