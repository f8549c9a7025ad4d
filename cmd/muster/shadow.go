package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newShadowCommand(s *shell) *cobra.Command {
	var (
		since string
		hours bool
		out   *outputFlag
	)
	c := &cobra.Command{
		Use:   "shadow",
		Short: "Compare what Muster would have had with what there was",
		Long: `Compare, for a fleet of mode shadow or scale, the sandboxes that Muster's
decisions asked for with the workers that there were, and the waiting under both.

Muster's part is counted: each start takes spec.workers.startup, each node
spec.nodes.boot, and the demand is the one that was read, so that what earlier
starts would have spared or cost is left out. Workers are read from
spec.workers.actual; without it only Muster's part and the waits are shown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" {
				if _, err := moment(since, time.Now()); err != nil {
					return err
				}
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			sh, err := cl.Shadow(cmd.Context(), since)
			if err != nil {
				return err
			}
			if done, err := out.structured(s, sh); done {
				return err
			}
			return printShadow(s.out, sh, hours)
		},
	}
	c.Flags().StringVar(&since, "since", "", "from this `time` (2026-01-31, 2026-01-31T08:00:00Z) or for the span up to now (48h)")
	c.Flags().BoolVar(&hours, "hours", false, "also each hour")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// printShadow says in a few lines what a comparison comes to.
func printShadow(w io.Writer, sh fleet.Shadow, hours bool) error {
	t := sh.Sum
	if t.Seconds < 1 {
		_, err := fmt.Fprintln(w, "nothing has been observed yet")
		return err
	}
	fmt.Fprintf(w, "since %s, %s observed, %d tasks arrived\n\n", t.From.Local().Format("2006-01-02 15:04"), span(t.Seconds), t.Arrived)
	table := &terminal.Table{Columns: []terminal.Column{{Title: ""}, {Title: "muster", Right: true}, {Title: "actual", Right: true}, {Title: "difference", Right: true}}}
	if t.Known > 0 {
		table.Row(terminal.Text("worker-hours", hoursOf(t.KnownSandboxes), hoursOf(t.Workers), change(t.KnownSandboxes, t.Workers))...)
		if sh.NodeHourMicroUSD > 0 {
			usd := float64(sh.NodeHourMicroUSD) / 1e6 / float64(sh.Slots) / 3600
			table.Row(terminal.Text(fmt.Sprintf("cost at %d to a node", sh.Slots), fmt.Sprintf("$%.2f", t.KnownSandboxes*usd), fmt.Sprintf("$%.2f", t.Workers*usd), change(t.KnownSandboxes, t.Workers))...)
		}
	} else {
		table.Row(terminal.Text("worker-hours", hoursOf(t.Sandboxes), "not known", "")...)
	}
	table.Row(terminal.Text("node-hours", hoursOf(t.Nodes), "", "")...)
	table.Row(terminal.Text("mean wait", meanWait(t.Waiting, t.Arrived), meanWait(t.ActualWaiting, t.Arrived), change(t.Waiting, t.ActualWaiting))...)
	if _, err := table.WriteTo(w); err != nil {
		return err
	}
	if t.Known > 0 && t.Known < 0.95*t.Seconds {
		fmt.Fprintf(w, "\nThe number of workers was known for %s of %s; the rows that need it are of that time.\n", span(t.Known), span(t.Seconds))
	}
	if t.Known == 0 {
		fmt.Fprintln(w, "\nHow many workers there were is not known: say where to read it in spec.workers.actual.")
	}
	if !hours {
		return nil
	}
	fmt.Fprintln(w)
	table = &terminal.Table{Columns: []terminal.Column{{Title: "hour"}, {Title: "arrived", Right: true}, {Title: "muster", Right: true}, {Title: "actual", Right: true}, {Title: "wait", Right: true}, {Title: "actual wait", Right: true}}}
	for _, h := range sh.Hours {
		actual := "-"
		if h.Known > 0 {
			actual = fmt.Sprintf("%.1f", h.Workers/h.Known)
		}
		table.Row(terminal.Text(h.From.Local().Format("2006-01-02 15:04"), fmt.Sprint(h.Arrived), fmt.Sprintf("%.1f", h.Sandboxes/max(1, h.Seconds)), actual,
			meanWait(h.Waiting, h.Arrived), meanWait(h.ActualWaiting, h.Arrived))...)
	}
	_, err := table.WriteTo(w)
	return err
}

func span(seconds float64) string {
	return (time.Duration(seconds) * time.Second).Round(time.Second).String()
}

func hoursOf(seconds float64) string { return fmt.Sprintf("%.2f", seconds/3600) }

// meanWait is the wait of a task on average.
func meanWait(seconds float64, tasks int64) string {
	if tasks == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", seconds/float64(tasks))
}

// change is how much less or more ours is.
func change(ours, theirs float64) string {
	if theirs == 0 {
		return ""
	}
	return fmt.Sprintf("%+.0f %%", 100*(ours/theirs-1))
}
