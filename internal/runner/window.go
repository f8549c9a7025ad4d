//go:build linux

package runner

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

const (
	// mergeWithin is how far apart writes of one stream may be and still
	// share a time stamp.
	mergeWithin = 20 * time.Millisecond
	// maxSegments bounds alternating tiny writes.
	maxSegments = 4096
)

// segment is a stretch of log of one stream; it reaches to the next one.
type segment struct {
	start  int64
	at     int64 // unix nanoseconds
	stream fleet.Stream
}

// window holds the log bytes the host has not stored yet. Writers wait while
// it is full.
type window struct {
	wake func() // tells the sender that there is more; must not block

	mu      sync.Mutex
	room    sync.Cond
	ring    []byte // LogWindow bytes, from the first write on
	base    int64  // acknowledged up to here
	end     int64
	segs    []segment
	limit   int64 // of the agent's bytes, absolute
	dropped int64
	waiting int // writers waiting for room
	closed  bool
}

// newWindow begins at offset; at most limit bytes of the agent's are kept
// (0: no limit).
func newWindow(offset, limit int64, wake func()) *window {
	w := &window{base: offset, end: offset, wake: wake}
	w.limit = 1 << 62
	if limit > 0 {
		w.limit = offset + limit
	}
	w.room.L = &w.mu
	return w
}

// write appends the agent's bytes, waiting for room. What exceeds the limit is
// counted and dropped.
func (w *window) write(stream fleet.Stream, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		left := w.limit - w.end
		if left <= 0 {
			w.drop(int64(len(p)))
			return
		}
		n := w.appendLocked(stream, p[:min(int64(len(p)), left)])
		p = p[n:]
	}
}

// drop counts; the first time it says so in the log.
func (w *window) drop(n int64) {
	first := w.dropped == 0
	w.dropped += n
	if first {
		w.noteLocked("log limit reached: further output is dropped (and counted)")
	}
}

// note appends a line of Muster's own.
func (w *window) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(fmt.Sprintf(format, args...))
}

func (w *window) noteLocked(line string) {
	if len(line) > 2<<10 {
		line = line[:2<<10] + "…"
	}
	if w.end+int64(len(line))+1 > w.limit+protocol.LogSlack/2 {
		return
	}
	p := []byte(line + "\n")
	for len(p) > 0 {
		p = p[w.appendLocked(fleet.StreamSystem, p):]
	}
}

// appendLocked copies what fits, waiting until at least one byte does.
func (w *window) appendLocked(stream fleet.Stream, p []byte) int {
	for !w.closed && (w.end-w.base >= protocol.LogWindow || len(w.segs) >= maxSegments) {
		w.waiting++
		w.room.Wait()
		w.waiting--
	}
	if w.closed {
		return len(p)
	}
	if w.ring == nil {
		w.ring = make([]byte, protocol.LogWindow)
	}
	p = p[:min(int64(len(p)), protocol.LogWindow-(w.end-w.base))]
	now := time.Now().UnixNano()
	if n := len(w.segs); n == 0 || w.segs[n-1].stream != stream || now-w.segs[n-1].at > int64(mergeWithin) {
		w.segs = append(w.segs, segment{start: w.end, at: now, stream: stream})
	}
	at := int(w.end % protocol.LogWindow)
	n := copy(w.ring[at:], p)
	copy(w.ring, p[n:])
	w.end += int64(len(p))
	w.wake()
	return len(p)
}

// read copies bytes of one segment, from the given offset on, into buf.
func (w *window) read(from int64, buf []byte) (protocol.LogHeader, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from < w.base || from >= w.end {
		return protocol.LogHeader{}, 0
	}
	i := sort.Search(len(w.segs), func(i int) bool { return w.segs[i].start > from }) - 1
	to := w.end
	if i+1 < len(w.segs) {
		to = w.segs[i+1].start
	}
	buf = buf[:min(int64(len(buf)), to-from)]
	at := int(from % protocol.LogWindow)
	n := copy(buf, w.ring[at:])
	copy(buf[n:], w.ring)
	return protocol.LogHeader{Offset: from, At: w.segs[i].at, Stream: w.segs[i].stream}, len(buf)
}

// ack frees what the host has stored.
func (w *window) ack(to int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to <= w.base || to > w.end {
		return
	}
	w.base = to
	i := sort.Search(len(w.segs), func(i int) bool { return w.segs[i].start > to }) - 1
	if to == w.end {
		i = len(w.segs)
	}
	w.segs = w.segs[:copy(w.segs, w.segs[i:])]
	w.room.Broadcast()
}

// close lets writers go; what they write from now on goes nowhere.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Broadcast()
}

// bounds returns the earliest offset that can be read, and the end.
func (w *window) bounds() (base, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.base, w.end
}

// blocked reports whether output waits for the host.
func (w *window) blocked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting > 0
}

func (w *window) droppedBytes() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}
