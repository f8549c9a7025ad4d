package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/terminal"
)

// rollbackOptions are the flags of `muster fleet rollback`.
type rollbackOptions struct {
	yes, dry, force bool
	out             *outputFlag
}

func newRollbackCommand(s *shell) *cobra.Command {
	var o rollbackOptions
	c := &cobra.Command{
		Use:   "rollback [N]",
		Short: "Put an earlier specification of the fleet in force",
		Long: `Put revision N of the fleet's specification in force again, or the one before the
newest. It is checked as if it were new, the difference is shown, and a terminal
is asked; --yes does not ask, and is needed where nobody can be.

On one machine the fleet's file is replaced, with the old one kept beside it; what
can be changed while tasks run is, and what takes a new start is said. In a cluster
the spec of the Fleet object is replaced, unless something else keeps applying it
(Argo CD, Flux, Helm, server-side apply): roll back there, or use --force.`,
		Example: `  muster fleet rollback --dry-run
  muster fleet rollback 3 --yes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := revisionNumber(args)
			if err != nil {
				return err
			}
			_, tty := s.terminal(s.in)
			if !o.yes && !o.dry && !tty {
				return usageError("standard input is no terminal, so that nobody can be asked; give --yes, or --dry-run to only look")
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			return rollBack(cmd.Context(), s, cl, o, n)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dry, "dry-run", false, "check and show the difference; change nothing")
	f.BoolVar(&o.force, "force", false, "in a cluster: also where something else may put its own specification back")
	o.out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func rollBack(ctx context.Context, s *shell, c *client.Client, o rollbackOptions, n int) error {
	ask := v1alpha1.RollbackRequest{To: n, By: localAuthor(), DryRun: true, Force: o.force}
	would, err := c.Rollback(ctx, ask)
	if err != nil {
		return err
	}
	if o.dry {
		return printRollback(s, o.out, would)
	}
	if !o.yes {
		showRollback(s, would)
		if sure, err := s.confirm(fmt.Sprintf("Put revision %d in force?", would.To)); err != nil || !sure {
			s.note("nothing is changed")
			return exitStatus(exitFailed)
		}
	}
	ask.To, ask.DryRun = int(would.To), false // the one that was shown
	done, err := c.Rollback(ctx, ask)
	if err != nil {
		return err
	}
	if done.From != would.From {
		done.Warnings = append(done.Warnings, fmt.Sprintf("revision %d came in between and is replaced, too", done.From))
	}
	return printRollback(s, o.out, done)
}

// confirm asks a question on the terminal; no is the default.
func (s *shell) confirm(question string) (bool, error) {
	_, _ = fmt.Fprint(s.errs, question+" [y/N] ")
	answer, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil {
		_, _ = fmt.Fprintln(s.errs)
		return false, err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// showRollback shows what changes, and what is to be known of it.
func showRollback(s *shell, v v1alpha1.RollbackView) {
	s.printDiff(v.Diff)
	s.printf("\n")
	showAwaits(s, v.Awaits, v.Warnings)
}

func printRollback(s *shell, out *outputFlag, v v1alpha1.RollbackView) error {
	if done, err := out.structured(s, v); done {
		return err
	}
	if v.DryRun {
		showRollback(s, v)
		return nil
	}
	s.printf("revision %d is in force again", v.To)
	if v.Revision > 0 {
		s.printf(", as revision %d", v.Revision)
	}
	s.printf(": %s\n", terminal.Escape(v.Summary))
	if len(v.Awaits) > 0 {
		s.printf("taken over by the next start only: %s; stop and start muster for that\n", terminal.Escape(strings.Join(v.Awaits, ", ")))
	}
	for _, k := range v.Kept {
		s.printf("the file before is %s\n", terminal.Escape(k))
	}
	for _, w := range v.Warnings {
		s.note("%s", w)
	}
	return nil
}
