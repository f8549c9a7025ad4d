package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// The exit codes of every command. `submit --wait`, `wait` and `exec` end as
// the task or command did; see taskExit.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2

	exitTimedOut     = 124 // as timeout(1)
	exitNotRun       = 125 // lost, or never run: image, prepare, secret, setup, budget, poison
	exitNoExecute    = 126
	exitNoCommand    = 127
	exitSignal       = 128 // plus the signal's number
	exitInterrupted  = exitSignal + int(unix.SIGINT)
	exitKilledMemory = exitSignal + int(unix.SIGKILL)
)

// exitStatus ends the program with a code and without a word.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is bad input; the program exits with 2.
func usageError(format string, a ...any) error {
	return &client.Error{Text: fmt.Sprintf(format, a...), Kind: client.ErrUsage}
}

// withHint is an error of ours with what to do about it.
func withHint(err error, hint string) error {
	return &client.Error{Text: err.Error(), Hint: hint, Cause: err}
}

func exitCode(err error) int {
	var status exitStatus
	switch {
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, client.ErrUsage):
		return exitUsage
	}
	return exitFailed
}

// errorText is what the user reads: what is wrong, and a hint.
func errorText(err error) string {
	var status exitStatus
	if errors.As(err, &status) || errors.Is(err, context.Canceled) {
		return ""
	}
	text := "muster: " + strings.TrimRight(err.Error(), "\n")
	var e *client.Error
	if errors.As(err, &e) && e.Hint != "" {
		text += "\nhint: " + e.Hint
	}
	return text
}

// taskExit is the exit code that stands for how a task ended: its own, where
// it had one; 128 and the signal's number; 124 for a timeout; 130 when it was
// cancelled; 125 when it was lost or its command never ran.
func taskExit(t v1alpha1.TaskView) int {
	switch t.State {
	case fleet.TaskSucceeded:
		return exitOK
	case fleet.TaskTimedOut:
		return exitTimedOut
	case fleet.TaskCancelled:
		return exitInterrupted
	case fleet.TaskLost:
		return exitNotRun
	}
	switch t.Reason {
	case fleet.ReasonOOM:
		return exitKilledMemory
	case fleet.ReasonCommand:
		if t.ExitCode != nil && *t.ExitCode == exitNoExecute {
			return exitNoExecute
		}
		return exitNoCommand
	case fleet.ReasonImage, fleet.ReasonPrepare, fleet.ReasonSecret, fleet.ReasonSetup, fleet.ReasonBudget, fleet.ReasonPoison, fleet.ReasonNodeLost:
		return exitNotRun
	}
	if n := unix.SignalNum(t.Signal); t.Signal != "" && n > 0 {
		return exitSignal + int(n)
	}
	if t.ExitCode != nil && *t.ExitCode > 0 && *t.ExitCode < 256 {
		return *t.ExitCode
	}
	return exitFailed
}
