package oci

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// stopwatch returns a function that says how long it is since it was last
// called, or since began.
func stopwatch(began time.Time) func() time.Duration {
	return func() time.Duration {
		now := time.Now()
		took := now.Sub(began)
		began = now
		return took
	}
}

// Stages implements fleet.Stager.
func (s *Sandboxes) Stages(id fleet.SandboxID) (fleet.StartStages, bool) {
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil || !b.ready() {
		return fleet.StartStages{}, false
	}
	return b.stages, b.stages != fleet.StartStages{}
}
