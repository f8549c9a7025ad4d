package control

import (
	"time"

	"muster.dev/muster/internal/plan"
)

// FloorsAt evaluates the calendar of a spec: the windows that are open at a
// time, or open within the hour after it. The simulator looks through the same
// eyes.
func (s *Spec) FloorsAt(at time.Time) []plan.Floor { return floorsAt(at, s) }
