package lifecycle

import (
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// Foreign is fleet.ErrConflict for a sandbox that is not the claimer's, which
// is no claim's whatever state it is in.
func Foreign(s fleet.Sandbox, claimer string) error {
	if s.Owner == claimer {
		return nil
	}
	return fmt.Errorf("sandbox %s is %s, not %s: %w", s.Spec.ID, whose(s.Owner), whose(claimer), fleet.ErrConflict)
}

// MaySwap is fleet.ErrConflict unless next may be written over a record that
// must be in this state (empty: in any but gone) and have this owner.
func MaySwap(stored, next fleet.Sandbox, state fleet.SandboxState, owner string) error {
	switch {
	case stored.State != state && state != "", stored.State == fleet.SandboxGone && state == "":
		return fmt.Errorf("sandbox %s as %s: it is %s: %w", next.Spec.ID, next.State, stored.State, fleet.ErrConflict)
	case stored.Owner != owner:
		return fmt.Errorf("sandbox %s as %s: it is %s, not %s: %w", next.Spec.ID, next.State, whose(stored.Owner), whose(owner), fleet.ErrConflict)
	case Overlooks(stored, next):
		return fmt.Errorf("sandbox %s as %s: task %s has claimed it: %w", next.Spec.ID, next.State, stored.Task, fleet.ErrConflict)
	}
	return nil
}

// MayTake is fleet.ErrConflict unless a sandbox can be taken over from an owner.
func MayTake(s fleet.Sandbox, from string) error {
	switch {
	case s.State == fleet.SandboxGone:
		return fmt.Errorf("sandbox %s is gone: %w", s.Spec.ID, fleet.ErrConflict)
	case s.Owner != from:
		return fmt.Errorf("sandbox %s is %s, not %s: %w", s.Spec.ID, whose(s.Owner), whose(from), fleet.ErrConflict)
	}
	return nil
}

// Inside reports whether a task runs in a sandbox.
func Inside(t fleet.Task, s fleet.Sandbox) bool {
	return t.State.Active() && t.ID == s.Task && t.Sandbox == s.Spec.ID && t.Fence == s.Fence
}

// TakenOver gives a sandbox to another owner, with the task that is Inside it;
// nil: none is.
func TakenOver(s fleet.Sandbox, t *fleet.Task, to string) fleet.Sandbox {
	s.Owner = to
	if t != nil {
		s.RunFence = s.HeldFence()
		s.Fence++
		t.Fence++
	}
	return s
}

func whose(owner string) string {
	if owner == "" {
		return "the control plane's"
	}
	return owner + "'s"
}
