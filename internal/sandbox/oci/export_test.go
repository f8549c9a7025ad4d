package oci

import "muster.dev/muster/internal/fleet"

// InitPid returns the host pid of a sandbox's first process.
func (s *Sandboxes) InitPid(id fleet.SandboxID) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[id]
	if b == nil || b.rec.Init.Pid == 0 {
		return 0, false
	}
	return b.rec.Init.Pid, true
}
