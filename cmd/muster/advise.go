package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// adviseOptions are the flags of `muster advise`.
type adviseOptions struct {
	since, until, zone string
	apply              int
	yes, dry, force    bool
	trace, fleet       string
	most               time.Duration
	out                *outputFlag
}

func newAdviseCommand(s *shell) *cobra.Command {
	var o adviseOptions
	c := &cobra.Command{
		Use:   "advise",
		Short: "Say what of the fleet could be set better, and what that saves",
		Long: `Look at what tasks were measured to use and simulate other settings on the
fleet's own history: limits of templates, the standing minimum, floors for the
peaks of the week, hold times, the size of nodes. Each piece of advice says what
it saves, what becomes of the waits, and what it rests on; what was looked at and
is not advised is told with the reason. Nothing is advised that lets more tasks
be late.

--apply N puts the patch of number N in force: the difference is shown, and a
terminal is asked. It becomes a revision, which ` + "`muster fleet rollback`" + ` undoes.

--trace works on a file instead of a server, for the Fleet in --fleet.`,
		Example: `  muster advise
  muster advise --since 720h --timezone Europe/Warsaw
  muster advise --apply 1
  muster advise --trace month.csv.gz --fleet fleet.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd, s); err != nil {
				return err
			}
			if o.trace != "" {
				a, err := o.offline(cmd.Context(), s)
				if err != nil {
					return err
				}
				return showAdvice(s, o.out, a)
			}
			return o.ask(cmd.Context(), s)
		},
	}
	f := c.Flags()
	f.StringVar(&o.since, "since", "", "tasks that arrived since `when`: 720h, 2026-03-01, or RFC 3339 (default: 14 days ago)")
	f.StringVar(&o.until, "until", "", "until `when`, as --since (default: now)")
	f.StringVar(&o.zone, "timezone", "UTC", "`zone` of the peaks that floors are advised for, as Europe/Warsaw")
	f.IntVar(&o.apply, "apply", 0, "put the advice of this `number` in force")
	f.BoolVarP(&o.yes, "yes", "y", false, "with --apply: do not ask")
	f.BoolVar(&o.dry, "dry-run", false, "with --apply: check and show the difference; change nothing")
	f.BoolVar(&o.force, "force", false, "with --apply, in a cluster: also where something else may put its own specification back")
	f.StringVar(&o.trace, "trace", "", "advise on a `file` of tasks (.csv, .csv.gz) instead of a server")
	f.StringVar(&o.fleet, "fleet", "", "with --trace: `file` of the Fleet to advise on")
	f.DurationVar(&o.most, "max-duration", 0, "with --trace: leave out tasks longer than this `duration`; 0 takes all")
	o.out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func (o *adviseOptions) check(cmd *cobra.Command, s *shell) error {
	if _, err := v1alpha1.ParseZone(o.zone); err != nil {
		return wrongFlag("--timezone", err)
	}
	_, tty := s.terminal(s.in)
	switch {
	case cmd.Flags().Changed("apply") && o.apply < 1:
		return usageError("--apply %d is no number of a piece of advice; want 1 or more", o.apply)
	case o.apply == 0 && (o.yes || o.dry || o.force):
		return usageError("--yes, --dry-run and --force go with --apply")
	case o.apply > 0 && o.trace != "":
		return usageError("--apply is for a running fleet; with --trace, put the printed patch into the file by hand")
	case (o.trace == "") != (o.fleet == ""):
		return usageError("--trace and --fleet go together: want both, or neither")
	case o.most != 0 && o.trace == "":
		return usageError("--max-duration goes with --trace")
	case o.apply > 0 && !o.yes && !o.dry && !tty:
		return usageError("standard input is no terminal, so that nobody can be asked; give --yes, or --dry-run to only look")
	}
	return nil
}

// ask asks the server, and has it change the fleet where that is wanted.
func (o *adviseOptions) ask(ctx context.Context, s *shell) error {
	since, err := momentText("since", o.since, s.now())
	if err != nil {
		return err
	}
	until, err := momentText("until", o.until, s.now())
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	a, err := cl.Advice(ctx, since, until, o.zone)
	if err != nil {
		return err
	}
	if o.apply == 0 {
		return showAdvice(s, o.out, a)
	}
	if o.apply > len(a.Items) {
		return &client.Error{Text: fmt.Sprintf("there is no advice number %d; there are %d", o.apply, len(a.Items)), Hint: "see them with `muster advise`", Kind: client.ErrUsage}
	}
	return o.put(ctx, s, cl, &a.Items[o.apply-1])
}

// momentText is a time of a flag as the API takes it.
func momentText(flag, text string, now time.Time) (string, error) {
	t, err := momentOf(flag, text, now)
	if err != nil || t.IsZero() {
		return "", err
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

// put changes the fleet.
func (o *adviseOptions) put(ctx context.Context, s *shell, cl *client.Client, item *fleet.AdviceItem) error {
	note := "advice: " + item.Title
	if len(note) > 200 {
		note = strings.ToValidUTF8(note[:197], "") + "…"
	}
	ask := v1alpha1.PatchRequest{Patch: item.Patch, Note: note, By: localAuthor(), DryRun: true, Force: o.force}
	would, err := cl.PatchFleet(ctx, ask)
	if err != nil {
		return err
	}
	if o.out.value == formatText {
		s.printf("%s\n%s\n\n", s.styled(terminal.Escape(item.Title), "1"), terminal.Escape(item.Effect))
	}
	if o.dry {
		return printPatch(s, o.out, would)
	}
	if !o.yes {
		s.printDiff(would.Diff)
		s.printf("\n")
		showAwaits(s, would.Awaits, would.Warnings)
		if sure, err := s.confirm("Put this in force?"); err != nil || !sure {
			s.note("nothing is changed")
			return exitStatus(exitFailed)
		}
	}
	ask.DryRun, ask.From = false, int(would.From) // what was shown, and nothing else
	done, err := cl.PatchFleet(ctx, ask)
	if err != nil {
		return err
	}
	return printPatch(s, o.out, done)
}

// showAwaits says what of a change waits for the next start, and what is to be
// known of it.
func showAwaits(s *shell, awaits, warnings []string) {
	if len(awaits) > 0 {
		s.printf("taken over by the next start only: %s\n", terminal.Escape(strings.Join(awaits, ", ")))
	}
	for _, w := range warnings {
		s.note("%s", w)
	}
}

func printPatch(s *shell, out *outputFlag, v v1alpha1.PatchView) error {
	if done, err := out.structured(s, v); done {
		return err
	}
	if v.DryRun {
		s.printDiff(v.Diff)
		s.printf("\n")
		showAwaits(s, v.Awaits, v.Warnings)
		return nil
	}
	s.printf("in force")
	if v.Revision > 0 {
		s.printf(" as revision %d", v.Revision)
	}
	s.printf(": %s\n", terminal.Escape(v.Summary))
	for _, k := range v.Kept {
		s.printf("the file before is %s\n", terminal.Escape(k))
	}
	showAwaits(s, v.Awaits, v.Warnings)
	return nil
}

// offline advises on a trace.
func (o *adviseOptions) offline(ctx context.Context, s *shell) (fleet.Advice, error) {
	a, err := adviseTrace(ctx, s, o)
	if errors.Is(err, fleet.ErrNotFound) {
		return a, usageError("%s: %v", fileName(o.trace), err)
	}
	return a, err
}
