package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// completeWithin bounds how long a press of the tab key may take.
const completeWithin = 700 * time.Millisecond

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// The tasks that a command can do something with.
func unended(st fleet.TaskState) bool { return !st.Final() }
func ended(st fleet.TaskState) bool   { return st.Final() }
func running(st fleet.TaskState) bool { return st.Active() }

// completeTask offers ids for the first argument.
func completeTask(s *shell, want func(fleet.TaskState) bool) completion {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return taskIDs(cmd.Context(), s, want, args)
	}
}

// completeTasks offers ids for every argument.
func completeTasks(s *shell, want func(fleet.TaskState) bool) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return taskIDs(cmd.Context(), s, want, args)
	}
}

// taskIDs asks the server. A server that is away offers nothing, silently.
func taskIDs(ctx context.Context, s *shell, want func(fleet.TaskState) bool, have []string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	list, err := ask(ctx, s, func(ctx context.Context, c *client.Client) (v1alpha1.TaskList, error) {
		return c.Tasks(ctx, client.TaskQuery{Limit: 200})
	})
	if err != nil {
		return nil, directive
	}
	given := " " + strings.Join(have, " ") + " "
	var out []string
	for _, t := range list.Tasks {
		if want != nil && !want(t.State) || strings.Contains(given, " "+string(t.ID)+" ") {
			continue
		}
		about := string(t.State)
		if t.Name != "" {
			about += " " + terminal.Escape(t.Name)
		} else {
			about += " " + terminal.Escape(quoted(t.Spec.Command))
		}
		out = append(out, cobra.CompletionWithDesc(string(t.ID), terminal.Cut(about, 60)))
	}
	return out, directive
}

func ask[T any](ctx context.Context, s *shell, get func(context.Context, *client.Client) (T, error)) (T, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	var zero T
	c, err := s.connect()
	if err != nil {
		return zero, err
	}
	defer c.Close()
	return get(ctx, c)
}

// completeStates offers states, also behind a comma.
func completeStates(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	before := ""
	if i := strings.LastIndexByte(toComplete, ','); i >= 0 {
		before = toComplete[:i+1]
	}
	var out []string
	for _, name := range stateNames() {
		out = append(out, before+name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeTemplates offers the templates of the fleet.
func completeTemplates(s *shell) completion {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		view, err := ask(cmd.Context(), s, func(ctx context.Context, c *client.Client) (v1alpha1.FleetView, error) {
			return c.Fleet(ctx)
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, p := range view.Pools {
			if string(p.Pool) == p.Template { // not a variant
				out = append(out, p.Template)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeSchedules offers the names of schedules.
func completeSchedules(s *shell) completion {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		list, err := ask(cmd.Context(), s, func(ctx context.Context, c *client.Client) (v1alpha1.ScheduleList, error) {
			return c.Schedules(ctx)
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, sc := range list.Schedules {
			out = append(out, cobra.CompletionWithDesc(sc.Name, terminal.Escape(sc.Cron)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
