package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// eachTask resolves and handles every id, and reports all that failed.
func eachTask(ctx context.Context, s *shell, typed []string, do func(*client.Client, fleet.TaskID) (v1alpha1.TaskView, error)) ([]v1alpha1.TaskView, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var (
		done []v1alpha1.TaskView
		errs []error
	)
	for _, id := range typed {
		full, err := c.Resolve(ctx, id)
		if err == nil {
			var t v1alpha1.TaskView
			if t, err = do(c, full); err == nil {
				done = append(done, t)
				continue
			}
		}
		if errors.Is(err, client.ErrLost) || errors.Is(err, client.ErrToken) {
			return done, err // the others would fail the same way
		}
		if len(typed) > 1 {
			err = fmt.Errorf("%s: %w", id, err)
		}
		errs = append(errs, err)
	}
	return done, joined(errs)
}

func newCancelCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "cancel ID…",
		Short: "End tasks",
		Long: `End tasks: a waiting one at once, a running one with SIGTERM and, after a grace
period, SIGKILL. A task that has ended stays as it is.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeTasks(s, unended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			done, err := eachTask(ctx, s, args, func(c *client.Client, id fleet.TaskID) (v1alpha1.TaskView, error) {
				return c.Cancel(ctx, id)
			})
			if printed, perr := out.structured(s, v1alpha1.TaskList{Tasks: nonNil(done)}); printed {
				return errors.Join(err, perr)
			}
			for _, t := range done {
				switch {
				case out.value == formatName:
					s.printf("%s\n", t.ID)
				case t.Cancelling:
					s.printf("%s cancelling\n", terminal.Escape(label(t)))
				case t.State == fleet.TaskCancelled:
					s.printf("%s cancelled\n", terminal.Escape(label(t)))
				default:
					s.printf("%s had ended already: %s\n", terminal.Escape(label(t)), t.State)
				}
			}
			return err
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML, formatName)
	return c
}

func newRetryCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:               "retry ID…",
		Short:             "Submit tasks again, as new tasks",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeTasks(s, ended),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			done, err := eachTask(ctx, s, args, func(c *client.Client, id fleet.TaskID) (v1alpha1.TaskView, error) {
				return c.Retry(ctx, id)
			})
			if len(done) > 0 || err == nil {
				err = errors.Join(err, printSubmitted(s, out, done))
			}
			return err
		},
	}
	out = addOutput(c, formatName, formatJSON, formatYAML)
	return c
}

func newWaitCommand(s *shell) *cobra.Command {
	var o attendOptions
	c := &cobra.Command{
		Use:   "wait ID…",
		Short: "Wait for tasks to end",
		Long: `Wait for tasks to end, over lost connections and a restart of the server, and
exit as ` + "`submit --wait`" + ` does: as the first of them that failed.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeTasks(s, unended),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			var tasks []v1alpha1.TaskView
			for _, typed := range args {
				id, err := c.Resolve(cmd.Context(), typed)
				if err != nil {
					return err
				}
				tasks = append(tasks, v1alpha1.TaskView{ID: id})
			}
			return attend(cmd.Context(), s, c, o, tasks)
		},
	}
	o.output = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}
