//go:build linux

package runner

import (
	"strings"

	"muster.dev/muster/internal/protocol"
)

// onNote writes a line of the host's into the log of the running task.
func (s *session) onNote(payload []byte) error {
	var n protocol.Note
	if err := protocol.Decode(protocol.TypeNote, payload, &n); err != nil {
		return err
	}
	s.r.mu.Lock()
	t := s.r.task
	s.r.mu.Unlock()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.done { // after that the length of the log is final
		t.log.tryNote(strings.ToValidUTF8(n.Text, "?"))
	}
	return nil
}

// tryNote is note for the goroutine that reads from the host, which must not
// wait: what makes room is read by it.
func (w *window) tryNote(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end-w.base+int64(min(len(line), 2<<10))+8 <= protocol.LogWindow && len(w.segs) < maxSegments-1 {
		w.noteLocked(line)
	}
}
