package link

import (
	"fmt"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// Note writes a line into the task's log, as Muster's own. Without a connection
// it is ErrUnavailable; without a running task the runner drops it.
func (s *Session) Note(text string) error {
	s.mu.Lock()
	cn := s.conn
	s.mu.Unlock()
	if cn == nil {
		return fmt.Errorf("note: %w: the runner is not connected", fleet.ErrUnavailable)
	}
	if err := cn.pc.Send(protocol.TypeNote, protocol.Note{Text: text}); err != nil {
		return fmt.Errorf("note: %w: %w", fleet.ErrUnavailable, err)
	}
	return nil
}
