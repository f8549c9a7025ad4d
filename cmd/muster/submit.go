package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// submitBatch is how many tasks one request may carry.
const submitBatch = 1000

// submitOptions are the flags of submit that are not part of the task.
type submitOptions struct {
	files  []string
	wait   bool
	follow bool
	cancel bool // --cancel-on-interrupt
	output *outputFlag
}

func newSubmitCommand(s *shell) *cobra.Command {
	var (
		o submitOptions
		t taskFlags
	)
	c := &cobra.Command{
		Use:   "submit [flags] -- COMMAND [ARG…]\n  muster submit [flags] -f FILE…",
		Short: "Submit tasks",
		Long: `Submit a task given by flags and a command, or the Task and Schedule documents in
files (several to a file; - is standard input). The ids are printed.

With --wait it ends when the task does, and as the task did: with its exit code;
128 and the signal's number when a signal ended it (137 when it ran out of
memory); 124 after a timeout; 130 when it was cancelled; 126 or 127 when its
command could not be executed; 125 when it was lost, or when its image, template,
repository, setup or a secret failed before the command ran. Of several tasks the
first failure counts.

--follow shows the log meanwhile: standard output on standard output, standard
error and muster's own notes on standard error.

Ctrl-C leaves the task running and says how to come back to it; a second Ctrl-C
cancels it (with --cancel-on-interrupt the first one does).`,
		Example: `  muster submit --follow -- sh -c 'echo hello'
  muster submit --wait --repo https://github.com/o/r --setup 'npm ci' -- claude -p 'fix the flaky test'
  muster submit --env CI=1 --secret ANTHROPIC_API_KEY --allow api.anthropic.com -- ./agent.sh
  muster submit -f tasks.yaml`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSubmit(cmd, s, o, t, args)
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows the command's name is the command's
	f.StringArrayVarP(&o.files, "filename", "f", nil, "`file` with Task and Schedule documents; - is standard input")
	f.BoolVar(&o.wait, "wait", false, "wait for the end and exit as the task does")
	f.BoolVar(&o.follow, "follow", false, "show the log until the end; implies --wait")
	f.BoolVar(&o.cancel, "cancel-on-interrupt", false, "Ctrl-C cancels the task")
	o.output = addOutput(c, formatName, formatJSON, formatYAML)
	t.register(c, s)
	return c
}

func runSubmit(cmd *cobra.Command, s *shell, o submitOptions, t taskFlags, args []string) error {
	docs, err := collect(cmd, s, o, t, args)
	if err != nil {
		return err
	}
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	tasks, err := submitAll(cmd.Context(), c, docs.tasks)
	if err != nil {
		err = docs.locate(err, len(tasks))
		if len(tasks) > 0 {
			s.note("the first %d tasks were accepted", len(tasks))
			return errors.Join(err, printSubmitted(s, o.output, tasks))
		}
		return err
	}
	schedules, err := putAll(cmd.Context(), c, docs.schedules)
	if err != nil {
		return err
	}
	for _, v := range schedules {
		s.note("schedule %s fires next at %s", v.Name, clock(v.Next))
	}
	if !o.wait && !o.follow {
		return printSubmitted(s, o.output, tasks)
	}
	return attend(cmd.Context(), s, c, attendOptions{follow: o.follow, cancel: o.cancel, output: o.output, submitted: true}, tasks)
}

// collect makes the documents from the flags or reads them from files.
func collect(cmd *cobra.Command, s *shell, o submitOptions, t taskFlags, args []string) (documents, error) {
	if len(o.files) == 0 {
		if len(args) == 0 {
			return documents{}, &client.Error{
				Text: "no command to run", Kind: client.ErrUsage,
				Hint: "give one after `--`, as in: muster submit --follow -- sh -c 'echo hello', or documents with -f FILE",
			}
		}
		spec, err := t.spec(cmd, s, args)
		return documents{tasks: []v1alpha1.TaskSpec{spec}}, err
	}
	if len(args) > 0 {
		return documents{}, usageError("-f takes the command from the documents; leave %q away", args[0])
	}
	if name := t.given(cmd); name != "" {
		return documents{}, usageError("--%s describes one task; with -f it belongs into the document", name)
	}
	return readDocuments(s, o.files)
}

func submitAll(ctx context.Context, c *client.Client, specs []v1alpha1.TaskSpec) ([]v1alpha1.TaskView, error) {
	var all []v1alpha1.TaskView
	for len(specs) > 0 {
		n := min(submitBatch, len(specs))
		tasks, err := c.Submit(ctx, specs[:n])
		if err != nil {
			return all, err
		}
		all, specs = append(all, tasks...), specs[n:]
	}
	return all, nil
}

func printSubmitted(s *shell, o *outputFlag, tasks []v1alpha1.TaskView) error {
	if done, err := o.structured(s, v1alpha1.TaskList{Tasks: nonNil(tasks)}); done {
		return err
	}
	for _, t := range tasks {
		s.printf("%s\n", t.ID)
	}
	if _, tty := s.terminal(s.errs); tty && len(tasks) == 1 {
		s.note("see it with: muster logs -f %s", tasks[0].ID)
	}
	return nil
}

func nonNil[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// ids lists the ids of tasks.
func ids(tasks []v1alpha1.TaskView) []fleet.TaskID {
	out := make([]fleet.TaskID, len(tasks))
	for i, t := range tasks {
		out[i] = t.ID
	}
	return out
}
