package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// streamWriter writes a stream and gives up on a client that takes nothing.
type streamWriter struct {
	buf      *bufio.Writer
	rc       *http.ResponseController
	extended time.Time // when the deadline was last moved
}

// newStream begins an answer that is written bit by bit. When ctx ends, a
// write that waits for its client does so for a second more, so that a server
// can stop; the caller calls done in the end.
func newStream(ctx context.Context, w http.ResponseWriter, contentType string) (s *streamWriter, done func()) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Accel-Buffering", "no") // proxies that buffer would hold it back
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // a silent client is not a dead one
	s = &streamWriter{buf: bufio.NewWriterSize(w, 16<<10), rc: rc}
	s.extend()
	stop := context.AfterFunc(ctx, func() { _ = rc.SetWriteDeadline(time.Now().Add(time.Second)) })
	return s, func() { stop() }
}

// extend moves the deadline of the next writes. A second more or less does
// not matter, and a system call for each line would.
func (s *streamWriter) extend() {
	if now := time.Now(); now.Sub(s.extended) > time.Second {
		s.extended = now
		_ = s.rc.SetWriteDeadline(now.Add(stallTimeout)) // not every writer has deadlines
	}
}

// Write adds raw bytes.
func (s *streamWriter) Write(b []byte) (int, error) {
	s.extend()
	return s.buf.Write(b)
}

// event adds a server-sent event; flush sends it.
func (s *streamWriter) event(kind, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write a %s event: %w", kind, err)
	}
	s.extend()
	if id != "" {
		_, _ = s.buf.WriteString("id: " + id + "\n") // a bufio.Writer keeps its error
	}
	_, _ = s.buf.WriteString("event: " + kind + "\ndata: ")
	_, _ = s.buf.Write(data)
	_, err = s.buf.WriteString("\n\n")
	return err
}

// beat shows that the stream lives.
func (s *streamWriter) beat() error {
	s.extend()
	if _, err := s.buf.WriteString(": \n\n"); err != nil {
		return err
	}
	return s.flush()
}

func (s *streamWriter) flush() error {
	s.extend()
	if err := s.buf.Flush(); err != nil {
		return err
	}
	return s.rc.Flush()
}
