package main

import (
	"errors"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/terminal"
)

func newScheduleCommand(s *shell) *cobra.Command {
	c := &cobra.Command{
		Use:   "schedule",
		Short: "Submit tasks at the times of a cron expression",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newScheduleListCommand(s), newScheduleApplyCommand(s), newScheduleDeleteCommand(s),
		newSchedulePauseCommand(s, true), newSchedulePauseCommand(s, false))
	return c
}

func newScheduleListCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "list",
		Short: "List schedules",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			list, err := cl.Schedules(cmd.Context())
			if err != nil {
				return err
			}
			return printSchedules(s, out, list)
		},
	}
	out = addOutput(c, formatTable, formatJSON, formatYAML, formatName)
	return c
}

func printSchedules(s *shell, out *outputFlag, list v1alpha1.ScheduleList) error {
	if done, err := out.structured(s, list); done {
		return err
	}
	if out.value == formatName {
		for _, v := range list.Schedules {
			s.printf("%s\n", terminal.Escape(v.Name))
		}
		return nil
	}
	if len(list.Schedules) == 0 {
		s.note("no schedules")
		return nil
	}
	t := s.table(terminal.Column{Title: "NAME"}, terminal.Column{Title: "CRON"}, terminal.Column{Title: "TIME ZONE"},
		terminal.Column{Title: "NEXT"}, terminal.Column{Title: "LAST"}, terminal.Column{Title: "LAST TASK"}, terminal.Column{Title: "ERROR", Flex: true, Least: 20})
	for _, v := range list.Schedules {
		next, style := clock(v.Next), ""
		if v.Paused {
			next, style = "paused", "33"
		}
		row := terminal.Text(v.Name, v.Cron, v.Timezone, next, clock(v.LastAt), string(v.LastTask), v.LastError)
		row[3].Style = style
		t.Row(row...)
	}
	return s.printTable(t)
}

func newScheduleApplyCommand(s *shell) *cobra.Command {
	var (
		files []string
		out   *outputFlag
	)
	c := &cobra.Command{
		Use:   "apply -f FILE…",
		Short: "Create or replace schedules from documents",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usageError("no documents; want -f FILE, or -f - for standard input")
			}
			docs, err := readDocuments(s, files)
			if err != nil {
				return err
			}
			if len(docs.tasks) > 0 {
				return &client.Error{
					Text: docs.where[0] + " is a Task", Kind: client.ErrUsage,
					Hint: "`muster submit -f` takes tasks and schedules together",
				}
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			done, err := putAll(cmd.Context(), cl, docs.schedules)
			if len(done) > 0 || err == nil {
				err = errors.Join(err, printSchedules(s, out, v1alpha1.ScheduleList{Schedules: nonNil(done)}))
			}
			return err
		},
	}
	c.Flags().StringArrayVarP(&files, "filename", "f", nil, "`file` with Schedule documents; - is standard input")
	out = addOutput(c, formatTable, formatJSON, formatYAML, formatName)
	return c
}

func newScheduleDeleteCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:               "delete NAME…",
		Short:             "Remove schedules; the tasks they submitted stay",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeSchedules(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			var (
				errs    []error
				deleted = []string{}
			)
			for _, name := range args {
				if err := cl.DeleteSchedule(cmd.Context(), name); err != nil {
					errs = append(errs, err)
					continue
				}
				deleted = append(deleted, name)
			}
			if done, err := out.structured(s, map[string][]string{"deleted": deleted}); done {
				return errors.Join(append(errs, err)...)
			}
			for _, name := range deleted {
				s.printf("%s\n", terminal.Escape(name))
			}
			return joined(errs)
		},
	}
	out = addOutput(c, formatName, formatJSON, formatYAML)
	return c
}

// newSchedulePauseCommand makes pause and resume.
func newSchedulePauseCommand(s *shell, pause bool) *cobra.Command {
	use, short := "pause NAME…", "Stop schedules from submitting tasks"
	if !pause {
		use, short = "resume NAME…", "Let paused schedules submit tasks again"
	}
	var out *outputFlag
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeSchedules(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			var (
				errs []error
				done []v1alpha1.ScheduleView
			)
			for _, name := range args {
				v, err := cl.Schedule(cmd.Context(), name)
				if err == nil {
					v, err = cl.PutSchedule(cmd.Context(), name, v1alpha1.ScheduleSpec{
						Cron: v.Cron, Timezone: v.Timezone, Paused: pause, Task: v.Task,
					})
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				done = append(done, v)
			}
			if len(done) > 0 {
				errs = append(errs, printSchedules(s, out, v1alpha1.ScheduleList{Schedules: done}))
			}
			return errors.Join(errs...)
		},
	}
	out = addOutput(c, formatTable, formatJSON, formatYAML, formatName)
	return c
}
