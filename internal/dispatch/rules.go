package dispatch

import (
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The rules below are pure, so that the simulator can use the same ones.

// LaunchOf tells a warm start from a cold one: warm when the sandbox was
// ready before the task became due.
func LaunchOf(ready, due time.Time) fleet.Launch {
	if ready.After(due) {
		return fleet.LaunchCold
	}
	return fleet.LaunchWarm
}

// Backoff is the delay before attempt+1: base doubling, at most 5 minutes.
func Backoff(base time.Duration, attempt int) time.Duration {
	const most = 5 * time.Minute
	if base <= 0 {
		base = time.Second
	}
	for range min(attempt-1, 20) {
		base *= 2
		if base >= most {
			return most
		}
	}
	return min(base, most)
}

// MayRetry tells whether a task has attempts left after one that counted.
func MayRetry(t fleet.Task) bool { return t.Attempt <= t.Spec.Retries.Max }

// ReasonOf says why the command really ended: what the runner reports as an
// exit may have been the work of a limit, which only the host's counters tell.
func ReasonOf(r fleet.RunReport, u fleet.Usage) fleet.TaskReason {
	switch r.Reason {
	case fleet.ReasonExit, fleet.ReasonSetup:
	default:
		return r.Reason
	}
	switch {
	case u.OOMKills > 0:
		return fleet.ReasonOOM
	case u.DiskFull:
		return fleet.ReasonDisk
	case u.PidsDenied > 0:
		return fleet.ReasonPids
	}
	return r.Reason
}

// FailureOf is why a sandbox could not be started, as far as that is a reason
// to give up what waits for it: what is merely out of reach (a registry that is
// down) may come back, and is none.
func FailureOf(err error) fleet.TaskReason {
	var re *fleet.ReasonError
	if errors.As(err, &re) && !errors.Is(err, fleet.ErrUnavailable) {
		return re.Reason
	}
	return fleet.ReasonNone
}

// StateOf is the final state that goes with a reason.
func StateOf(r fleet.TaskReason) fleet.TaskState {
	switch r {
	case fleet.ReasonNone:
		return fleet.TaskSucceeded
	case fleet.ReasonTimeoutRun, fleet.ReasonTimeoutIdle, fleet.ReasonTimeoutStartup, fleet.ReasonTimeoutQueue:
		return fleet.TaskTimedOut
	case fleet.ReasonCancelled:
		return fleet.TaskCancelled
	case fleet.ReasonNodeLost:
		return fleet.TaskLost
	}
	return fleet.TaskFailed
}

// message is the sentence for a person.
func message(reason fleet.TaskReason, t fleet.Task, r fleet.RunReport, u fleet.Usage) string {
	res := t.Spec.Resources
	switch reason {
	case fleet.ReasonOOM:
		return fmt.Sprintf("killed at its memory limit of %s (peak %s); raise resources.memory", size(res.MemoryBytes), size(u.MemoryPeakBytes))
	case fleet.ReasonDisk:
		return fmt.Sprintf("its writable disk of %s was full; raise resources.disk", size(res.DiskBytes))
	case fleet.ReasonPids:
		return fmt.Sprintf("its limit of %d processes was reached; raise resources.pids", res.Pids)
	case fleet.ReasonTimeoutRun:
		return fmt.Sprintf("ran longer than timeouts.run (%s)", t.Spec.Timeouts.Run)
	case fleet.ReasonTimeoutIdle:
		return fmt.Sprintf("wrote nothing for timeouts.idle (%s)", t.Spec.Timeouts.Idle)
	case fleet.ReasonTimeoutStartup:
		return fmt.Sprintf("setup took longer than timeouts.startup (%s)", t.Spec.Timeouts.Startup)
	case fleet.ReasonBudget:
		return fmt.Sprintf("its budget.maxUSD of $%g was used up", float64(t.Spec.MaxMicroUSD)/1e6)
	case fleet.ReasonCancelled:
		if t.CancelBy != "" {
			return "cancelled by " + t.CancelBy
		}
		return "cancelled"
	}
	if r.Message != "" {
		return r.Message
	}
	if reason == fleet.ReasonExit {
		if r.Signal != "" {
			return "the command was ended by " + r.Signal
		}
		return fmt.Sprintf("the command exited with code %d", r.ExitCode)
	}
	return ""
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n), -1
	for f >= unit && i < 4 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.4g %ciB", f, "KMGTP"[i])
}

func settledSentence(t fleet.Task) string {
	s := string(t.State)
	if t.Result.Reason != "" && string(t.Result.Reason) != s {
		s += " (" + string(t.Result.Reason) + ")"
	}
	if !t.EndedAt.IsZero() && !t.SubmittedAt.IsZero() {
		s += fmt.Sprintf(" %s after submission", t.EndedAt.Sub(t.SubmittedAt).Round(time.Millisecond))
	}
	if t.Result.Message != "" {
		s += ": " + t.Result.Message
	}
	return s
}
