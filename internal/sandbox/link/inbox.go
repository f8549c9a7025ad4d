package link

import (
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// Bounds of an inbox: what an honest runner can have unacknowledged, and some.
const (
	inboxBytes = protocol.LogWindow + protocol.BlobWindow + protocol.MaxChunk
	inboxItems = 1024
	mergeBytes = protocol.MaxChunk // log items are merged up to this size
)

type itemKind byte

const (
	itemLog itemKind = iota
	itemPhase
	itemBlob
	itemBlobPart
	itemReport
)

// item is one event for the sink.
type item struct {
	kind   itemKind
	stream fleet.Stream
	offset int64 // of a log item
	at     time.Time
	data   []byte
	phase  fleet.TaskState
	blob   protocol.Blob
	report fleet.RunReport
}

// inbox is the bounded queue between the goroutine that reads one connection
// and the one that calls the sink.
type inbox struct {
	mu     sync.Mutex
	cond   sync.Cond
	items  []item
	bytes  int
	closed bool
}

func newInbox() *inbox {
	b := &inbox{}
	b.cond.L = &b.mu
	return b
}

// push appends, waiting for room; false when the inbox was closed. The data
// of it is copied.
func (b *inbox) push(it item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && (b.bytes+len(it.data) > inboxBytes || len(b.items) >= inboxItems) {
		b.cond.Wait()
	}
	if b.closed {
		return false
	}
	b.bytes += len(it.data)
	if b.merge(it) {
		return true
	}
	it.data = append([]byte(nil), it.data...)
	b.items = append(b.items, it)
	b.cond.Broadcast()
	return true
}

// merge adds a log item to the one waiting last, so that a flood of tiny
// writes costs the sink few calls.
func (b *inbox) merge(it item) bool {
	if it.kind != itemLog || len(b.items) == 0 {
		return false
	}
	last := &b.items[len(b.items)-1]
	if last.kind != itemLog || last.stream != it.stream ||
		last.offset+int64(len(last.data)) != it.offset || len(last.data)+len(it.data) > mergeBytes {
		return false
	}
	last.data = append(last.data, it.data...)
	return true
}

// pop takes the first item, waiting for one; false once the inbox is closed
// and empty.
func (b *inbox) pop() (item, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.items) == 0 {
		if b.closed {
			return item{}, false
		}
		b.cond.Wait()
	}
	it := b.items[0]
	b.items[0] = item{}
	b.items = b.items[1:]
	if len(b.items) == 0 {
		b.items = nil // lets an idle session hold nothing
	}
	b.bytes -= len(it.data)
	b.cond.Broadcast()
	return it, true
}

// logWaits reports whether the next item is log, ready to be popped.
func (b *inbox) logWaits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) > 0 && b.items[0].kind == itemLog
}

// close refuses further items; those inside can still be popped.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.cond.Broadcast()
	b.mu.Unlock()
}

// discard closes the inbox and drops what is inside.
func (b *inbox) discard() {
	b.mu.Lock()
	b.closed, b.items, b.bytes = true, nil, 0
	b.cond.Broadcast()
	b.mu.Unlock()
}
