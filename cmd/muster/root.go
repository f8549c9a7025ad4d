package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
)

// newRoot makes the whole command tree.
func newRoot(s *shell) *cobra.Command {
	root := &cobra.Command{
		Use:   "muster",
		Short: "Run a fleet of coding agents, each in a sandbox of its own, sized to its load",
		Long: `Muster runs a fleet of AI coding agents. Tasks wait in a queue; each runs in a
sandbox of its own, claimed from a pool kept warm for it; the fleet sizes itself
and says why.

Start a fleet on this machine with ` + "`muster up`" + `, then, in another terminal:

  muster submit --follow -- sh -c 'echo hello from a sandbox'

A task may be given as its id, the beginning or end of its id, or its name.

Exit codes: 0 done, 1 failed, 2 wrong input. submit --wait and exec end as the
task or command did; see their help.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&s.server, "server", "", "`address` of the server; default $MUSTER_SERVER, else that of the local `muster up`")
	f.StringVar(&s.tokenFile, "token-file", "", "`file` with the token; default $MUSTER_TOKEN, else the data directory's")
	f.StringVar(&s.dataDir, "data", "", "data `directory` of the local muster; default $MUSTER_HOME, /var/lib/muster for root, else ~/.local/state/muster")
	f.StringVar(&s.fleet, "fleet", "", "`namespace/name` of the fleet, where the server has several; default $MUSTER_FLEET")
	f.Lookup("server").Usage = "`address` of the server; default $MUSTER_SERVER, else that of the local muster"
	group(root, "tasks", "Tasks:",
		newSubmitCommand(s), newTasksCommand(s), newTaskCommand(s), newLogsCommand(s), newWaitCommand(s),
		newCancelCommand(s), newRetryCommand(s), newPatchCommand(s), newArtifactsCommand(s), newExecCommand(s),
		newScheduleCommand(s))
	group(root, "fleet", "The fleet:",
		newFleetCommand(s), newForecastCommand(s), newShadowCommand(s), newCostCommand(s), newEvidenceCommand(s), newEventsCommand(s), newExplainCommand(s), newSandboxesCommand(s), newTopCommand(s), newReplayCommand(s))
	group(root, "machine", "This machine:",
		newUpCommand(), newServeCommand(), newConsumeCommand(), newWaitHereCommand(), newDownCommand(), newEvalCommand(s), newValidateCommand(s), newDoctorCommand(s), newTokenCommand(s), newVersionCommand(s))
	group(root, "planning", "Planning:", newAdviseCommand(s), newSimulateCommand(s), newTuneCommand(s), newTraceCommand(s), newImportCommand(s))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &client.Error{Text: err.Error(), Hint: "see `" + cmd.CommandPath() + " --help`", Kind: client.ErrUsage, Cause: err}
	})
	strict(root)
	return root
}

func group(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// strict marks wrong arguments as wrong input, with where to read on, in
// every command.
func strict(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.ArbitraryArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		text := wrongCount(cmd, args, err)
		if cmd.HasSubCommands() && len(args) > 0 {
			text = "there is no command \"" + cmd.CommandPath() + " " + args[0] + "\""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; did you mean " + strings.Join(near, " or ") + "?"
			}
		}
		return &client.Error{Text: text, Hint: "see `" + cmd.CommandPath() + " --help`", Kind: client.ErrUsage}
	}
	c.SuggestionsMinimumDistance = 2
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// wrongCount says in the words of the command's usage which arguments it wants.
func wrongCount(cmd *cobra.Command, args []string, err error) string {
	_, want, _ := strings.Cut(strings.SplitN(cmd.Use, "\n", 2)[0], " ")
	want = strings.TrimPrefix(want, "[flags] ")
	switch {
	case want == "" && len(args) > 0:
		return "`" + cmd.CommandPath() + "` takes no arguments; leave " + strconv.Quote(args[0]) + " away"
	case want == "":
		return err.Error()
	}
	given := strconv.Itoa(len(args)) + " arguments"
	switch len(args) {
	case 0:
		given = "nothing"
	case 1:
		given = "one"
	}
	return "`" + cmd.CommandPath() + "` wants " + want + " and was given " + given
}
