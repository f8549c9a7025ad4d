package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newTasksCommand(s *shell) *cobra.Command {
	var (
		q     client.TaskQuery
		since string
		out   *outputFlag
	)
	c := &cobra.Command{
		Use:   "tasks",
		Short: "List tasks, newest first",
		Example: `  muster tasks
  muster tasks --state running,queued --label team=payments
  muster tasks --since 24h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if err = knownStates(q.States); err != nil {
				return err
			}
			if q.Since, err = moment(since, s.now()); err != nil {
				return err
			}
			if q.Limit < 1 || q.Limit > 10000 {
				return usageError("--limit %d is out of range; want 1 to 10000", q.Limit)
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			list, err := cl.Tasks(cmd.Context(), q)
			if err != nil {
				return err
			}
			return printTasks(s, out, list)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&q.States, "state", nil, "only these `states`: "+strings.Join(stateNames(), ", "))
	f.StringArrayVar(&q.Labels, "label", nil, "only with this label, `key=value`; repeat for several, which must all hold")
	f.StringVar(&since, "since", "", "submitted since `when`: 2h, 2026-03-01, or RFC 3339")
	f.IntVar(&q.Limit, "limit", 100, "at most this `many`")
	out = addOutput(c, formatTable, formatWide, formatJSON, formatYAML, formatName)
	_ = c.RegisterFlagCompletionFunc("state", completeStates)
	return c
}

func stateNames() []string {
	names := make([]string, len(fleet.TaskStates))
	for i, st := range fleet.TaskStates {
		names[i] = string(st)
	}
	return names
}

func knownStates(states []string) error {
	all := " " + strings.Join(stateNames(), " ") + " "
	for _, st := range states {
		if !strings.Contains(all, " "+st+" ") {
			return usageError("--state %q is unknown; want %s", st, strings.Join(stateNames(), ", "))
		}
	}
	return nil
}

func printTasks(s *shell, out *outputFlag, list v1alpha1.TaskList) error {
	if done, err := out.structured(s, list); done {
		return err
	}
	if out.value == formatName {
		for _, t := range list.Tasks {
			s.printf("%s\n", t.ID)
		}
		return nil
	}
	if len(list.Tasks) == 0 {
		s.note("no tasks")
		return nil
	}
	wide := out.value == formatWide
	columns := []terminal.Column{
		{Title: "ID"}, {Title: "NAME", Flex: true, Least: 8}, {Title: "STATE"}, {Title: "AGE", Right: true},
		{Title: "WAIT", Right: true}, {Title: "RUN", Right: true}, {Title: "EXIT", Right: true}, {Title: "REASON", Flex: true, Least: 16},
	}
	if wide {
		columns = append(columns, terminal.Column{Title: "LAUNCH"}, terminal.Column{Title: "TRY", Right: true},
			terminal.Column{Title: "POOL"}, terminal.Column{Title: "TENANT"}, terminal.Column{Title: "PRIO", Right: true},
			terminal.Column{Title: "SANDBOX"}, terminal.Column{Title: "NODE"}, terminal.Column{Title: "LABELS"})
	}
	t := s.table(columns...)
	if wide {
		t.Width = 0 // asked for: nothing is cut
	}
	for _, v := range list.Tasks {
		t.Row(taskRow(v, s.now(), wide)...)
	}
	if err := s.printTable(t); err != nil {
		return err
	}
	if list.Before != "" {
		s.note("there are more; see them with --limit")
	}
	return nil
}

func taskRow(v v1alpha1.TaskView, now time.Time, wide bool) []terminal.Cell {
	row := terminal.Text(string(v.ID), v.Name, string(v.State), terminal.Age(now.Sub(v.SubmittedAt).Truncate(time.Second)),
		taskWait(v, now), taskRun(v, now), taskCode(v), why(v))
	row[2].Style = stateStyle(v.State)
	if wide {
		row = append(row, terminal.Text(string(v.Launch), strconv.Itoa(v.Attempt), string(v.Pool), string(v.Tenant),
			strconv.Itoa(v.Priority), string(v.Sandbox), string(v.Node), labels(v.Labels))...)
	}
	return row
}

// taskWait is how long the task waited from when it was due to its first
// instruction; a queued one waits still.
func taskWait(v v1alpha1.TaskView, now time.Time) string {
	switch {
	case !v.StartedAt.IsZero():
		return seconds(v.StartedAt.Sub(v.DueAt).Seconds())
	case v.Final() || v.DueAt.After(now):
		return ""
	}
	return seconds(now.Sub(v.DueAt).Seconds())
}

func taskRun(v v1alpha1.TaskView, now time.Time) string {
	switch {
	case v.Phases.RunSeconds > 0:
		return seconds(v.Phases.RunSeconds)
	case v.State == fleet.TaskRunning && !v.RunningAt.IsZero():
		return seconds(now.Sub(v.RunningAt).Seconds())
	}
	return ""
}

func taskCode(v v1alpha1.TaskView) string {
	if v.Signal != "" {
		return v.Signal
	}
	if v.ExitCode != nil {
		return strconv.Itoa(*v.ExitCode)
	}
	return ""
}

// why is the reason and what else there is to say, in one cell.
func why(v v1alpha1.TaskView) string {
	switch {
	case v.Cancelling:
		return "cancelling"
	case v.Reason != "" && v.Message != "":
		return string(v.Reason) + ": " + v.Message
	case v.Reason != "":
		return string(v.Reason)
	}
	return v.Message
}

// labels prints labels in a stable order.
func labels(m map[string]string) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}
