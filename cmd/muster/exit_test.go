package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

func TestTaskExit(t *testing.T) {
	code := func(n int) *int { return &n }
	for _, c := range []struct {
		task v1alpha1.TaskView
		want int
	}{
		{v1alpha1.TaskView{State: fleet.TaskSucceeded, ExitCode: code(0)}, 0},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonExit, ExitCode: code(7)}, 7},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonExit, Signal: "SIGKILL"}, 137},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonExit, Signal: "SIGTERM", ExitCode: code(143)}, 143},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonExit, Signal: "nonsense"}, 1},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonOOM, ExitCode: code(1)}, 137},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonDisk, ExitCode: code(1)}, 1},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonDisk, ExitCode: code(0)}, 1},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonCommand}, 127},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonCommand, ExitCode: code(126)}, 126},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonSetup, ExitCode: code(3)}, 125},
		{v1alpha1.TaskView{State: fleet.TaskFailed, Reason: fleet.ReasonImage}, 125},
		{v1alpha1.TaskView{State: fleet.TaskLost, Reason: fleet.ReasonNodeLost}, 125},
		{v1alpha1.TaskView{State: fleet.TaskTimedOut, Reason: fleet.ReasonTimeoutRun, Signal: "SIGTERM"}, 124},
		{v1alpha1.TaskView{State: fleet.TaskCancelled, Reason: fleet.ReasonCancelled, Signal: "SIGTERM"}, 130},
	} {
		if got := taskExit(c.task); got != c.want {
			t.Errorf("%s %s %q: exit %d, want %d", c.task.State, c.task.Reason, c.task.Signal, got, c.want)
		}
	}
}

func TestErrorsForPeople(t *testing.T) {
	hinted := &client.Error{Text: "no muster", Hint: "start it", Kind: client.ErrLost}
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{exitStatus(7), 7, ""},
		{fmt.Errorf("wait: %w", exitStatus(7)), 7, ""},
		{context.Canceled, 130, ""},
		{errors.New("plain\n"), 1, "muster: plain"},
		{hinted, 1, "muster: no muster\nhint: start it"},
		{fmt.Errorf("tasks.yaml: %w", hinted), 1, "muster: tasks.yaml: no muster\nhint: start it"},
		{usageError("bad %s", "flag"), 2, "muster: bad flag"},
		{errors.Join(errors.New("one"), &fleet.FieldError{Field: "spec", Wrong: "is wrong"}), 2, "muster: one\nspec: is wrong"},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.code)
		}
		if got := errorText(c.err); got != c.text {
			t.Errorf("%v: %q, want %q", c.err, got, c.text)
		}
	}
}

func TestQuoted(t *testing.T) {
	if got, want := quoted([]string{"sh", "-c", "echo 'hi' $X", "", "a=b"}), `sh -c 'echo '\''hi'\'' $X' '' a=b`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Every command has -o with json, and says in its help what it is for.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		switch c.Name() {
		case "up", "serve", "consume", "wait-here", "down", "completion", "help":
			return
		}
		if c.Short == "" {
			t.Errorf("%s does not say what it is for", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			look(sub)
		}
		f := c.Flags().Lookup("output")
		if !c.HasSubCommands() && (f == nil || f.Shorthand != "o" || !strings.Contains(f.Usage, "json")) {
			t.Errorf("%s has no -o json", c.CommandPath())
		}
	}
	look(newRoot(newShell()))
}
